"""Make one simulated conversation to listen to and to look at, in the same way as training windows.

    python -m docs.example --dataset librispeech --output runs/example

writes `conversation.wav`, its reference `conversation.rttm`, and a picture of the turns, `conversation.png`.
"""

from common.program import end_quietly
from docs.flags import of_example

if __name__ == "__main__":
    end_quietly()
    of_example(__doc__)  # --help and wrong usage, before imports that take seconds

import numpy as np
import soundfile

from common.errors import plain
from common.output import OutputError, make_directory
from data.acoustics import Augmentation, Scenery
from data.conversations import EXCERPTS_FROM, GRID, SAMPLING_RATE, cast_speakers, plan_turns, render
from data.corpora import CorpusError, open_corpus
from data.turn_statistics import fill_pool
from diarization.formats import to_rttm
from diarization.timeline import plot_timeline
from modeling.segments_fast_diarization import Segment
from modeling.task_fast_diarization import Task

UTTERANCES = 48
PLANNED = 64
"""Planned conversations; the first in which each speaker has a fair share of the time is used."""
MOST_SPEAKERS = 8
FAIR = 0.4
"""Share of the time, divided by the number of speakers."""
NAME = "conversation"


def simulate(
    dataset: str, seconds: float = 20.0, seed: int = 0, num_speakers: int = Task.num_speakers
) -> tuple[np.ndarray, list[Segment]]:
    """A waveform (samples,), float32 mono 16 kHz, and its turns by start; deterministic.

    Raises:
        CorpusError: the corpus cannot be read, or has too few speakers.
    """
    pool = fill_pool(open_corpus(dataset, "train"), UTTERANCES, num_speakers)
    rng = np.random.default_rng(seed)
    turns = plan_turns(rng, PLANNED, EXCERPTS_FROM + seconds, num_speakers)
    inside = np.minimum(turns.end, EXCERPTS_FROM + seconds) - np.maximum(turns.start, EXCERPTS_FROM)
    heard = [np.where(turns.speaker == part, inside, 0).clip(min=0).sum(axis=1) for part in range(num_speakers)]
    turns = turns[[(np.min(heard, axis=0) > FAIR / num_speakers * seconds).argmax()]]
    speech = render(rng, pool, turns, cast_speakers(rng, pool, 1, num_speakers), [EXCERPTS_FROM], seconds)
    active = speech.active[0]
    scenery = Scenery(rng, speech.tracks.shape[2], pool, [])
    conditions = scenery.draw(rng, 1, num_speakers, Augmentation(gain_db=(-6.0, -3.0)))
    waveform = scenery.apply(speech, conditions)[0]
    step = GRID / SAMPLING_RATE
    segments = [
        Segment(round(first * step, 2), round(end * step, 2), speech.speakers[0][part], 1.0)
        for part, track in enumerate(active)
        for first, end in np.flatnonzero(np.diff(track.astype(np.int8), prepend=0, append=0)).reshape(-1, 2).tolist()
    ]
    return waveform, sorted(segments, key=lambda s: (s.start, s.end))


def main() -> None:
    arguments = of_example(__doc__)
    if not 1 <= arguments.seconds <= 600:
        raise SystemExit(f"error: --seconds must be from 1 to 600, got {arguments.seconds:g}")
    if not 1 <= arguments.num_speakers <= MOST_SPEAKERS:
        raise SystemExit(f"error: --num_speakers must be from 1 to {MOST_SPEAKERS}, got {arguments.num_speakers}")
    try:
        make_directory(arguments.output, "--output")
        waveform, segments = simulate(arguments.dataset, arguments.seconds, arguments.seed, arguments.num_speakers)
    except (CorpusError, OutputError, OSError) as error:
        raise SystemExit(f"error: {plain(error)}") from None
    soundfile.write(arguments.output / f"{NAME}.wav", waveform, SAMPLING_RATE)
    (arguments.output / f"{NAME}.rttm").write_text(to_rttm(NAME, segments))
    plot_timeline(arguments.output / f"{NAME}.png", f"A conversation made of {arguments.dataset}", segments)
    print(f"{arguments.output / NAME}.wav: {arguments.seconds:g} s, {len(segments)} stretches of speech")


if __name__ == "__main__":
    main()

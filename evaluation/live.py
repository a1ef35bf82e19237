"""Compare live with offline diarization, on simulated recordings of validation speakers.

    python -m evaluation.live --model runs/mine/model --dataset path/to/speech --noise path/to/noise

Both are scored against the reference, and the live hypothesis also against the offline one: as it came out at once,
and as `relabel` events had it at the end.
"""

from common.program import end_quietly
from evaluation.flags import of_live

if __name__ == "__main__":
    end_quietly()
    of_live(__doc__)  # --help and wrong usage, before imports that take seconds


from tqdm import tqdm

from common.markdown import table
from data.acoustics import load_noises
from data.corpora import CorpusError, open_corpus
from data.simulated_recordings import SimulatedRecordings
from diarization.backends import ModelError, open_network
from diarization.formats import to_annotation
from evaluation.rates import beside_floor
from evaluation.recording_scores import RecordingScores
from evaluation.sources import of_simulated
from modeling.events_fast_diarization import LiveEvents
from modeling.linking_fast_diarization import diarize
from modeling.segments_fast_diarization import Segment, join_segments
from modeling.settings_fast_diarization import LinkingSettings
from modeling.streaming_fast_diarization import StreamingDiarizer
from modeling.windows_fast_diarization import Network

CHUNK = 1_600
SPEAKERS = (2, 2, 3, 4)
"""Speakers of the recordings, repeated."""


def diarize_live(
    network: Network, waveform, settings: LinkingSettings, latency_seconds: float
) -> tuple[list[Segment], list[Segment]]:
    """The joined segments of a waveform (samples,) that arrives 0.1 s at a time: as they came, and as relabelled."""
    diarizer = StreamingDiarizer(network, settings, latency_seconds)
    live, pieces = LiveEvents(diarizer), []
    for at in range(0, len(waveform), CHUNK):
        pieces += diarizer.push(waveform[at : at + CHUNK])
        live.take()
    pieces += diarizer.flush()
    live.take()
    return join_segments(pieces), live.segments


def main() -> None:
    arguments = of_live(__doc__)
    if arguments.recordings < 1:
        raise SystemExit(f"error: --recordings must be at least 1, got {arguments.recordings}")
    if not 0.1 <= arguments.minutes < float("inf"):
        raise SystemExit(f"error: --minutes must be at least 0.1, got {arguments.minutes}")
    try:
        network, settings = open_network(arguments.model)
        for latency in arguments.latency:
            StreamingDiarizer(network, settings, latency)
        simulated = SimulatedRecordings(
            open_corpus(arguments.dataset, "validation"), seed=2, noises=load_noises(arguments.noise)
        )
    except (CorpusError, ModelError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    kinds = ("", ", relabelled")
    names = ["offline", *(f"live, {latency:g} s{kind}" for latency in arguments.latency for kind in kinds)]
    against_reference = {name: RecordingScores() for name in names}
    against_offline = {name: RecordingScores() for name in names}
    for number in tqdm(range(arguments.recordings), "recordings"):
        recording = simulated.make(number, 60 * arguments.minutes, SPEAKERS[number % len(SPEAKERS)])
        hypotheses = [diarize(network, [recording.waveform], settings)]
        for latency in arguments.latency:
            hypotheses += diarize_live(network, recording.waveform, settings, latency)
        reference = of_simulated(recording).turns
        found = [to_annotation(recording.name, segments) for segments in hypotheses]
        for name, annotation in zip(names, found):
            against_reference[name].add(reference, annotation)
            against_offline[name].add(found[0], annotation)
    rows = []
    for name in names:
        true, offline = (scores[name].result()["total"] for scores in (against_reference, against_offline))
        rates = (true["missed_speech"], true["false_alarm"], true["confusion"], offline["diarization_error_rate"])
        percent = (f"{100 * rate:.1f}" for rate in rates)
        rows.append(
            [name, beside_floor(true, "diarization_error_rate"), *percent, f"{true['speaker_count_error']:.1f}"]
        )
    print(table(["%", "DER (floor)", "missed", "false alarm", "confusion", "from offline", "speakers off by"], rows))


if __name__ == "__main__":
    main()

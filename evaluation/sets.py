"""Frozen sets of simulated windows and recordings: defined by a few numbers, so that anyone can score on exactly them.

A set is a JSON file in `evaluation/sets/`: what to make (seed, lengths, speakers, conditions) and, for each split it
was frozen on, digests of the corpus, of the background recordings and of the references that came out, and a
fingerprint of the sound. Another corpus, or code that would make other conversations or let them sound different, is
refused.

    python -m evaluation.sets evaluation/sets/*.json --dataset path/to/speech --noise path/to/noise

freezes sets anew: it writes the digests of their splits into the files.
"""

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from common.program import end_quietly
from evaluation.flags import of_sets

if __name__ == "__main__":
    end_quietly()
    of_sets(__doc__)  # --help and wrong usage, before imports that take seconds

import numpy as np

from data.acoustics import Augmentation, load_noises, noise_digest
from data.corpora import CorpusError, open_corpus
from data.simulated_recordings import Recording, SimulatedRecordings
from data.streaming import ConversationStream, StreamConfig
from evaluation.definitions import SetError, corpus_digest, read_definition
from evaluation.fingerprint import TOLERANCE_DB, WINDOWS_TOGETHER, difference_db, fingerprint, levels
from evaluation.sounds import SoundSet
from modeling.task_fast_diarization import Task


class FrozenSet:
    """The windows or recordings of one set, made from one split of a corpus.

    Args:
        file: the definition.
        dataset: any corpus that train.py accepts.
        split: of the corpus.
        noise: directory of background recordings, or `None`.
        check: refuse what differs from when the set was frozen.

    Raises:
        SetError: no such set, or it was frozen on another corpus or with other background recordings.
        CorpusError: the corpus cannot be opened.
    """

    def __init__(self, file: str | Path, dataset: str, split: str, noise: str | None = None, check: bool = True):
        self.name, self.split, self.noise = Path(file).stem, split, noise
        self.definition = read_definition(file)
        self.frozen = self.definition["digests"].get(split) if check else None
        if check and self.frozen is None:
            raise SetError(
                f"set {self.name!r} is not frozen on split {split!r}, only: {', '.join(self.definition['digests'])}; "
                "python -m evaluation.sets freezes it on others"
            )
        self.utterances = open_corpus(dataset, split)
        self.digests = {"corpus": corpus_digest(self.utterances), "noise": noise_digest(noise)}
        self.digests |= {"references": {}, "sound": {}}
        for what, remedy in (("corpus", "--dataset"), ("noise", "--noise")):
            if check and self.digests[what] != self.frozen[what]:
                raise SetError(
                    f"set {self.name!r}, {split}: {what} has the digest {str(self.digests[what])[:12]} and the set was "
                    f"frozen with {str(self.frozen[what])[:12]}; name the one it was frozen with by {remedy}"
                )

    @property
    def conditions(self) -> dict[str, dict]:
        """What windows there are, by name; empty for a set of recordings."""
        return self.definition.get("conditions", {})

    @property
    def groups(self) -> dict[str, list]:
        """What recordings there are, by name, lists of [speakers, seconds]; empty for a set of windows."""
        return self.definition.get("groups", {})

    @property
    def task(self) -> Task:
        """Of a set of windows."""
        return Task(self.definition["num_speakers"], window_seconds=self.definition["window_seconds"])

    def windows(self, condition: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of float32 (windows, samples) and their reference, bool (windows, frames, speakers).

        All conditions begin with the same conversations.

        Raises:
            SetError: before the last batch, if the references or the sound are not those the set was frozen with.
        """
        wanted = self.conditions[condition]
        names = ("seed", "window_seconds", "num_speakers", "windows_per_utterance")
        config = StreamConfig(
            **{name: self.definition[name] for name in names},
            augmentation=Augmentation(**wanted["augmentation"]),
            noise=self.noise,
            shares=None,
            speeds=(1.0,),
        )
        digest, heard, left = hashlib.sha256(), [], wanted["windows"]
        for batch in ConversationStream(self.utterances, config):
            waveforms, reference = batch["input_values"][:left], batch["labels"][:left] > 0.5
            digest.update(np.packbits(reference).tobytes())
            heard += map(levels, waveforms)
            left -= len(waveforms)
            if left == 0:
                self._check(condition, digest.hexdigest(), fingerprint(heard, WINDOWS_TOGETHER))
            yield waveforms, reference
            if left == 0:
                return

    def recordings(self, group: str) -> Iterator[Recording]:
        """The recordings of a group.

        Raises:
            SetError: before the last one, if the turns or the sound are not those the set was frozen with.
        """
        first = sum(len(self.groups[name]) for name in list(self.groups)[: list(self.groups).index(group)])
        digest, heard, count = hashlib.sha256(), [], len(self.groups[group])
        for number, (speakers, seconds) in enumerate(self.groups[group]):
            recording = self._simulated.make(first + number, seconds, speakers)
            digest.update(json.dumps(recording.turns).encode())
            heard.append(levels(recording.waveform))
            if number + 1 == count:
                self._check(group, digest.hexdigest(), fingerprint(heard, count))
            yield recording

    @cached_property
    def _simulated(self) -> SimulatedRecordings:
        return SimulatedRecordings(self.utterances, self.definition["seed"], load_noises(self.noise))

    def _check(self, part: str, digest: str, sound: list[str]) -> None:
        self.digests["references"][part], self.digests["sound"][part] = digest, sound
        if not self.frozen:
            return
        changed = None
        if self.frozen["references"].get(part) != digest:
            changed = "this version of the code makes other conversations than those frozen"
        elif part not in self.frozen.get("sound", {}):
            changed = "it was frozen without its sound"
        elif (difference := difference_db(self.frozen["sound"][part], sound)) > TOLERANCE_DB:
            changed = f"these conversations sound different from those frozen, by {difference:.1f} dB"
        if changed:
            raise SetError(
                f"set {self.name!r}, {self.split}, {part!r}: {changed}; score with the version that froze the set, or "
                "freeze it anew (python -m evaluation.sets)"
            )


def freeze(file: str | Path, dataset: str, split: str, noise: str | None) -> dict:
    """Make all of a set and return its digests: of corpus, background recordings and references, and its sound."""
    if "sounds" in read_definition(file):
        sounds = SoundSet(file, dataset, split, noise, check=False)
        sounds.make()
        return sounds.digests
    made = FrozenSet(file, dataset, split, noise, check=False)
    for condition in made.conditions:
        for _ in made.windows(condition):
            pass
    for group in made.groups:
        for _ in made.recordings(group):
            pass
    return made.digests


def main() -> None:
    arguments = of_sets(__doc__)
    try:
        for file in arguments.sets:
            digests = {split: freeze(file, arguments.dataset, split, arguments.noise) for split in arguments.splits}
            definition = read_definition(file) | {"digests": digests}
            Path(file).write_text(json.dumps(definition, indent=2) + "\n")
            print(f"{file}: frozen on {', '.join(digests)}")
    except (SetError, CorpusError, OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()

"""The files that hypotheses are written to."""

import io
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from common.output import OwnFiles, ignores_case
from data.names import recording_name
from diarization.formats import FORMATS, WITH_WORDS
from diarization.timeline import plot_timeline
from modeling.segments_fast_diarization import Segment
from modeling.words_fast_diarization import Word


class Outputs(OwnFiles):
    """
    Args:
        directory: where files are written; it is there already.
        formats: names of `FORMATS`.
        plot: whether to draw a picture of each recording.
        overwrite: whether to replace files that were not written here; never an input.
        inputs: paths by what they are, such as `{"reference": ["call.rttm"]}`.
    """

    def __init__(
        self,
        directory: Path,
        formats: Sequence[str],
        plot: bool = False,
        overwrite: bool = False,
        inputs: Mapping[str, Iterable[str | os.PathLike]] = {},
    ):
        super().__init__(directory, "diarize.py", inputs, overwrite)
        self.formats, self.plot = list(dict.fromkeys(formats)), plot

    def targets(self, name: str) -> list[Path]:
        """The files of one recording: one for each format, then the picture."""
        suffixes = [FORMATS[choice][0] for choice in self.formats] + ([".png"] if self.plot else [])
        return [self.directory / f"{name}{suffix}" for suffix in suffixes]

    def check(self, names: Iterable[str]) -> None:
        """
        Raises:
            ValueError: a file of a recording of these names would replace one that it must not, or its name is too
                long, or two formats or recordings would be one file.
        """
        alike, every = defaultdict(list), []
        self._check_formats()
        for name in names:
            alike[name.casefold()].append(name)
            every += self.targets(name)
        one_file = [sorted(names) for names in alike.values() if len(names) > 1]
        if one_file and ignores_case(self.directory):
            raise ValueError(
                f"{self.directory} does not tell {' and '.join(map(repr, one_file[0]))} apart; rename one, or diarize "
                "them in two runs with another --output"
            )
        self.check_files(every)

    def _check_formats(self) -> None:
        for suffix in {FORMATS[choice][0] for choice in self.formats}:
            same = [choice for choice in self.formats if FORMATS[choice][0] == suffix]
            if len(same) > 1:
                raise ValueError(f"--format: {' and '.join(same)} both write {suffix}; choose one")

    def write(
        self,
        name: str,
        segments: Sequence[Segment],
        reference: Sequence[Segment] = (),
        about: Mapping = {},
        words: Sequence[Word] | None = None,
    ) -> list[Path]:
        """Write the files of one recording, each whole or not at all.

        Args:
            reference: drawn in the picture below the segments.
            about: further facts for JSON.
            words: with speakers, for the formats `WITH_WORDS`.

        Raises:
            OSError: a file cannot be written.
            ValueError: one that it must not replace came since `check`.
        """
        self.check([name])
        targets = self.targets(name)
        for choice, target in zip(self.formats, targets):
            facts = {"about": about} if choice == "json" else {}
            facts |= {"words": words} if choice in WITH_WORDS else {}
            self.write_file(target, FORMATS[choice][1](recording_name(name), segments, **facts).encode())
        if self.plot:
            picture = io.BytesIO()
            plot_timeline(picture, name, segments, reference)
            self.write_file(targets[-1], picture.getvalue())
        return targets

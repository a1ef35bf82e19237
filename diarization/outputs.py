"""The files that hypotheses are written to, and what keeps them from replacing a file of the user's.

A file that is there already is replaced only if its content is what was once written in this directory, known by the
digests in `.written_by_diarize`: neither a file from elsewhere nor one that was corrected by hand since.
"""

import hashlib
import io
import os
import secrets
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from data.names import recording_name
from diarization.formats import FORMATS, WITH_WORDS
from diarization.timeline import plot_timeline
from modeling.segments_fast_diarization import Segment
from modeling.words_fast_diarization import Word

RECORD = ".written_by_diarize"
"""SHA-256 of every file written to a directory, one a line."""


class Outputs:
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
        self.directory, self.formats = directory, list(dict.fromkeys(formats))
        self.plot, self.overwrite = plot, overwrite
        self.written: set[str] = set()
        named = [(f"{kind} {path}", path) for kind, paths in inputs.items() for path in paths]
        self.inputs = {inode: name for name, path in named if (inode := _inode(path))}

    def targets(self, name: str) -> list[Path]:
        """The files of one recording: one for each format, then the picture."""
        suffixes = [FORMATS[choice][0] for choice in self.formats] + ([".png"] if self.plot else [])
        return [self.directory / f"{name}{suffix}" for suffix in suffixes]

    def check(self, names: Iterable[str]) -> None:
        """
        Raises:
            ValueError: a file of a recording of these names would replace one that it must not, or its name is too
                long, or two formats would be one file.
        """
        foreign = []
        for name in names:
            targets = self.targets(name)
            if len(set(targets)) < len(targets):
                raise ValueError(f"two formats would be the same file among {', '.join(map(str, targets))}; choose one")
            foreign += [target for target in targets if self._is_foreign(target)]
        if foreign:
            more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            raise ValueError(
                f"{foreign[0]}{more}: there already, and not as diarize.py wrote it; name another --output, or add "
                "--overwrite to replace it"
            )

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
            self._write(target, FORMATS[choice][1](recording_name(name), segments, **facts).encode())
        if self.plot:
            picture = io.BytesIO()
            plot_timeline(picture, name, segments, reference)
            self._write(targets[-1], picture.getvalue())
        return targets

    def _is_foreign(self, target: Path) -> bool:
        try:
            there = os.lstat(target)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise ValueError(f"{target}: {error.strerror}; rename the recording or name another --output") from error
        if name := self.inputs.get(_inode(target)):
            raise ValueError(f"a result would replace the {name}; name another --output")
        if stat.S_ISDIR(there.st_mode):
            raise ValueError(f"{target}: a directory; name another --output")
        return not self.overwrite and not (stat.S_ISREG(there.st_mode) and self._was_written(target))

    def _was_written(self, target: Path) -> bool:
        digest, record = _digest(target), self.directory / RECORD
        if digest not in self.written and record.is_file():
            self.written = set(record.read_text(errors="replace").split())
        return digest in self.written

    def _write(self, target: Path, content: bytes) -> None:
        self.written.add(digest := hashlib.sha256(content).hexdigest())
        with open(self.directory / RECORD, "a") as record:
            record.write(f"{digest}\n")
        part = self.directory / f".{secrets.token_hex(8)}.part"
        try:
            with open(part, "xb") as file:
                file.write(content)
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _inode(path: str | os.PathLike) -> tuple[int, int] | None:
    """Device and number of the file that a path leads to, through links; nothing where there is none."""
    try:
        there = os.stat(path)
    except OSError:
        return None
    return there.st_dev, there.st_ino


def _digest(file: Path) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()

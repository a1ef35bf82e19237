"""Output directories, checked before hours of work and not after, and what keeps files of the user's in them.

A file that is there already is replaced only if its content is what was once written in this directory, known by the
digests in `.written_by_diarize`: neither a file from elsewhere nor one that was corrected by hand since.
"""

import hashlib
import os
import secrets
import stat
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

RECORD = ".written_by_diarize"
"""SHA-256 of every file written to a directory, one a line."""


class OutputError(ValueError):
    """A directory that cannot be written; the message is one line with the remedy."""


def make_directory(directory: Path, flag: str) -> None:
    """Create a directory if it does not exist, and check that a file can be written to it.

    Args:
        flag: the flag that named it, for the message.

    Raises:
        OutputError: nothing can be written there.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise OutputError(f"{flag} {directory}: {error.strerror}; name a directory that can be written") from error


class OwnFiles:
    """
    Args:
        directory: where files are written, or below it; it is there already.
        program: that writes them, for messages.
        inputs: paths by what they are, such as `{"reference": ["call.rttm"]}`; none is ever replaced.
        overwrite: whether to replace other files that were not written here; `None` where there is no flag for it.
    """

    def __init__(
        self,
        directory: Path,
        program: str,
        inputs: Mapping[str, Iterable[str | os.PathLike]] = {},
        overwrite: bool | None = None,
    ):
        self.directory, self.program, self.overwrite = directory, program, overwrite
        self.written: set[str] = set()
        named = [(f"{kind} {path}", path) for kind, paths in inputs.items() for path in paths]
        self.inputs = {inode: name for name, path in named if (inode := _inode(path))}

    def check_files(self, targets: Iterable[Path]) -> None:
        """
        Raises:
            ValueError: one of these would replace a file that it must not, or its name is too long.
        """
        foreign = [target for target in targets if self._is_foreign(target)]
        if foreign:
            more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            there = "exists and was not" if len(foreign) == 1 else "exist and were not"
            remedy = "name another --output" + ("" if self.overwrite is None else ", or add --overwrite to replace it")
            raise ValueError(
                f"{foreign[0]}{more} already {there} written by {self.program}, or was edited since; {remedy}"
            )

    def write_file(self, target: Path, content: bytes) -> None:
        """Write a file whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        self.written.add(digest := hashlib.sha256(content).hexdigest())
        with open(self.directory / RECORD, "a") as record:
            record.write(f"{digest}\n")
        part = target.parent / f".{secrets.token_hex(8)}.part"
        try:
            with open(part, "xb") as file:
                file.write(content)
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

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


def ignores_case(directory: Path) -> bool:
    """Whether `A` and `a` are one file there."""
    with tempfile.NamedTemporaryFile(dir=directory, prefix="case", suffix="case") as file:
        return os.path.exists(Path(file.name).with_name(Path(file.name).name.upper()))

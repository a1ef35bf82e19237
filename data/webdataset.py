"""WebDataset tars, read here because `datasets` takes a damaged header for the end of the archive and says nothing."""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.hub_files import open_file

MOST_BYTES = 2**28
"""Of a member, which is read as a whole. Sparse ones are left out: a few bytes of them can stand for any number."""


@dataclass(frozen=True)
class Tar:
    url: str

    def __str__(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    def __repr__(self) -> str:
        return str(self) if "://" in self.url else f"{self}, {Path(self.url).stat().st_size} bytes"


class _StrictMember(tarfile.TarInfo):
    """A damaged header is an error wherever it lies; tarfile takes one that is not the first for the end."""

    @classmethod
    def fromtarfile(cls, archive):
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:
            raise tarfile.ReadError(f"damaged at byte {archive.offset}: {error}") from None


def samples(url: str) -> Iterator[dict[str, str | bytes]]:
    """The samples of a WebDataset tar: members that follow each other and share the name before the first dot."""
    sample: dict[str, str | bytes] = {}
    with (
        open_file(url, block_size=0) as file,
        tarfile.open(fileobj=file, mode="r|", bufsize=1 << 18, tarinfo=_StrictMember) as archive,
    ):
        for member in archive:
            named = re.fullmatch(r"((?:.*/)?[^./]+)\.([^/]*)", member.name)
            if not member.isfile() or member.issparse() or member.size > MOST_BYTES or not named:
                continue
            if sample and sample["__key__"] != named[1]:
                yield sample
                sample = {}
            sample["__key__"] = named[1]
            sample[named[2]] = archive.extractfile(member).read()
    if sample:
        yield sample


@dataclass
class TarReader:
    audio: str
    speaker: str

    def __call__(self, unit: Tar) -> Iterator[tuple[bytes | None, str, str]]:
        for sample in samples(unit.url):
            speaker = sample.get(self.speaker)
            name = speaker.decode() if isinstance(speaker, bytes) else speaker
            yield sample.get(self.audio) if name else None, name or "", f"{sample['__key__']}.{self.audio}"

"""Zip archives as torch.save writes them: entries stored as they are, mapped and not unpacked.

Nothing is ever decompressed, no name becomes a path, and no size is believed: an archive that is
packed, overlaps itself or reaches beyond its own end is refused.
"""

import mmap
import stat
from pathlib import Path
from typing import BinaryIO, Final, cast

from npbert.errors import CheckpointError, listed, shown

DIRECTORY_LIMIT: Final = 1 << 20  # bytes of an archive's directory; a DistilBERT's has 12,000


class Bounded(mmap.mmap):
    """A mapped file that is never read but in small pieces: zipfile reads a directory whole."""

    def read(self, n: int | None = None) -> bytes:
        rest = self.size() - self.tell()
        n = rest if n is None or n < 0 else min(n, rest)
        if n > DIRECTORY_LIMIT:
            raise ValueError(f"its directory has {n} bytes, expected at most {DIRECTORY_LIMIT}")
        return super().read(n)


def read_directory(file: Bounded, content: memoryview, path: Path) -> dict[str, memoryview]:
    """Return the bytes of all entries of a zip archive, none of which may be packed or overlap."""
    from zipfile import ZIP_STORED, BadZipFile, ZipFile  # slow to import; only a .bin needs it

    try:
        with ZipFile(cast("BinaryIO", file)) as archive:  # it can all that reading takes
            listing = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    except (BadZipFile, ValueError, NotImplementedError, OverflowError, EOFError) as error:
        raise CheckpointError(
            f"{path}: begins as a zip archive, but is none: {error}; it is cut short, or damaged"
        ) from None
    entries: dict[str, memoryview] = {}
    faults, end = [], 0
    for entry in listing:
        head = bytes(content[entry.header_offset :][:30])
        start = entry.header_offset + 30 + int.from_bytes(head[26:28], "little")
        start += int.from_bytes(head[28:30], "little")
        if entry.compress_type != ZIP_STORED or entry.compress_size != entry.file_size:
            fault = "is compressed, which torch.save never does, but TorchScript"
        elif entry.flag_bits & 1:
            fault = "is encrypted"
        elif stat.S_ISLNK(entry.external_attr >> 16):
            fault = "is a link"
        elif entry.filename in entries:
            fault = "is there twice"
        elif head[:4] != b"PK\x03\x04" or start + entry.file_size > len(content):
            fault = "lies outside of the file"
        elif entry.header_offset < end:
            fault = "overlaps the entry before it"
        else:
            end = start + entry.file_size
            entries[entry.filename] = content[start:end]
            continue
        faults.append(f"{shown(entry.filename)} {fault}")
    if faults:
        raise CheckpointError(f"{path}: {listed(faults, 4)}")
    return entries

"""The bytes of an image file, plain or gzip, read once and in order, hashed on the way.

Nothing is decoded that was not asked for: a small file that unpacks to gigabytes is refused, not unpacked.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from pathlib import Path
from types import TracebackType

from spanseg.findings import Findings

GZIP_MAGIC = b"\x1f\x8b"
LARGEST_GZIP_RATIO = 1032  # deflate cannot pack more bytes than this into one
SLACK_BYTES = 2**20  # what may follow the voxels: MGH keeps its tags there, some programs pad
_MOST_SMALL_MEMBERS, _SMALL_MEMBER_BYTES = 1000, 4096  # block gzip packs 65,280 bytes a member
_READ_BYTES = 2**18
_DECODE_BYTES = 2**22


class ByteStream:
    """Decoded bytes of one file, in order.

    Args:
        path: the file; whether it is gzip is told by its first bytes, not by its name.
        findings: takes notes, and words refusals.
    """

    too_long = (
        "the file goes on long after the voxels that its header declares; the header is damaged or this is not an "
        "image: export or copy it again."
    )

    def __init__(self, path: Path, findings: Findings) -> None:
        self._findings = findings
        self._hash = hashlib.sha256()
        self._file = path.open("rb")
        self.file_bytes: int = os.fstat(self._file.fileno()).st_size
        self._raw = b""
        self._fill()
        self.is_gzip: bool = self._raw.startswith(GZIP_MAGIC)
        self._decoder = zlib.decompressobj(wbits=31)
        self._ended = False
        self._members = self._decoded = 0
        self.position = 0

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, count: int) -> bytes:
        """Return the next ``count`` bytes, or what is left of the file if that is less."""
        buffer = bytearray(count)
        return bytes(buffer[: self.read_into(memoryview(buffer))])

    def skip_to(self, position: int) -> None:
        """Move on to a byte further down."""
        while self.position < position and self.read(min(_READ_BYTES, position - self.position)):
            pass

    def read_into(self, view: memoryview) -> int:
        """Fill a buffer and return how many bytes of it were filled; less than its length at the end of the file."""
        done = 0
        while done < len(view):
            count = self._decode_into(view[done:]) if self.is_gzip else self._copy_into(view[done:])
            if count == 0:
                break
            done += count
        self.position += done
        return done

    def finish(self) -> str:
        """Read what follows the voxels, so that a damaged end is noticed, and return the file's SHA-256 in hex.

        Raises:
            SpansegError: more follows than any image format puts there, or the gzip checksum is wrong.
        """
        if len(self.read(SLACK_BYTES + 1)) > SLACK_BYTES or self.file_bytes - self._file.tell() > SLACK_BYTES:
            raise self._findings.refusal(self.too_long)
        while self._fill():
            pass
        return self._hash.hexdigest()

    def _fill(self) -> bool:
        """Fetch and hash the next bytes of the file; False at its end."""
        self._raw = self._file.read(_READ_BYTES)
        self._hash.update(self._raw)
        return bool(self._raw)

    def _copy_into(self, view: memoryview) -> int:
        if self._raw:
            count = min(len(view), len(self._raw))
            view[:count], self._raw = self._raw[:count], self._raw[count:]
            return count
        count = self._file.readinto(view[:_DECODE_BYTES])
        self._hash.update(view[:count])
        return count

    def _decode_into(self, view: memoryview) -> int:
        """Decode at least one byte; 0 only at the end of the last gzip member."""
        while not self._ended:
            try:
                piece = self._decoder.decompress(self._raw, min(len(view), _DECODE_BYTES))
            except zlib.error as error:
                raise self._findings.refusal(
                    f"the gzip data are damaged ({str(error).rpartition(': ')[2]}); download or copy the file again."
                ) from error
            self._raw = self._decoder.unused_data if self._decoder.eof else self._decoder.unconsumed_tail
            if self._decoder.eof:
                self._next_member()
            if piece:
                view[: len(piece)] = piece
                self._decoded += len(piece)
                return len(piece)
            if not self._ended and not self._raw and not self._fill():
                raise self._findings.refusal(
                    "the gzip data end too early, so the file is truncated; download or copy it again."
                )
        return 0

    def _next_member(self) -> None:
        """Start on the next gzip member; zero bytes after the last one are padding."""
        self._members += 1
        if self._members > _MOST_SMALL_MEMBERS + self._decoded // _SMALL_MEMBER_BYTES:
            raise self._findings.refusal("the gzip data are damaged (thousands of tiny members); copy the file again.")
        self._raw = self._raw.lstrip(b"\0")
        while len(self._raw) < len(GZIP_MAGIC):
            kept = self._raw
            if not self._fill():
                self._raw = kept
                break
            self._raw = (kept + self._raw).lstrip(b"\0")
        if self._raw.startswith(GZIP_MAGIC):
            self._decoder = zlib.decompressobj(wbits=31)
            return
        self._ended = True
        if self._raw:
            self._findings.note("Bytes after the end of the gzip data were ignored.")

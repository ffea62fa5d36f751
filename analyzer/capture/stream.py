"""Bytes of one input: plain, gzip or zstandard, from a file or standard input, hashed as they pass."""

import contextlib
import hashlib
import io
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np

from analyzer.errors import InputError, Problem

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGICS = (b"\x28\xb5\x2f\xfd", *(bytes((0x50 + i, 0x2A, 0x4D, 0x18)) for i in range(16)))


class _Hashing(io.RawIOBase):
    """Passes the stored bytes on and keeps their SHA-256 and count."""

    def __init__(self, raw: IO[bytes], head: bytes, hashes: bool) -> None:
        self._raw, self._head = raw, head
        self._sha = hashlib.sha256() if hashes else None
        self.passed = 0

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        view = memoryview(target).cast("B")
        if self._head:
            count = min(len(view), len(self._head))
            view[:count] = self._head[:count]
            self._head = self._head[count:]
        else:
            count = self._raw.readinto(view) or 0  # type: ignore[attr-defined]
        if self._sha is not None and count:
            self._sha.update(view[:count])
        self.passed += count
        return count

    def digest(self) -> str:
        return self._sha.hexdigest() if self._sha is not None else ""

    def drain(self) -> None:
        """Read what the decompressor left, so that the hash covers the whole file."""
        scratch = bytearray(1 << 16)
        while self.readinto(scratch):
            pass


class _Gunzip:
    """Gzip members as a stream that gives every byte before damage, and only then raises."""

    STEP = 1 << 20

    def __init__(self, stored: _Hashing) -> None:
        from isal import isal_zlib

        self._zlib = isal_zlib
        self._stored = stored
        self._packed = bytearray(self.STEP)
        self._waiting = b""
        self._member = isal_zlib.decompressobj(wbits=31)
        self._begun = False

    def readinto(self, target: memoryview) -> int:
        """Fill *target* as far as one step goes; 0 at a proper end.

        Raises:
            EOFError: The data end inside a member.
        """
        while True:
            if self._member.eof:
                self._waiting = self._member.unused_data.lstrip(b"\0")
                self._member, self._begun = self._zlib.decompressobj(wbits=31), False
            if not self._waiting:
                count = self._stored.readinto(self._packed)
                self._waiting = bytes(self._packed[:count])
                if not count:
                    if self._begun:
                        raise EOFError("compressed data end too early")
                    return 0
            self._begun = True
            plain = self._member.decompress(self._waiting, min(len(target), self.STEP))
            self._waiting = self._member.unconsumed_tail
            if plain:
                target[: len(plain)] = plain
                return len(plain)


def _open(path: str) -> IO[bytes]:
    if path == "-":
        return io.FileIO(sys.stdin.fileno(), closefd=False)
    return Path(path).open("rb", buffering=0)


class ByteStream:
    """One input, opened and decompressed.

    Args:
        path: File name, or ``-`` for standard input.
        hashes: Whether to compute the SHA-256 of the stored bytes.

    Raises:
        InputError: The file cannot be opened.
    """

    def __init__(self, path: str, hashes: bool = True) -> None:
        self.path = path
        self.compression = ""
        self.damage: Problem | None = None
        try:
            self._raw = _open(path)
            head = self._head()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
        self._stored = _Hashing(self._raw, head, hashes)
        self._plain: Any = self._stored
        if head.startswith(GZIP_MAGIC):
            self.compression = "gzip"
            self._plain = _Gunzip(self._stored)
        elif head.startswith(ZSTD_MAGICS):
            import zstandard

            self.compression = "zstd"
            self._plain = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
                io.BufferedReader(self._stored, 1 << 20), read_size=1 << 20, read_across_frames=True
            )
        self.offset = 0

    def _head(self) -> bytes:
        head = b""
        while len(head) < 4:
            more = self._raw.read(4 - len(head))
            if not more:
                break
            head += more
        return head

    def fill(self, target: np.ndarray[Any, np.dtype[np.uint8]]) -> int:
        """Read into *target* until it is full or the input ends; returns the bytes read."""
        view = memoryview(target)  # type: ignore[arg-type]
        done = 0
        while done < len(view) and self.damage is None:
            try:
                count = self._plain.readinto(view[done:])
            except Exception as error:  # each decompressor has its own; whatever it is, the data end here
                self._note(error, self.offset + done)
                break
            if not count:
                break
            done += count
        self.offset += done
        return done

    def _note(self, error: Exception, after: int) -> None:
        what = f"{self.compression or 'read'} error after {after} bytes of data"
        detail = str(error).strip() or type(error).__name__
        self.damage = Problem(
            self.path, self._stored.passed, f"{what} ({detail}); what came before is analysed", "damaged"
        )

    @property
    def stored_bytes(self) -> int:
        """Bytes of the stored file passed so far."""
        return self._stored.passed

    def finish(self) -> str:
        """Read to the end, close, and return the SHA-256 of the stored bytes."""
        with contextlib.suppress(OSError):
            self._stored.drain()
        if self.path != "-":
            self._raw.close()
        return self._stored.digest()

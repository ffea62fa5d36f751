"""pcapng's sections and interfaces: the blocks that say how to read the packets.

Format: draft-ietf-opsawg-pcapng (section header 4.1, interface description 4.2, statistics 4.6).
"""

from typing import Any

import numpy as np

from analyzer.capture.inputs import InputFile, Interface
from analyzer.errors import Problem

SHB, IDB, ISB = 0x0A0D0D0A, 1, 5
MAX_INTERFACES = 4096
KNOWN_BLOCKS = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x0A0D0D0A, 0x0BAD, 0x40000BAD))

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Sections:
    """Byte order and interfaces of the current section.

    Attributes:
        swap: Whether the section is big-endian.
        table: int64 (interfaces, 6): link type, base of the resolution (10 or 2), negative exponent,
            offset in s, snap length, index in the file's list of interfaces.
    """

    def __init__(self, info: InputFile, problems: list[Problem], file: int) -> None:
        self.info, self._problems, self._file = info, problems, file
        self.swap = False
        self.table = np.zeros((0, 6), np.int64)

    def _number(self, data: bytes) -> int:
        return int.from_bytes(data, "big" if self.swap else "little")

    def block_length(self, head: Bytes) -> int | None:
        """Length of the block that begins with *head* (12 bytes); None if it cannot be one."""
        data = head.tobytes()
        if len(data) < 12:
            return 12
        if data[:4] == b"\x0a\x0d\x0d\x0a":
            if data[8:12] not in (b"\x4d\x3c\x2b\x1a", b"\x1a\x2b\x3c\x4d"):
                return None
            self.swap = data[8:12] == b"\x1a\x2b\x3c\x4d"
        length = self._number(data[4:8])
        return length if length >= 12 and length % 4 == 0 else None

    def take(self, block: bytes, offset: int) -> bool:
        """Read one whole block that holds no packet; False if its two lengths disagree."""
        if self._number(block[-4:]) != len(block):
            return False
        kind = self._number(block[:4])
        if block[:4] == b"\x0a\x0d\x0d\x0a":
            self.table = np.zeros((0, 6), np.int64)
        elif kind == IDB:
            return self._interface(block, offset)
        elif kind == ISB:
            self._statistics(block)
        return True

    def _options(self, block: bytes, at: int) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        end = len(block) - 4
        while at + 4 <= end:
            code, size = self._number(block[at : at + 2]), self._number(block[at + 2 : at + 4])
            if code == 0 or at + 4 + size > end:
                break
            found.setdefault(code, block[at + 4 : at + 4 + size])
            at += 4 + ((size + 3) & ~3)
        return found

    def _interface(self, block: bytes, offset: int) -> bool:
        if len(block) < 20:
            return False
        if len(self.info.interfaces) >= MAX_INTERFACES:
            return False
        options = self._options(block, 16)
        link, snaplen = self._number(block[8:10]), self._number(block[12:16])
        resolution = options[9][0] if options.get(9) else 6
        base, exponent = (2, resolution & 0x7F) if resolution & 0x80 else (10, resolution)
        if (base == 10 and exponent > 19) or exponent > 63:
            self._problems.append(
                Problem(
                    self.info.path,
                    offset,
                    f"interface with a time resolution of {base}^-{exponent} s; taken as microseconds",
                    "damaged",
                )
            )
            base, exponent = 10, 6
        shift = (
            int.from_bytes(options[14][:8], "big" if self.swap else "little", signed=True)
            if len(options.get(14, b"")) >= 8
            else 0
        )
        if abs(shift) > 1 << 33:
            shift = 0
        row = np.array([[link, base, exponent, shift, snaplen, len(self.info.interfaces)]], np.int64)
        self.table = np.concatenate((self.table, row))
        text = {code: options.get(code, b"").decode("utf-8", "replace").rstrip("\0") for code in (2, 3)}
        rule = options.get(11, b"")[1:].decode("utf-8", "replace") if options.get(11, b"")[:1] == b"\0" else ""
        self.info.interfaces.append(Interface(link, text[2], text[3], rule, snaplen, None, self._file))
        return True

    def _statistics(self, block: bytes) -> None:
        index = self._number(block[8:12])
        dropped = self._options(block, 20).get(5)
        if dropped is not None and index < len(self.table):
            interface = self.info.interfaces[int(self.table[index, 5])]
            interface.dropped = self._number(dropped)

    def resync(self, buffer: Bytes, start: int, end: int) -> int | None:
        """Next position at which two plausible blocks follow each other, or None."""
        for at in range((start + 3) & ~3 if start % 4 else start, end - 12, 4):
            following = self._plausible(buffer, at, end)
            if following is not None and (following >= end or self._plausible(buffer, following, end) is not None):
                return at
        return None

    def _plausible(self, buffer: Bytes, at: int, end: int) -> int | None:
        head = buffer[at : at + 8].tobytes()
        if len(head) < 8 or self._number(head[:4]) not in KNOWN_BLOCKS:
            return None
        length = self._number(head[4:8])
        if length < 12 or length % 4 or at + length > end:
            return None
        tail = self._number(buffer[at + length - 4 : at + length].tobytes())
        return at + length if tail == length else None

"""A writer of pcapng: sections, interfaces and packets with comments.

Format: draft-ietf-opsawg-pcapng, blocks 4.1 (section), 4.2 (interface), 4.3 (enhanced packet).
Little-endian, times in nanoseconds.
"""

import struct
from typing import BinaryIO

from analyzer.units import NO_TIME

SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6
COMMENT, USER_APPLICATION = 1, 4
IF_NAME, IF_DESCRIPTION, IF_RESOLUTION = 2, 3, 9
EPB_FLAGS, EPB_PACKETID = 2, 5
LONGEST_TEXT = 4000


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def _text(code: int, text: str) -> bytes:
    """A text option, empty for an empty text; NULs would end it early and are taken out."""
    raw = text.replace("\0", "").encode("utf-8", "replace")[:LONGEST_TEXT]
    return _option(code, raw.decode("utf-8", "ignore").encode()) if raw else b""


def _block(kind: int, body: bytes, options: bytes) -> bytes:
    body += b"\0" * (-len(body) % 4)
    if options:
        body += options + struct.pack("<HH", 0, 0)
    size = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + size + body + size


class PcapngWriter:
    """Writes one section to *out*; declare every interface before its first packet.

    Args:
        out: A binary file, open for writing.
        application: Who writes it.
        comment: Said of the whole section.
    """

    def __init__(self, out: BinaryIO, application: str, comment: str = "") -> None:
        self._out = out
        self._interfaces = 0
        head = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
        out.write(_block(SECTION, head, _text(COMMENT, comment) + _text(USER_APPLICATION, application)))

    def interface(self, link: int, name: str, description: str = "") -> int:
        """Declare a capturing interface of link type *link*; returns its number."""
        options = _text(IF_NAME, name) + _text(IF_DESCRIPTION, description) + _option(IF_RESOLUTION, b"\x09")
        self._out.write(_block(INTERFACE, struct.pack("<HHI", link, 0, 0), options))
        self._interfaces += 1
        return self._interfaces - 1

    def packet(
        self,
        interface: int,
        time: int,
        data: bytes,
        length: int,
        *,
        comment: str = "",
        packet_id: int | None = None,
        direction: int = 0,
    ) -> None:
        """Write one packet.

        Args:
            interface: Number that :meth:`interface` gave.
            time: ns since 1970 UTC; written as 0 where it is unknown or before 1970.
            data: Captured bytes.
            length: Bytes on the wire, at least ``len(data)``.
            comment: Packet comment.
            packet_id: ``epb_packetid``: the same for one packet seen at several interfaces.
            direction: 1 received, 2 sent, 0 unknown.
        """
        time = 0 if time == NO_TIME else max(time, 0)
        head = struct.pack("<IIIII", interface, time >> 32, time & 0xFFFFFFFF, len(data), max(length, len(data)))
        options = _text(COMMENT, comment)
        if direction:
            options += _option(EPB_FLAGS, struct.pack("<I", direction))
        if packet_id is not None:
            options += _option(EPB_PACKETID, struct.pack("<Q", packet_id))
        self._out.write(_block(PACKET, head + data, options))

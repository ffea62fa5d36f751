"""One capture file as blocks of packets: format, order and damage."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.capture import walk
from analyzer.capture.decode import CODES, RARE, SHORT, TAKEN
from analyzer.capture.identity import Collector
from analyzer.capture.inputs import InputFile, Interface
from analyzer.capture.rare import decode_rare
from analyzer.capture.sections import Sections
from analyzer.capture.stream import ByteStream
from analyzer.errors import InputError, Problem
from analyzer.schema import META_TRAILER, OPT_PROXY, OPT_TOA, PACKET
from analyzer.spool import pick
from analyzer.units import NO_TIME

if TYPE_CHECKING:
    from analyzer.capture.nstrace import NstraceStream

Records = np.ndarray[Any, np.dtype[np.void]]

BLOCK_ROWS = 8192
BUFFER_BYTES = 1 << 22
PCAP_MAGICS = {
    b"\xd4\xc3\xb2\xa1": (False, False),
    b"\xa1\xb2\xc3\xd4": (True, False),
    b"\x4d\x3c\xb2\xa1": (False, True),
    b"\xa1\xb2\x3c\x4d": (True, True),
}
PCAPNG_MAGIC = b"\x0a\x0d\x0d\x0a"


class FileReader:
    """Reads one file; :meth:`blocks` yields filled PACKET rows of a buffer that is reused.

    Args:
        path: File name or ``-``.
        index: The file's index in its capture.
        digests: Whether to compute ``PACKET.digest``.
        hashes: Whether to compute the file's SHA-256.
        buffer_bytes: Size of the read buffer.

    Raises:
        InputError: The file cannot be opened or is of no known format.
    """

    def __init__(
        self, path: str, index: int = 0, digests: bool = False, hashes: bool = True, buffer_bytes: int = BUFFER_BYTES
    ) -> None:
        self.info = InputFile(path)
        self.problems: list[Problem] = []
        self.counts = np.zeros(CODES, np.int64)
        self._digests, self._index = digests, index
        self._stream: ByteStream | NstraceStream = ByteStream(path, hashes)
        self.info.compression = self._stream.compression
        self._buffer = np.empty(buffer_bytes, np.uint8)
        self._state = np.zeros(walk.STATE_SIZE, np.int64)
        self._state[walk.FIRST] = self._state[walk.LAST] = NO_TIME
        self._rows = np.zeros(BLOCK_ROWS, PACKET.dtype).view(np.recarray)
        self._rare = np.zeros((BLOCK_ROWS, walk.PLACE_COLUMNS), np.int64)
        self._base = 0  # offset in the file of the buffer's first byte
        self._ended = False
        self.identities: Collector | None = None
        self.sections = Sections(self.info, self.problems, index)
        self._more()
        self._sniff()

    @property
    def stored_bytes(self) -> int:
        """Bytes of the stored file read so far."""
        return self._stream.stored_bytes

    def _sniff(self) -> None:
        head = self._buffer[: min(24, self._left())].tobytes()
        if head[:4] in PCAP_MAGICS and len(head) == 24:
            self._swap, self._nanos = PCAP_MAGICS[head[:4]]
            order = "big" if self._swap else "little"
            link = int.from_bytes(head[20:24], order) & 0xFFFF  # type: ignore[arg-type]
            snaplen = int.from_bytes(head[16:20], order)  # type: ignore[arg-type]
            self.info.format = "pcap"
            self.info.interfaces.append(Interface(link, snaplen=snaplen, file=self._index))
            self._state[walk.POS] = 24
        elif head[:4] == PCAPNG_MAGIC:
            self.info.format = "pcapng"
        elif not self._sniff_nstrace():
            self._stream.finish()
            if self._stream.damage is not None:
                raise InputError(str(self._stream.damage))
            what = "not a pcap or pcapng capture"
            if not head:
                packed = self.info.compression
                what = f"its {packed} data end before the first byte, the file is cut" if packed else "empty"
            raise InputError(
                f"{self.info.path}: offset 0: {what}; give a file written by tcpdump, dumpcap or Wireshark"
            )

    def _sniff_nstrace(self) -> bool:
        """Whether it is a NetScaler trace; it then goes on as the pcapng that it is translated to."""
        from analyzer.capture import nstrace

        first = self._buffer[: min(nstrace.PAGE_V3, self._left())]
        page = nstrace.page_size(first.tobytes())
        if not page:
            if nstrace.is_first_generation(first.tobytes()):
                raise InputError(
                    f"{self.info.path}: offset 0: a NetScaler trace of version 1.0, which is not read; "
                    "convert it with editcap, or take the trace as pcap"
                )
            return False
        self.info.format = "nstrace"
        assert isinstance(self._stream, ByteStream)
        self._stream = nstrace.NstraceStream(self._stream, self._buffer[: self._left()], page)
        self._state[walk.END] = 0
        self._more()
        return True

    def _left(self) -> int:
        return int(self._state[walk.END] - self._state[walk.POS])

    def _more(self) -> bool:
        """Move the unread bytes to the front and read on; False at the end of the input."""
        at, end = int(self._state[walk.POS]), int(self._state[walk.END])
        left = end - at
        if at:
            self._buffer[:left] = self._buffer[at:end].copy()
        self._base += at
        count = self._stream.fill(self._buffer[left:])
        self._state[walk.POS], self._state[walk.END] = 0, left + count
        return count > 0

    def blocks(self) -> Iterator[Records]:
        """Yield PACKET rows in order of arrival; the array is reused by the next block."""
        while not self._ended:
            stop = self._walk()
            if self._state[walk.ROWS]:
                yield self._take()
            self._state[walk.FRAME0] += self._state[walk.FRAMES]
            self._state[walk.FRAMES] = 0
            if stop == walk.MORE:
                if not self._more():
                    self._end()
            elif stop == walk.ASK:
                self._ask()
            elif stop == walk.BAD:
                self._bad()

    def _walk(self) -> int:
        buffer, digests, rare, state = self._buffer, self._digests, self._rare, self._state
        rows = np.asarray(self._rows)  # of other classes numba finds out the type anew at every call
        if self.info.format == "pcap":
            link = self.info.interfaces[0].link_type
            return int(walk.walk_pcap(buffer, self._swap, self._nanos, link, digests, rows, rare, state))
        sections = self.sections
        return int(walk.walk_pcapng(buffer, sections.swap, sections.table, digests, rows, rare, state))

    def _take(self) -> Records:
        """The filled rows, with the rare frames decoded and those that hold no TCP taken out."""
        count, rares = int(self._state[walk.ROWS]), int(self._state[walk.RARES])
        self._state[walk.ROWS] = self._state[walk.RARES] = 0
        rows = np.asarray(self._rows)[:count]
        rows["file"] = self._index
        if not rares:
            return self._identified(rows, rows)
        keep = np.ones(count, np.bool_)
        undecoded = self._rare[:rares][self._rare[:rares, 5] == walk.UNDECODED]
        for row, at, size, wire, link, _ in undecoded.tolist():
            code = decode_rare(self._buffer[at : at + size], wire, link, self._digests, self._rows, row)
            self._state[walk.COUNTS + RARE] -= 1
            self._state[walk.COUNTS + code] += 1
            keep[row] = code == TAKEN
        return self._identified(rows, pick(rows, keep), self._rare[:rares])

    def _identified(self, rows: Records, kept: Records, places: Any = None) -> Records:
        """*kept*, after what these packets say of the other side was noted."""
        links: list[Any] = getattr(self._stream, "links", [])
        if self.identities is None:
            links.clear()
            return kept
        if places is not None:
            row = places[:, 0]
            telling = (rows["meta"][row] & META_TRAILER) | (rows["opts"][row] & (OPT_TOA | OPT_PROXY))
            mine = places[(telling > 0) & np.isin(rows["frame"][row], kept["frame"])]
            if len(mine):
                self.identities.note(self._buffer, mine, rows)
        if links:
            known = np.concatenate(links)
            self.identities.note_links(known, kept)
            later = known[known["frame"] > rows["frame"][-1]]
            links[:] = [later] if len(later) else []
        return kept

    # ---- what the compiled walk asks for -----------------------------------------------------

    def _ask(self) -> None:
        """A pcapng block that holds no packet, at the front of what is left."""
        at = int(self._state[walk.POS])
        left = self._left()
        length = self.sections.block_length(self._buffer[at : at + min(left, 12)])
        if length is None:
            self._bad()
            return
        if length > len(self._buffer) - at and length <= len(self._buffer):
            self._more()
            at, left = 0, self._left()
        if length <= left:
            if self.sections.take(self._buffer[at : at + length].tobytes(), self._base + at):
                self._state[walk.POS] = at + length
            else:
                self._bad()
            return
        if length <= len(self._buffer):
            if not self._more():
                self._end()
            return
        self._skip(length)

    def _skip(self, length: int) -> None:
        """Pass over a block larger than the buffer."""
        at = int(self._state[walk.POS])
        while length > self._left():
            length -= self._left()
            self._state[walk.POS] = self._state[walk.END]
            if not self._more():
                self._end()
                return
        at = int(self._state[walk.POS])
        self._state[walk.POS] = at + length

    def _bad(self) -> None:
        """Damage: a pcap ends here; a pcapng goes on at the next block that can be one."""
        at = int(self._state[walk.POS])
        offset = self._base + at
        where = self.sections.resync(self._buffer, at + 4, int(self._state[walk.END])) if self._is_pcapng else None
        if where is None:
            self._problem("damaged", offset, "impossible record; what came before is analysed")
            self._ended = True
            self._finish()
            return
        self._problem("damaged", offset, f"damaged block; reading goes on at offset {self._base + where}")
        self._state[walk.POS] = where

    @property
    def _is_pcapng(self) -> bool:
        return self.info.format != "pcap"

    def _end(self) -> None:
        if self._stream.damage is not None:
            self.problems.append(self._stream.damage)
        elif self._left():
            left = self._left()
            text = f"the file ends inside a record ({left} bytes of it are left); intact packets before it are analysed"
            self._problem("cut", self._base + int(self._state[walk.POS]), text)
        self._ended = True
        self._finish()

    def _problem(self, kind: str, offset: int, text: str) -> None:
        if len(self.problems) < 100:
            self.problems.append(Problem(self.info.path, offset, text, kind))

    def _finish(self) -> None:
        state, info = self._state, self.info
        info.sha256 = self._stream.finish()
        info.size = self._stream.stored_bytes
        info.packets = int(state[walk.FRAME0] + state[walk.FRAMES])
        self.counts[:] = state[walk.COUNTS : walk.COUNTS + CODES]
        info.tcp_packets = int(self.counts[TAKEN] + self.counts[SHORT])
        info.first_time, info.last_time = int(state[walk.FIRST]), int(state[walk.LAST])

"""What packets themselves say of the other side of a load balancer.

Four sources: F5 trailers and NetScaler's connection ids, which the load balancer's own capture carries,
and PROXY protocol headers and client address options (TOA), which travel to the server.  The first two
name both legs; the others name the client on the server's side.
"""

import socket
import struct
from typing import Any

import numpy as np

from analyzer.capture import f5
from analyzer.capture.rare import innermost, skip_extensions
from analyzer.schema import IDENTITY, IDENTITY_SOURCES, META_TRAILER, OPT_PROXY, OPT_TOA
from analyzer.spool import Spool

Records = np.ndarray[Any, np.dtype[np.void]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Places = np.ndarray[Any, np.dtype[np.int64]]
Ends = tuple[bytes, int, bytes, int]
"""Address (16 bytes, IPv4 mapped) and port of the far end, address and port of the own end."""

F5, NSTRACE, PROXY, TOA = range(len(IDENTITY_SOURCES))
PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n"
MOST_REMEMBERED = 1 << 19
"""Identities remembered so that each is kept once; forgotten all together beyond that."""
_MAPPED = b"\0" * 10 + b"\xff\xff"
_SAID = [column.name for column in IDENTITY.columns if column.name not in ("time", "frame", "file", "ingress")]


class Collector:
    """Gathers IDENTITY rows of one capture, each said thing once; :attr:`rows` holds them."""

    def __init__(self) -> None:
        self.rows = Spool(IDENTITY)
        self._known: set[bytes] = set()

    def note(self, buffer: Bytes, places: Places, packets: Records) -> None:
        """Read what the frames at *places* (as the walk keeps them) carry beside their packet rows."""
        mine = packets[places[:, 0]]
        trailers = (mine["meta"] & META_TRAILER) > 0
        if trailers.any():
            self._f5(buffer, places[trailers], mine[trailers])
        inline = np.flatnonzero(mine["opts"] & (OPT_TOA | OPT_PROXY))
        if len(inline):
            self._inline(buffer, places[inline], mine[inline])

    def _f5(self, buffer: Bytes, places: Places, packets: Records) -> None:
        values = np.zeros((len(places), f5.VALUES), np.uint64)
        names = np.zeros((len(places), f5.NAME_BYTES), np.uint8)
        f5.parse_all(buffer, places, values, names)
        told = (values[:, f5.FOUND] == 1) & ((values[:, f5.FLOW] > 0) | (values[:, f5.PEER] > 0))
        rows = _rows(packets[told], F5)
        said = values[told]
        for name, column in (
            ("flow", f5.FLOW), ("peer_flow", f5.PEER), ("remote_hi", f5.REMOTE_HI), ("remote_lo", f5.REMOTE_LO),
            ("local_hi", f5.LOCAL_HI), ("local_lo", f5.LOCAL_LO), ("remote_p", f5.REMOTE_P),
            ("local_p", f5.LOCAL_P), ("ingress", f5.INGRESS),
        ):  # fmt: skip
            rows[name] = said[:, column]
        rows["vip"] = names[told].view(f"S{f5.NAME_BYTES}")[:, 0]
        self._keep(rows)

    def _inline(self, buffer: Bytes, places: Places, packets: Records) -> None:
        """PROXY headers and TOA options: once per connection and block."""
        ends = packets[["src_hi", "src_lo", "dst_hi", "dst_lo", "sport", "dport"]]
        _, first = np.unique(ends, return_index=True)
        for at in np.sort(first).tolist():
            _, start, size, _, link, _ = places[at].tolist()
            data = buffer[start : start + size]
            found = in_segment(data, link)
            if found is None:
                continue
            source, (remote, remote_p, local, local_p) = found
            row = _rows(packets[at : at + 1], source)
            row["remote_hi"], row["remote_lo"] = _halves(remote)
            row["local_hi"], row["local_lo"] = _halves(local)
            row["remote_p"], row["local_p"] = remote_p, local_p
            self._keep(row)

    def note_links(self, links: Records, packets: Records) -> None:
        """NetScaler's ids: *links* (``nstrace.LINK``) by frame number, beside the packets of these frames."""
        at = np.searchsorted(links["frame"], packets["frame"])
        at[at == len(links)] = 0
        hit = links["frame"][at] == packets["frame"]
        rows = _rows(packets[hit], NSTRACE)
        said = links[at[hit]]
        rows["flow"], rows["peer_flow"] = said["pcb"], said["linked"]
        rows["ingress"] = said["direction"] == 1
        self._keep(rows)

    def _keep(self, rows: Records) -> None:
        if not len(rows):
            return
        if len(self._known) > MOST_REMEMBERED:
            self._known.clear()
        keys = np.ascontiguousarray(rows[_SAID]).astype([(n, IDENTITY.dtype[n]) for n in _SAID])  # packed
        _, first = np.unique(keys, return_index=True)
        fresh = []
        for at in np.sort(first).tolist():
            key = keys[at].tobytes()
            if key not in self._known:
                self._known.add(key)
                fresh.append(at)
        self.rows.append(rows[fresh])


def _rows(packets: Records, source: int) -> Records:
    """IDENTITY rows with the packets' own numbers."""
    rows = np.zeros(len(packets), IDENTITY.dtype)
    for name in ("time", "src_hi", "src_lo", "dst_hi", "dst_lo", "frame", "sport", "dport", "file"):
        rows[name] = packets[name]
    rows["source"], rows["ingress"] = source, 255
    return rows


def _halves(address: bytes) -> tuple[int, int]:
    return int.from_bytes(address[:8], "big"), int.from_bytes(address[8:], "big")


# ---- what travels in the segment ------------------------------------------------------------------


def in_segment(data: Bytes, link: int) -> tuple[int, Ends] | None:
    """(PROXY or TOA, ends) told by the TCP segment in a frame; None if it tells nothing readable."""
    at = innermost(data, link)
    segment = None if at is None else _segment(data[at:])
    if segment is None:
        return None
    header = (segment[12] >> 4) * 4
    proxy = proxy_header(segment[header:])
    if proxy is not None:
        return PROXY, proxy
    option = client_option(segment[20:header])
    return None if option is None else (TOA, option)


def _segment(ip: Bytes) -> bytes | None:
    """The TCP segment of an IP packet, as far as it was captured."""
    if len(ip) < 20:
        return None
    if ip[0] >> 4 == 4:
        size, total = (int(ip[0]) & 15) * 4, int(ip[2]) << 8 | int(ip[3])
        protocol = int(ip[9])
    elif len(ip) >= 40:
        protocol, size = skip_extensions(ip, 0)
        total = 40 + (int(ip[4]) << 8 | int(ip[5]))
    else:
        return None
    segment = ip[size : total if total > size else None].tobytes()
    return segment if protocol == 6 and len(segment) >= 20 else None


def proxy_header(payload: bytes) -> Ends | None:
    """Client and virtual address of a PROXY protocol header (haproxy's proxy-protocol.txt, 2.1 and 2.2)."""
    if payload.startswith(b"PROXY TCP"):
        return _proxy_text(payload)
    if payload.startswith(PROXY_V2) and len(payload) >= 16 and payload[12] == 0x21:
        family, size = payload[13], int.from_bytes(payload[14:16], "big")
        body = payload[16 : 16 + size]
        if family == 0x11 and len(body) >= 12:
            source, target, ports = _MAPPED + body[:4], _MAPPED + body[4:8], body[8:12]
        elif family == 0x21 and len(body) >= 36:
            source, target, ports = body[:16], body[16:32], body[32:36]
        else:
            return None
        return source, int.from_bytes(ports[:2], "big"), target, int.from_bytes(ports[2:], "big")
    return None


def _proxy_text(payload: bytes) -> Ends | None:
    line, ended, _ = payload[:107].partition(b"\r\n")
    words = line.split(b" ")
    if not ended or len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        return None
    try:
        family = socket.AF_INET if words[1] == b"TCP4" else socket.AF_INET6
        source, target = (socket.inet_pton(family, word.decode("ascii")) for word in words[2:4])
        ports = [int(word) for word in words[4:6] if word.isdigit()]
    except (OSError, UnicodeDecodeError, ValueError):
        return None
    if len(ports) != 2 or not all(0 <= port <= 0xFFFF for port in ports):
        return None
    mapped = _MAPPED if family == socket.AF_INET else b""
    return mapped + source, ports[0], mapped + target, ports[1]


def client_option(options: bytes) -> Ends | None:
    """Client's address and port of a TOA option (kinds 252-254: port, then IPv4 or IPv6 address)."""
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if size < 2 or at + size > len(options):
            return None
        if 252 <= options[at] <= 254 and size in (8, 20):
            (port,) = struct.unpack_from(">H", options, at + 2)
            address = options[at + 4 : at + size]
            return (_MAPPED if size == 8 else b"") + address, port, bytes(16), 0
        at += size
    return None

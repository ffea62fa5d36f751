"""The slower path for frames that the compiled pass leaves over: tunnels and odd encapsulations.

Each step peels one header and says where the next begins; the innermost IP packet goes back to the
compiled decoder.  Formats: RFC 2784/2890 (GRE), RFC 7348 (VXLAN), RFC 8926 (Geneve), RFC 3032 (MPLS),
RFC 2516 (PPPoE), RFC 1661 (PPP), RFC 2003/4213 (IP in IP), RFC 3378 (EtherIP), 3GPP TS 29.281 (GTP-U).
"""

from typing import Any

import numpy as np

from analyzer.capture.decode import (
    LINK_ETHERNET,
    LINK_IPV4,
    LINK_IPV6,
    LINK_LOOP,
    LINK_NULL,
    LINK_RAW,
    OTHER,
    RARE,
    decode_ip_into,
)
from analyzer.schema import META_CLIPPED, META_RARE, META_TUNNELLED

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
MAX_DEPTH = 8

IP, ETHERNET, NOTHING = "ip", "ethernet", "nothing"
Step = tuple[str, int]
_NONE: Step = (NOTHING, 0)


def _u16(data: Bytes, at: int) -> int:
    return int(data[at]) << 8 | int(data[at + 1])


def by_ethertype(data: Bytes, at: int, ethertype: int) -> Step:
    """What follows an Ethernet type (or length) field whose payload begins at *at*."""
    if ethertype in (0x8100, 0x88A8, 0x9100, 0x9200) and len(data) >= at + 4:
        return by_ethertype(data, at + 4, _u16(data, at + 2))
    if ethertype in (0x0800, 0x86DD):
        return IP, at
    if ethertype in (0x8847, 0x8848):
        return _mpls(data, at)
    if ethertype == 0x8864 and len(data) >= at + 8:
        return _ppp(data, at + 6)
    if ethertype == 0x6558:
        return ETHERNET, at
    if ethertype == 0x88BE:
        return ETHERNET, at + 8
    if ethertype == 0x22EB and len(data) > at + 12:
        return ETHERNET, at + (20 if data[at + 11] & 1 else 12)
    if ethertype <= 1500:
        return _llc(data, at)
    return _NONE


def _llc(data: Bytes, at: int) -> Step:
    if len(data) < at + 8:
        return _NONE
    if data[at] == 0xAA and data[at + 1] == 0xAA:
        return by_ethertype(data, at + 8, _u16(data, at + 6))
    return (IP, at + 3) if data[at] == 0x06 and data[at + 1] == 0x06 else _NONE


def _mpls(data: Bytes, at: int) -> Step:
    while len(data) >= at + 5:
        bottom = data[at + 2] & 1
        at += 4
        if bottom:
            nibble = data[at] >> 4
            if nibble in (4, 6):
                return IP, at
            return (ETHERNET, at + 4) if nibble == 0 else (ETHERNET, at)
    return _NONE


def _ppp(data: Bytes, at: int) -> Step:
    if len(data) < at + 4:
        return _NONE
    if data[at] == 0xFF and data[at + 1] == 0x03:
        at += 2
    if data[at] & 1:
        protocol, at = int(data[at]), at + 1
    else:
        protocol, at = _u16(data, at), at + 2
    if protocol in (0x21, 0x57):
        return IP, at
    return _mpls(data, at) if protocol == 0x281 else _NONE


def by_link(data: Bytes, link: int) -> Step:
    """First step for a link type that the compiled decoder does not know."""
    if link == LINK_ETHERNET:
        return by_ethertype(data, 14, _u16(data, 12)) if len(data) >= 14 else _NONE
    if link in (9, 50):
        return _ppp(data, 0)
    if link == 104 and len(data) >= 4:
        return by_ethertype(data, 4, _u16(data, 2))
    if link == 113 and len(data) >= 16:
        return by_ethertype(data, 16, _u16(data, 14))
    if link == 276 and len(data) >= 20:
        return by_ethertype(data, 20, _u16(data, 0))
    if link == 127 and len(data) >= 4:
        return _wireless(data, int(data[2]) | int(data[3]) << 8)
    if link == 105:
        return _wireless(data, 0)
    return _NONE


def _wireless(data: Bytes, at: int) -> Step:
    """An unencrypted 802.11 data frame; header lengths by IEEE 802.11 section 9.2.3."""
    if len(data) < at + 24 or (data[at] & 0x0C) != 0x08 or data[at] & 0x40 or data[at + 1] & 0x40:
        return _NONE
    size = 24 + (6 if data[at + 1] & 3 == 3 else 0) + (2 if data[at] & 0x80 else 0)
    return _llc(data, at + size)


def inside_ip(data: Bytes, at: int) -> Step:
    """What a tunnelling IP packet at *at* carries."""
    if len(data) < at + 20:
        return _NONE
    if data[at] >> 4 == 4:
        protocol, body = int(data[at + 9]), at + (int(data[at]) & 15) * 4
        if protocol == 51 and len(data) >= body + 12:
            protocol, body = int(data[body]), body + (int(data[body + 1]) + 2) * 4
    elif len(data) >= at + 40:
        protocol, body = skip_extensions(data, at)
    else:
        return _NONE
    if protocol in (4, 41):
        return IP, body
    if protocol == 47:
        return _gre(data, body)
    if protocol == 97:
        return ETHERNET, body + 2
    if protocol == 137:
        return _mpls(data, body)
    if protocol == 17:
        return _udp(data, body)
    return _NONE


def skip_extensions(data: Bytes, at: int) -> tuple[int, int]:
    """(protocol, position) behind the IPv6 header at *at* and its extension headers (RFC 8200 section 4)."""
    protocol, body = int(data[at + 6]), at + 40
    while protocol in (0, 43, 44, 51, 60, 135) and len(data) >= body + 8:
        size = int(data[body + 1])
        step = 8 if protocol == 44 else (size + 2) * 4 if protocol == 51 else (size + 1) * 8
        protocol, body = int(data[body]), body + step
    return protocol, body


def _gre(data: Bytes, at: int) -> Step:
    if len(data) < at + 4:
        return _NONE
    flags, ethertype = _u16(data, at), _u16(data, at + 2)
    size = 4 + (4 if flags & 0xC000 else 0) + (4 if flags & 0x2000 else 0) + (4 if flags & 0x1000 else 0)
    if flags & 7 == 1:
        return _ppp(data, at + size + (4 if flags & 0x80 else 0)) if ethertype == 0x880B else _NONE
    if ethertype == 0x88BE and not flags & 0x1000:
        return ETHERNET, at + size
    return by_ethertype(data, at + size, ethertype)


def _udp(data: Bytes, at: int) -> Step:
    if len(data) < at + 16:
        return _NONE
    port, body = _u16(data, at + 2), at + 8
    if port in (4789, 8472):
        return ETHERNET, body + 8
    if port == 6081:
        return by_ethertype(data, body + 8 + (int(data[body]) & 0x3F) * 4, _u16(data, body + 2))
    if port == 2152 and data[body + 1] == 255:
        return _gtp(data, body)
    return (IP, body) if port == 3544 and data[body] >> 4 == 6 else _NONE


def _gtp(data: Bytes, at: int) -> Step:
    body = at + 8
    if data[at] & 7:
        body += 4
        if data[at] & 4:
            kind = int(data[body - 1]) if len(data) >= body else 0
            while kind and len(data) > body and data[body]:
                step = int(data[body]) * 4
                if len(data) < body + step:
                    return _NONE
                kind, body = int(data[body + step - 1]), body + step
    return IP, body


def innermost(data: Bytes, link: int) -> int | None:
    """Where the innermost IP packet of a frame begins; None if there is none."""
    if link in (LINK_NULL, LINK_LOOP):
        kind, at = IP, 4
    elif link in (LINK_RAW, LINK_IPV4, LINK_IPV6, 12, 14):
        kind, at = IP, 0
    else:
        kind, at = by_link(data, link)
    found = None
    for _ in range(MAX_DEPTH):
        if at >= len(data):
            return found
        if kind == ETHERNET:
            if len(data) < at + 14:
                return found
            kind, at = by_ethertype(data, at + 14, _u16(data, at + 12))
        elif kind == IP:
            found = at
            kind, at = inside_ip(data, at)
        else:
            return found
    return None


def decode_rare(data: Bytes, wire: int, link: int, digests: bool, rows: Any, row: int) -> int:
    """Peel *data* (one frame) down to TCP and fill ``rows[row]``; returns a code of ``capture.decode``."""
    base = META_RARE | (META_CLIPPED if len(data) < wire else 0)
    kind, at = by_link(data, link)
    tunnelled = False
    for _ in range(MAX_DEPTH):
        if at >= len(data) or kind == NOTHING:
            return OTHER
        if kind == ETHERNET:
            if len(data) < at + 14:
                return OTHER
            kind, at = by_ethertype(data, at + 14, _u16(data, at + 12))
            continue
        rows["meta"][row] = base | (META_TUNNELLED if tunnelled else 0)
        code = int(decode_ip_into(data, at, wire - at, digests, rows, row))
        if code != RARE:
            return code
        tunnelled = True
        kind, at = inside_ip(data, at)
    return OTHER

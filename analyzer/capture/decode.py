"""Frames to packets, compiled: link layer, IPv4/IPv6, TCP, options, quoted headers of ICMP errors.

Each function takes the byte buffer and positions in it and checks every length before it reads.
``decode_frame`` returns one of the codes below; only ``TAKEN`` fills the row.
"""

import numpy as np
from numba import njit

from analyzer import schema

# what became of a frame
TAKEN = 0
RARE = 1  # for the slower path: tunnels, odd encapsulations
OTHER = 2  # no IP, or neither TCP nor an ICMP error about TCP
LATER_FRAGMENT = 3
SHORT = 4  # TCP, but captured too short to hold its flags
CODES = 5

LINK_NULL, LINK_ETHERNET, LINK_RAW, LINK_LOOP, LINK_SLL, LINK_IPV4, LINK_IPV6, LINK_SLL2 = (
    0, 1, 101, 108, 113, 228, 229, 276,
)  # fmt: skip

_TCP, _ICMP, _ICMP6, _UDP = 6, 1, 58, 17
OPT_TS, OPT_TS_CUT, OPT_MSS, OPT_WSCALE = schema.OPT_TS, schema.OPT_TS_CUT, schema.OPT_MSS, schema.OPT_WSCALE
OPT_SACK_OK, OPT_CLIPPED, OPT_AUTH, OPT_TFO = (
    schema.OPT_SACK_OK,
    schema.OPT_CLIPPED,
    schema.OPT_AUTH,
    schema.OPT_TFO,
)
OPT_TOA, OPT_BAD = schema.OPT_TOA, schema.OPT_BAD
META_V6, META_FRAGMENT, META_CLIPPED = schema.META_V6, schema.META_FRAGMENT, schema.META_CLIPPED
META_SENT, META_RECEIVED, META_TRAILER = schema.META_SENT, schema.META_RECEIVED, schema.META_TRAILER
OPT_PROXY = schema.OPT_PROXY
TRAILER_BYTES = 7
"""Fewer bytes after an IP packet are padding of the shortest Ethernet frame."""
KIND_TCP, KIND_ICMP = schema.KIND_TCP, schema.KIND_ICMP
DIGEST_BYTES = 64


@njit(cache=True, inline="always")
def _be16(buf, at):
    return (np.int64(buf[at]) << 8) | np.int64(buf[at + 1])


@njit(cache=True, inline="always")
def _be32(buf, at):
    return (
        (np.int64(buf[at]) << 24) | (np.int64(buf[at + 1]) << 16) | (np.int64(buf[at + 2]) << 8) | np.int64(buf[at + 3])
    )


@njit(cache=True, inline="always")
def _be64(buf, at):
    return (np.uint64(_be32(buf, at)) << np.uint64(32)) | np.uint64(_be32(buf, at + 4))


@njit(cache=True)
def _options(buf, at, end, whole, row):
    """TCP options in [at, end) of the buffer; *whole* is where the header really ends."""
    opts = 0
    while at < end:
        kind = buf[at]
        if kind == 0:
            break
        if kind == 1:
            at += 1
            continue
        if at + 1 >= end:
            break
        size = np.int64(buf[at + 1])
        if size < 2 or at + size > whole:
            opts |= OPT_BAD
            break
        if kind == 8 and size == 10:
            if at + 6 <= end and not opts & OPT_TS:
                row.tsval = _be32(buf, at + 2)
                opts |= OPT_TS
                if at + 10 <= end:
                    row.tsecr = _be32(buf, at + 6)
                else:
                    opts |= OPT_TS_CUT
        elif kind == 2 and size == 4 and at + 4 <= end:
            row.mss = _be16(buf, at + 2)
            opts |= OPT_MSS
        elif kind == 3 and size == 3 and at + 3 <= end:
            row.wscale = buf[at + 2]
            opts |= OPT_WSCALE
        elif kind == 4 and size == 2:
            opts |= OPT_SACK_OK
        elif kind == 19 or kind == 29:
            opts |= OPT_AUTH
        elif kind == 34:
            opts |= OPT_TFO
        elif 252 <= kind <= 254:
            opts |= OPT_TOA
        at += size
    if end < whole and not opts & OPT_BAD and (at >= end or at + 1 >= end):
        opts |= OPT_CLIPPED
    return opts


@njit(cache=True, inline="always")
def _digest(buf, at, end):
    """FNV-1a, 64 bits, of at most DIGEST_BYTES bytes."""
    value = np.uint64(0xCBF29CE484222325)
    for i in range(at, min(end, at + DIGEST_BYTES)):
        value = (value ^ np.uint64(buf[i])) * np.uint64(0x100000001B3)
    return value


@njit(cache=True)
def _tcp(buf, at, end, payload, digests, row):
    """TCP header at *at*; *payload* is what the IP layer carries on the wire, header included."""
    if end - at < 14:
        return SHORT
    row.sport = _be16(buf, at)
    row.dport = _be16(buf, at + 2)
    row.seq = _be32(buf, at + 4)
    row.ack = _be32(buf, at + 8)
    header = (np.int64(buf[at + 12]) >> 4) * 4
    row.flags = ((np.int64(buf[at + 12]) & 1) << 8) | np.int64(buf[at + 13])
    row.window = _be16(buf, at + 14) if end - at >= 16 else 0
    row.length = max(payload - header, 0) if header >= 20 else 0
    row.kind = KIND_TCP
    row.opts = 0
    if header > 20:
        whole = at + header
        stop = min(whole, end)
        if (
            header == 32 and stop == whole
            and buf[at + 20] == 1 and buf[at + 21] == 1 and buf[at + 22] == 8 and buf[at + 23] == 10
        ):  # fmt: skip
            row.tsval = _be32(buf, at + 24)
            row.tsecr = _be32(buf, at + 28)
            row.opts = OPT_TS
        else:
            row.opts = _options(buf, at + 20, stop, whole, row)
    row.digest = 0
    if digests and row.length > 0 and at + header < end:
        row.digest = _digest(buf, at + header, min(end, at + header + np.int64(row.length)))
    if row.length >= 16 and header >= 20 and at + header + 16 <= end and _like_proxy(buf, at + header):
        row.opts |= OPT_PROXY
    return TAKEN


@njit(cache=True, inline="always")
def _like_proxy(buf, at):
    """Whether a payload begins with ``PROXY`` or the first bytes of a version 2 header."""
    first = buf[at]
    if first == 0x50:
        return buf[at + 1] == 0x52 and buf[at + 2] == 0x4F and buf[at + 3] == 0x58 and buf[at + 4] == 0x59
    return first == 0x0D and buf[at + 1] == 0x0A and buf[at + 2] == 0x0D and buf[at + 3] == 0x0A and buf[at + 4] == 0


@njit(cache=True)
def _icmp(buf, at, end, v6, row):
    """An ICMP or ICMPv6 error that quotes a TCP header: the row gets the quoted addresses."""
    if end - at < 8 + 20:
        return OTHER
    kind = np.int64(buf[at])
    code = np.int64(buf[at + 1])
    inner = at + 8
    if v6:
        if kind < 1 or kind > 4 or buf[inner] >> 4 != 6 or end - inner < 48 or buf[inner + 6] != _TCP:
            return OTHER
        row.src_hi, row.src_lo = _be64(buf, inner + 8), _be64(buf, inner + 16)
        row.dst_hi, row.dst_lo = _be64(buf, inner + 24), _be64(buf, inner + 32)
        quoted = inner + 40
    else:
        if kind not in (3, 4, 5, 11, 12) or buf[inner] >> 4 != 4 or buf[inner + 9] != _TCP:
            return OTHER
        quoted = inner + (np.int64(buf[inner]) & 15) * 4
        if end - quoted < 8:
            return OTHER
        row.src_hi = row.dst_hi = 0
        row.src_lo = np.uint64(0xFFFF00000000) | np.uint64(_be32(buf, inner + 12))
        row.dst_lo = np.uint64(0xFFFF00000000) | np.uint64(_be32(buf, inner + 16))
    row.sport, row.dport = _be16(buf, quoted), _be16(buf, quoted + 2)
    row.seq = _be32(buf, quoted + 4)
    row.ack = row.tsval = row.tsecr = row.length = 0
    row.window = row.opts = row.mss = row.ipid = 0
    row.digest = 0
    row.flags = (kind << 8) | code
    row.kind = KIND_ICMP
    return TAKEN


@njit(cache=True, inline="always")
def _udp_tunnel(buf, at, end):
    """Whether a UDP header speaks of VXLAN, Geneve, GTP-U, Teredo or L2TP."""
    if end - at < 16:
        return False
    port = _be16(buf, at + 2)
    return port in (4789, 8472, 6081, 2152, 3544)


@njit(cache=True)
def decode_ip(buf, at, end, wire, digests, row):
    """IPv4 or IPv6 packet at *at*; captured bytes end at *end*, on the wire there are *wire* from *at*."""
    if end - at < 20:
        return OTHER
    version = buf[at] >> 4
    if version == 4:
        header = (np.int64(buf[at]) & 15) * 4
        if header < 20 or end - at < header:
            return OTHER
        total = _be16(buf, at + 2)
        if total < header:  # segmentation offload leaves 0
            total = wire
        fragment = _be16(buf, at + 6)
        protocol = np.int64(buf[at + 9])
        if fragment & 0x1FFF:
            return LATER_FRAGMENT if protocol == _TCP else OTHER
        row.src_hi = row.dst_hi = 0
        row.src_lo = np.uint64(0xFFFF00000000) | np.uint64(_be32(buf, at + 12))
        row.dst_lo = np.uint64(0xFFFF00000000) | np.uint64(_be32(buf, at + 16))
        row.ttl = buf[at + 8]
        row.ipid = _be16(buf, at + 4)
        if fragment & 0x2000:
            row.meta |= META_FRAGMENT
        stop = min(end, at + total)
        if end - stop >= TRAILER_BYTES:
            row.meta |= META_TRAILER
        left = total - header
        at += header
        v6 = False
    elif version == 6:
        if end - at < 40:
            return OTHER
        size = _be16(buf, at + 4)
        if size == 0:
            size = wire - 40
        protocol = np.int64(buf[at + 6])
        row.src_hi, row.src_lo = _be64(buf, at + 8), _be64(buf, at + 16)
        row.dst_hi, row.dst_lo = _be64(buf, at + 24), _be64(buf, at + 32)
        row.ttl = buf[at + 7]
        row.ipid = 0
        row.meta |= META_V6
        stop = min(end, at + 40 + size)
        if end - stop >= TRAILER_BYTES:
            row.meta |= META_TRAILER
        left = size
        at += 40
        v6 = True
    else:
        return OTHER
    for _ in range(8):
        if protocol == _TCP:
            return _tcp(buf, at, stop, left, digests, row)
        if protocol == 51:
            if stop - at < 12:
                return OTHER
            step = (np.int64(buf[at + 1]) + 2) * 4
        elif v6 and protocol in (0, 43, 60, 135):
            if stop - at < 8:
                return OTHER
            step = (np.int64(buf[at + 1]) + 1) * 8
        elif v6 and protocol == 44:
            if stop - at < 8:
                return OTHER
            fragment = _be16(buf, at + 2)
            if fragment & 0xFFF8:
                return LATER_FRAGMENT if buf[at] == _TCP else OTHER
            if fragment & 1:
                row.meta |= META_FRAGMENT
            step = 8
        else:
            break
        protocol = np.int64(buf[at])
        at += step
        left -= step
    if (protocol == _ICMP and not v6) or (protocol == _ICMP6 and v6):
        return _icmp(buf, at, stop, v6, row)
    if protocol in (4, 41, 47, 97, 137) or (protocol == _UDP and _udp_tunnel(buf, at, stop)):
        return RARE
    return OTHER


@njit(cache=True)
def decode_frame(buf, at, end, wire, link, digests, row):
    """One frame of link type *link* in buf[at:end], *wire* bytes long on the wire."""
    row.meta = META_CLIPPED if end - at < wire else 0
    row.vlan = 0
    row.mss = 0
    row.wscale = 0
    row.tsval = row.tsecr = 0
    start = at
    if link == LINK_ETHERNET:
        if end - at < 14:
            return OTHER
        kind = _be16(buf, at + 12)
        at += 14
        for _ in range(4):
            if kind not in (0x8100, 0x88A8, 0x9100, 0x9200) or end - at < 4:
                break
            if row.vlan == 0:
                row.vlan = _be16(buf, at) & 0xFFF
            kind = _be16(buf, at + 2)
            at += 4
    elif link == LINK_SLL:
        if end - at < 16:
            return OTHER
        row.meta |= META_SENT if _be16(buf, at) == 4 else META_RECEIVED
        kind = _be16(buf, at + 14)
        at += 16
    elif link == LINK_SLL2:
        if end - at < 20:
            return OTHER
        row.meta |= META_SENT if buf[at + 10] == 4 else META_RECEIVED
        kind = _be16(buf, at)
        row.interface = _be32(buf, at + 4) & 0xFFFF
        at += 20
    elif link == LINK_NULL or link == LINK_LOOP:
        if end - at < 24:
            return OTHER
        at += 4
        kind = 0x0800 if buf[at] >> 4 == 4 else 0x86DD
    elif link == LINK_RAW or link == LINK_IPV4 or link == LINK_IPV6 or link == 12 or link == 14:
        if end - at < 20:
            return OTHER
        kind = 0x0800 if buf[at] >> 4 == 4 else 0x86DD
    else:
        return RARE
    if link == LINK_SLL or link == LINK_SLL2:
        for _ in range(4):
            if kind not in (0x8100, 0x88A8, 0x9100) or end - at < 4:
                break
            if row.vlan == 0:
                row.vlan = _be16(buf, at) & 0xFFF
            kind = _be16(buf, at + 2)
            at += 4
    if kind == 0x0800 or kind == 0x86DD:
        return decode_ip(buf, at, end, wire - (at - start), digests, row)
    if kind in (0x8847, 0x8848, 0x8864, 0x6558, 0x88BE, 0x22EB, 0x894F) or kind <= 1500:
        return RARE
    return OTHER


@njit(cache=True)
def decode_ip_into(buf, at, wire, digests, rows, index):
    """``decode_ip`` of buf[at:] into ``rows[index]``, for callers outside compiled code."""
    return decode_ip(buf, at, buf.shape[0], wire, digests, rows[index])

"""F5's Ethernet trailer, compiled: which flow of the load balancer a packet belongs to, and who its peer is.

``tcpdump -i 0.0:nnnp`` on a BIG-IP appends it behind the IP packet: a chain of type-length-version blocks
(up to 13.x), or a magic number and a chain with providers (14.0 and later).  Only whole frames have one.
"""

import numpy as np
from numba import njit

from analyzer.capture.decode import LINK_ETHERNET

# columns of the values found in one trailer
FLOW, PEER, REMOTE_HI, REMOTE_LO, LOCAL_HI, LOCAL_LO, REMOTE_P, LOCAL_P, INGRESS, FOUND, VALUES = range(11)
NAME_BYTES = 40

LOW, MEDIUM, HIGH = 1, 2, 3
NOISE = 1
_RTDOM_HI = np.uint64(0x262000000C10F501)
"""Upper half of addresses that carry a route domain and an IPv4 address in the lower."""


@njit(cache=True, inline="always")
def _number(buf, at, size):
    value = np.uint64(0)
    for i in range(size):
        value = (value << np.uint64(8)) | np.uint64(buf[at + i])
    return value


@njit(cache=True)
def behind_ip(buf, at, end, link):
    """Where an Ethernet frame's IP packet ends; -1 if it holds none."""
    if link != LINK_ETHERNET or end - at < 34:
        return -1
    kind = _number(buf, at + 12, 2)
    at += 14
    for _ in range(4):
        if kind not in (0x8100, 0x88A8, 0x9100) or end - at < 24:
            break
        kind = _number(buf, at + 2, 2)
        at += 4
    if kind == 0x0800:
        return at + np.int64(_number(buf, at + 2, 2))
    if kind == 0x86DD and end - at >= 40:
        return at + 40 + np.int64(_number(buf, at + 4, 2))
    return -1


@njit(cache=True)
def parse(buf, at, end, values, name):
    """Read the trailer in buf[at:end] into *values* and *name* (NAME_BYTES); False if there is none."""
    while at < end and buf[at] == 0:
        at += 1
    for skip in range(5):  # the frame's own check sequence may stand before the magic
        if end - at - skip >= 8 and _number(buf, at + skip, 4) == 0xF5DEB0F5:
            return _providers(buf, at + skip, end, values, name)
    return _blocks(buf, at, end, values, name)


@njit(cache=True)
def _blocks(buf, at, end, values, name):
    """The older form: low, medium and high details in this order."""
    last = 0
    while end - at >= 3:
        kind, total, version = buf[at], np.int64(buf[at + 1]) + 2, buf[at + 2]
        if kind < LOW or kind > HIGH or kind <= last or total < 7 or total > 140 or version > 3 or total > end - at:
            break
        last = kind
        if kind == LOW:
            _low(buf, at, total, version, values, name)
        elif kind == MEDIUM and (version > 0 or total == 29) and total >= 19:
            values[FLOW], values[PEER] = _number(buf, at + 3, 8), _number(buf, at + 11, 8)
        elif kind == MEDIUM and total == 21:
            values[FLOW], values[PEER] = _number(buf, at + 3, 4), _number(buf, at + 7, 4)
        elif kind == HIGH and total >= 42:
            _high(buf, at + 6, values)
        at += total
    values[FOUND] = 1 if last else 0
    return last > 0


@njit(cache=True)
def _low(buf, at, total, version, values, name):
    values[INGRESS] = buf[at + 3] & 1
    if version == 0 and total == 35:
        values[FLOW], values[PEER] = _number(buf, at + 6, 4), _number(buf, at + 10, 4)
        _name(buf, at + 19, at + 35, name)
    elif version == 0:
        _name(buf, at + 6, at + total, name)
    else:
        _name(buf, at + 7, min(at + total, at + 7 + np.int64(buf[at + 6])), name)


@njit(cache=True)
def _high(buf, at, values):
    """Peer's remote and local address and ports; at least 36 bytes at *at*."""
    values[REMOTE_HI], values[REMOTE_LO] = _plain(_number(buf, at, 8), _number(buf, at + 8, 8))
    values[LOCAL_HI], values[LOCAL_LO] = _plain(_number(buf, at + 16, 8), _number(buf, at + 24, 8))
    values[REMOTE_P], values[LOCAL_P] = _number(buf, at + 32, 2), _number(buf, at + 34, 2)


@njit(cache=True, inline="always")
def _plain(high, low):
    """An address without its route domain."""
    if high == _RTDOM_HI and low >> np.uint64(48) == 0:
        return np.uint64(0), np.uint64(0xFFFF00000000) | (low & np.uint64(0xFFFFFFFF))
    return high, low


@njit(cache=True)
def _name(buf, at, end, name):
    for i in range(min(end - at, NAME_BYTES)):
        if buf[at + i] == 0:
            break
        name[i] = buf[at + i]


@njit(cache=True)
def _providers(buf, at, end, values, name):
    """The newer form; providers other than noise (session secrets among them) are passed over."""
    if _number(buf, at + 6, 2) != 1:
        return False
    end = min(end, at + np.int64(_number(buf, at + 4, 2)))
    at += 8
    found = False
    while end - at >= 8:
        provider, kind = _number(buf, at, 2), _number(buf, at + 2, 2)
        size, version = np.int64(_number(buf, at + 4, 2)), _number(buf, at + 6, 2)
        if size < 8 or size > end - at:
            break
        if provider == NOISE and kind == LOW and size >= 12:
            values[INGRESS] = buf[at + 8] & 1
            stop = min(at + size, at + 12 + np.int64(buf[at + 11]))
            if version >= 4:
                _listed_name(buf, at + 12, stop, name)
            else:
                _name(buf, at + 12, stop, name)
            found = True
        elif provider == NOISE and kind == MEDIUM and size >= 24:
            values[FLOW], values[PEER] = _number(buf, at + 8, 8), _number(buf, at + 16, 8)
            found = True
        elif provider == NOISE and kind == HIGH and size >= 47:
            _high(buf, at + 11, values)
            found = True
        at += size
    values[FOUND] = 1 if found else 0
    return found


@njit(cache=True)
def _listed_name(buf, at, end, name):
    """The virtual server's name in a list of (kind, length, text)."""
    while end - at >= 2:
        size = np.int64(buf[at + 1])
        if buf[at] == 0:
            _name(buf, at + 2, min(end, at + 2 + size), name)
            return
        at += 2 + size


@njit(cache=True, nogil=True)
def parse_all(buf, places, values, names):
    """Read the trailers of whole frames; *places* rows are (row, position, captured size, wire size, link, …).

    *values* uint64 (n, VALUES) and *names* uint8 (n, NAME_BYTES), zeroed, are filled row for row.
    """
    for i in range(places.shape[0]):
        at, size, wire, link = places[i, 1], places[i, 2], places[i, 3], places[i, 4]
        values[i, INGRESS] = 255
        if size != wire:
            continue
        start = behind_ip(buf, at, at + size, link)
        if start > at and start < at + size:
            parse(buf, start, at + size, values[i], names[i])
        if values[i, PEER] == 0:
            for column in range(REMOTE_HI, LOCAL_P + 1):
                values[i, column] = 0

"""Ids as text: addresses and Zeek-like connection uids."""

import ipaddress
import socket
import struct
import weakref
from typing import Any

import numpy as np

Records = np.ndarray[Any, np.dtype[np.void]]

_DIGITS = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", np.uint8)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_MIX2 = 0xBF58476D1CE4E5B9


def host_text(hosts: Records, host: int) -> str:
    """The address of a host id as text."""
    return _text(*hosts[host].item())


def _text(high: int, low: int, v6: int) -> str:
    if v6 and high:  # without upper half the two differ: ::1.2.3.4
        return socket.inet_ntop(socket.AF_INET6, struct.pack(">QQ", high, low))
    if v6:
        return str(ipaddress.IPv6Address(low))
    return f"{low >> 24 & 255}.{low >> 16 & 255}.{low >> 8 & 255}.{low & 255}"


_TEXTS: dict[int, tuple[weakref.ref[Records], list[str]]] = {}


def host_texts(hosts: Records) -> list[str]:
    """All addresses, by host id; kept while the table of hosts lives."""
    known = _TEXTS.get(id(hosts))
    if known is None or known[0]() is not hosts:
        known = (weakref.ref(hosts), address_texts(hosts))
        for key in [key for key, (table, _) in _TEXTS.items() if table() is None]:
            del _TEXTS[key]
        _TEXTS[id(hosts)] = known
    return known[1]


def address_texts(hosts: Records) -> list[str]:
    """The same for a table that is looked at once."""
    return [_text(*row) for row in hosts.tolist()]


def uids(name: str, conns: np.ndarray[Any, np.dtype[np.int32]]) -> np.ndarray[Any, np.dtype[np.bytes_]]:
    """Stable uids, ``C`` and eleven letters, from the capture's name and connection ids; dtype S12."""
    seed = np.uint64(int.from_bytes(name.encode(), "big") % (2**61 - 1) * _MIX2 % 2**64)
    values = (conns.astype(np.uint64) + np.uint64(1)) * _MIX ^ seed
    text = np.empty((len(values), 12), np.uint8)
    text[:, 0] = ord("C")
    for place in range(1, 12):
        values, digit = np.divmod(values, np.uint64(62))
        text[:, place] = _DIGITS[digit]
    return text.view("S12")[:, 0]


def uid(name: str, conn: int) -> str:
    """The uid of one connection."""
    return uids(name, np.array([conn], np.int32))[0].decode()

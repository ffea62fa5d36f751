"""Ids as text: addresses and Zeek-like connection uids."""

import ipaddress
from typing import Any

import numpy as np

_DIGITS = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", np.uint8)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_MIX2 = 0xBF58476D1CE4E5B9


def host_text(hosts: np.ndarray[Any, np.dtype[np.void]], host: int) -> str:
    """The address of a host id as text."""
    row = hosts[host]
    if row["v6"]:
        return str(ipaddress.IPv6Address(int(row["hi"]) << 64 | int(row["lo"])))
    return str(ipaddress.IPv4Address(int(row["lo"]) & 0xFFFFFFFF))


def host_texts(hosts: np.ndarray[Any, np.dtype[np.void]]) -> list[str]:
    """All addresses, by host id."""
    return [host_text(hosts, host) for host in range(len(hosts))]


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

"""Ids as text: addresses and Zeek-like connection uids."""

import ipaddress
from typing import Any

import numpy as np

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_MIX = 0x9E3779B97F4A7C15


def host_text(hosts: np.ndarray[Any, np.dtype[np.void]], host: int) -> str:
    """The address of a host id as text."""
    row = hosts[host]
    if row["v6"]:
        return str(ipaddress.IPv6Address(int(row["hi"]) << 64 | int(row["lo"])))
    return str(ipaddress.IPv4Address(int(row["lo"]) & 0xFFFFFFFF))


def host_texts(hosts: np.ndarray[Any, np.dtype[np.void]]) -> list[str]:
    """All addresses, by host id."""
    return [host_text(hosts, host) for host in range(len(hosts))]


def uid(name: str, conn: int) -> str:
    """A stable uid, ``C`` and eleven letters, from the capture's name and the connection id."""
    seed = int.from_bytes(name.encode(), "big") % (2**61 - 1)
    value = ((conn + 1) * _MIX ^ seed * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    text = ""
    for _ in range(11):
        value, digit = divmod(value, 62)
        text += _DIGITS[digit]
    return "C" + text

"""Prefix-preserving addresses, the same across all captures of a run.

The construction is Crypto-PAn's (Xu, Fan, Ammar, Moon: "Prefix-Preserving IP Address Anonymization",
ICNP 2002): bit i of an address is flipped by a pseudo-random bit of its first i bits, so two addresses
that share exactly k leading bits share exactly k after mapping.  The pseudo-random function is keyed
BLAKE2b; one call yields the 255 bits of the tree that one byte's eight levels span.
"""

import hashlib
import ipaddress
import re
import secrets
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.spool import Spool

if TYPE_CHECKING:
    from analyzer.connections import Tracked

Records = np.ndarray[Any, np.dtype[np.void]]

_MAPPED = 0xFFFF
_ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f.]{0,15}){2,8})"
)


class Anonymizer:
    """Maps addresses under one key.

    Args:
        key: Any text; the same key maps alike in later runs. None draws a random key that nobody keeps.
    """

    def __init__(self, key: str | None = None) -> None:
        secret = secrets.token_bytes(32) if key is None else key.encode()
        self._key = hashlib.blake2b(secret, digest_size=32, person=b"synquest-address").digest()
        self._tree = lru_cache(maxsize=1 << 16)(self._bits)

    def _bits(self, prefix: bytes) -> int:
        """256 pseudo-random bits for the byte that follows *prefix* (its first byte tells the family)."""
        return int.from_bytes(hashlib.blake2b(prefix, digest_size=32, key=self._key).digest(), "little")

    def packed(self, address: bytes) -> bytes:
        """Map an address of 4 or 16 bytes."""
        if len(address) == 16 and address[:12] == b"\0" * 10 + b"\xff\xff":
            return address[:12] + self.packed(address[12:])
        out = bytearray()
        prefix = bytes([len(address)])
        for byte in address:
            out.append(_flip(byte, self._tree(prefix)))
            prefix += bytes([byte])
        return bytes(out)

    def halves(self, high: int, low: int) -> tuple[int, int]:
        """Map an address given as two 64-bit halves, IPv4 as ::ffff:a.b.c.d."""
        mapped = self.packed(high.to_bytes(8, "big") + low.to_bytes(8, "big"))
        return int.from_bytes(mapped[:8], "big"), int.from_bytes(mapped[8:], "big")

    def text(self, text: str) -> str:
        """*text* with every address in it mapped."""
        return _ADDRESS.sub(lambda found: self._word(found.group()), text)

    def _word(self, word: str) -> str:
        bare = word.rstrip(".:") if word.rstrip(".:").count(":") != 1 else word
        for candidate in dict.fromkeys((word, bare)):
            try:
                address = ipaddress.ip_address(candidate)
            except ValueError:
                continue
            return str(ipaddress.ip_address(self.packed(address.packed))) + word[len(candidate) :]
        return word

    # ---- tables --------------------------------------------------------------------------------

    def columns(self, rows: Records, *names: str) -> Records:
        """A copy of *rows* with the addresses ``NAME_hi``, ``NAME_lo`` (or ``hi``, ``lo``) mapped."""
        mapped = rows.copy()
        for name in names:
            high, low = (f"{name}_hi", f"{name}_lo") if name else ("hi", "lo")
            halves = {
                pair: self.halves(*pair) for pair in set(zip(rows[high].tolist(), rows[low].tolist(), strict=True))
            }
            there = [halves[pair] for pair in zip(rows[high].tolist(), rows[low].tolist(), strict=True)]
            mapped[high] = np.array([pair[0] for pair in there], np.uint64)
            mapped[low] = np.array([pair[1] for pair in there], np.uint64)
        return mapped

    def hide(self, tracked: "Tracked") -> None:
        """Map a capture's hosts and take away the names that tell whose it is.

        Files are called after their vantage, interfaces by number; ``InputFile.place`` keeps where
        frames are read from again and is never shown.
        """
        tracked.hosts = self.columns(tracked.hosts, "")
        tracked.identities = self._identities(tracked.identities)
        names: dict[str, str] = {}
        for number, info in enumerate(tracked.files):
            ending = {"gzip": ".gz", "zstd": ".zst"}.get(info.compression, "")
            names[info.path] = f"{tracked.name}-{number + 1}.{info.format or 'cap'}{ending}"
            info.path = names[info.path]
        for number, interface in enumerate(tracked.interfaces):
            interface.name = f"if{number}" if interface.name else ""
            interface.description = interface.capture_filter = ""
        tracked.problems = [self._problem(problem, names, tracked.name) for problem in tracked.problems]

    def _identities(self, spool: Spool) -> Spool:
        mapped = Spool(spool.table)
        for rows in spool.chunks():
            told = self.columns(rows, "src", "dst", "remote", "local")
            for end in ("remote", "local"):
                unknown = rows[f"{end}_p"] == 0
                told[f"{end}_hi"][unknown], told[f"{end}_lo"][unknown] = 0, 0
            told["vip"] = b""
            mapped.append(told)
        return mapped

    def _problem(self, problem: Any, names: dict[str, str], vantage: str) -> Any:
        text = problem.text if problem.kind != "unreadable" else "left out: a file that cannot be read as a capture"
        return replace(problem, source=names.get(problem.source, vantage), text=self.text(text))


def _flip(byte: int, tree: int) -> int:
    """Flip each bit of *byte* by the tree's node that its leading bits lead to."""
    out, node = 0, 1
    for shift in range(7, -1, -1):
        bit = byte >> shift & 1
        out = out << 1 | (bit ^ (tree >> node & 1))
        node = node << 1 | bit
    return out

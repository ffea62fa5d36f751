"""All packets of a capture in memory, for notebooks; the pipeline itself streams them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.capture.files import open_capture
from analyzer.capture.inputs import InputFile
from analyzer.errors import InputError, Problem
from analyzer.schema import ACK, FIN, KIND_TCP, META_V6, OPT_TS, OPT_TS_CUT, PACKET, PSH, RST, SYN, URG

if TYPE_CHECKING:
    import pandas as pd

Records = np.ndarray[Any, np.dtype[np.void]]

LETTERS = ((SYN, "S"), (FIN, "F"), (RST, "R"), (PSH, "P"), (URG, "U"), (ACK, "."))
"""tcpdump's flag letters, in its order."""


@dataclass(frozen=True)
class Packets:
    """Every TCP packet (and ICMP error about one) of a capture, in order of arrival.

    Attributes:
        records: PACKET records (n,), as ``analyzer.schema`` declares them; 120 bytes a packet.
        files: What was found in each file.
        problems: Damage and other flaws, as data.
    """

    records: Records
    files: list[InputFile]
    problems: list[Problem]

    def __len__(self) -> int:
        return len(self.records)

    def to_pandas(self) -> pd.DataFrame:
        """The packets as a table: one row each.

        Returns:
            Columns ``frame`` (uint32), ``time`` (datetime64[ns, UTC]), ``src``, ``dst`` (category),
            ``sport``, ``dport`` (uint16), ``flags`` (category, tcpdump's letters), ``seq``, ``ack``
            (uint32, raw), ``length`` (bytes), ``tsval``, ``tsecr`` (UInt32, missing without the
            option), ``window`` (raw), ``ipid``, ``ttl`` and ``vlan``.
        """
        import pandas as pd

        rows = self.records
        no_ts = (rows["opts"] & OPT_TS) == 0
        no_echo = no_ts | ((rows["opts"] & OPT_TS_CUT) > 0)
        return pd.DataFrame(
            {
                "frame": rows["frame"],
                "time": pd.to_datetime(rows["time"], utc=True),
                "src": _addresses(rows, "src"),
                "sport": rows["sport"],
                "dst": _addresses(rows, "dst"),
                "dport": rows["dport"],
                "flags": _flags(rows),
                "seq": rows["seq"],
                "ack": rows["ack"],
                "length": rows["length"],
                "tsval": pd.arrays.IntegerArray(rows["tsval"].copy(), no_ts),
                "tsecr": pd.arrays.IntegerArray(rows["tsecr"].copy(), no_echo),
                "window": rows["window"],
                "ipid": rows["ipid"],
                "ttl": rows["ttl"],
                "vlan": rows["vlan"],
            }
        )


def _addresses(rows: Records, side: str) -> Any:
    """One end's addresses as a category column; each is spelled once."""
    import ipaddress

    import pandas as pd

    keys = np.empty(len(rows), [("hi", "u8"), ("lo", "u8"), ("v6", "u1")])
    keys["hi"], keys["lo"], keys["v6"] = rows[f"{side}_hi"], rows[f"{side}_lo"], (rows["meta"] & META_V6) > 0
    known, codes = np.unique(keys, return_inverse=True)
    texts = [
        str(ipaddress.IPv6Address(hi << 64 | lo)) if v6 else str(ipaddress.IPv4Address(lo & 0xFFFFFFFF))
        for hi, lo, v6 in known.tolist()
    ]
    return pd.Categorical.from_codes(codes, categories=texts)


def _flags(rows: Records) -> Any:
    """Flags as tcpdump writes them; ICMP errors as ``icmp``."""
    import pandas as pd

    shown = np.where(rows["kind"] == KIND_TCP, rows["flags"] & 0xFF, 0x100)
    known, codes = np.unique(shown, return_inverse=True)
    texts = ["icmp" if f == 0x100 else "".join(c for bit, c in LETTERS if f & bit) or "none" for f in known.tolist()]
    return pd.Categorical(np.array(texts, object)[codes])


def read_capture(paths: str | Sequence[str]) -> Packets:
    """Read one capture whole.

    Args:
        paths: A file, folder or pattern, or several that belong to one capture (rotated files).

    Returns:
        Its TCP packets and ICMP errors about them.

    Raises:
        InputError: Nothing readable; the message names the file.

    Example:
        >>> packets = read_capture("fixtures/el7-recycle/server.pcap.zst")
        >>> len(packets), packets.problems
        (6336, [])
        >>> syn = packets.to_pandas().iloc[0]
        >>> syn["src"], int(syn["dport"]), syn["flags"]
        ('172.16.10.241', 1120, 'S')
    """
    capture = open_capture([paths] if isinstance(paths, str) else list(paths), "capture")
    parts = [block.copy() for block in capture.blocks()]
    records = np.concatenate(parts) if parts else np.zeros(0, PACKET.dtype)
    if not len(records):
        why = f" ({capture.problems[0]})" if capture.problems else ""
        raise InputError(f"{', '.join(f.path for f in capture.files)}: no readable TCP packet{why}")
    return Packets(np.asarray(records).view(PACKET.dtype), capture.files, capture.problems)

"""Kernel counters as people save them: ``netstat -s``, ``nstat``, ``/proc/net/netstat`` and ``snmp``.

Counters of the groups TcpExt and Tcp go by their kernel names (``PAWSPassive``, ``PassiveOpens``),
those of other groups with the group in front (``IcmpOutDestUnreachs``), as ``nstat`` prints them.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from analyzer.errors import InputError

MOST_BYTES = 4_000_000
"""No host has counters of this size; a capture named by mistake does."""
GROUPS = ("TcpExt", "IpExt", "MPTcpExt", "UdpLite", "IcmpMsg", "Icmp6", "Ip6", "Udp6", "Icmp", "Tcp", "Udp", "Ip")
BARE = ("TcpExt", "Tcp")
GAUGES = frozenset({"CurrEstab", "RtoAlgorithm", "RtoMin", "RtoMax", "MaxConn"})

WORDS = {
    # Tcp: net-tools before 2017 writes "connections openings", "send out", "retransmited"
    "active connection openings": "ActiveOpens",
    "active connections openings": "ActiveOpens",
    "passive connection openings": "PassiveOpens",
    "failed connection attempts": "AttemptFails",
    "connection resets received": "EstabResets",
    "connections established": "CurrEstab",
    "segments received": "InSegs",
    "segments send out": "OutSegs",
    "segments sent out": "OutSegs",
    "segments retransmited": "RetransSegs",
    "segments retransmitted": "RetransSegs",
    "bad segments received": "InErrs",
    "packets with invalid checksum": "InCsumErrors",
    "resets sent": "OutRsts",
    # TcpExt
    "SYN cookies sent": "SyncookiesSent",
    "SYN cookies received": "SyncookiesRecv",
    "invalid SYN cookies received": "SyncookiesFailed",
    "resets received for embryonic SYN_RECV sockets": "EmbryonicRsts",
    "packets pruned from receive queue because of socket buffer overrun": "PruneCalled",
    "packets pruned from receive queue": "RcvPruned",
    "packets dropped from out-of-order queue because of socket buffer overrun": "OfoPruned",
    "ICMP packets dropped because they were out-of-window": "OutOfWindowIcmps",
    "ICMP packets dropped because socket was locked": "LockDroppedIcmps",
    # net-tools has the two timers the wrong way round: TW counts buckets of a minute, TWKilled the short ones
    "TCP sockets finished time wait in fast timer": "TW",
    "TCP sockets finished time wait in slow timer": "TWKilled",
    "time wait sockets recycled by time stamp": "TWRecycled",
    "passive connections rejected because of time stamp": "PAWSPassive",
    "active connections rejected because of time stamp": "PAWSActive",
    "packets rejects in established connections because of timestamp": "PAWSEstab",
    "packets rejected in established connections because of timestamp": "PAWSEstab",
    "packetes rejected in established connections because of timestamp": "PAWSEstab",
    "delayed acks sent": "DelayedACKs",
    "delayed acks further delayed because of locked socket": "DelayedACKLocked",
    "times the listen queue of a socket overflowed": "ListenOverflows",
    "SYNs to LISTEN sockets ignored": "ListenDrops",
    "SYNs to LISTEN sockets dropped": "ListenDrops",
    "connections reset due to unexpected SYN": "TCPAbortOnSyn",
    "connections reset due to unexpected data": "TCPAbortOnData",
    "connections reset due to early user close": "TCPAbortOnClose",
    "connections aborted due to memory pressure": "TCPAbortOnMemory",
    "connections aborted due to timeout": "TCPAbortOnTimeout",
    "connections aborted after user close in linger timeout": "TCPAbortOnLinger",
    "times unable to send RST due to no memory": "TCPAbortFailed",
    "other TCP timeouts": "TCPTimeouts",
}
"""Words of ``netstat -s``, numbers taken out, in the wordings of several net-tools."""

NOT_PRINTED = (
    "PAWSPassive", "PAWSEstab", "PAWSTimewait", "ListenOverflows", "ListenDrops", "TW", "TWKilled", "TWRecycled",
    "SyncookiesSent", "SyncookiesRecv", "SyncookiesFailed", "EmbryonicRsts", "TCPReqQFullDrop",
    "TCPReqQFullDoCookies", "TCPTimeWaitOverflow", "TCPSYNChallenge", "TCPChallengeACK", "TCPAbortOnSyn",
    "TCPACKSkippedSynRecv", "TCPACKSkippedPAWS", "TCPACKSkippedSeq", "TCPACKSkippedFinWait2",
    "TCPACKSkippedTimeWait", "TCPACKSkippedChallenge", "TCPDeferAcceptDrop", "TCPBacklogDrop", "PassiveOpens",
    "AttemptFails", "OutRsts",
)  # fmt: skip
"""``netstat -s`` and ``nstat`` without ``-z`` leave counters out that stand at zero."""

_KEYS = {re.sub(r"\W+", " ", words).strip().lower(): name for words, name in WORDS.items()}
_LIST_LINE = re.compile(r"^([A-Z]\w+)\s+(\d{1,20})(?:\s+\S+)?$")
_HEADING = re.compile(r"^([A-Z]\w*):\s*$")
_NAMED = re.compile(r"^(\w+):\s*(\d{1,20})$")
_NUMBER = re.compile(r"(?<!\S)\d{1,20}(?!\S)")


def read_counters(text: str) -> dict[str, int]:
    """Counters from any of the formats that the module knows, told apart by itself.

    Args:
        text: ``netstat -s`` text, ``nstat`` text or JSON, or ``/proc/net/netstat`` and ``/proc/net/snmp``
            content, one of them or both in one text.

    Returns:
        Values by name.  Where the format leaves zeros out, the counters that causes move are there as 0.

    Raises:
        InputError: Nothing in *text* is a counter, or it holds the counters of more than one moment.
    """
    stripped = text.lstrip("\ufeff \t\r\n")
    if stripped.startswith("{"):
        return _json(stripped)
    lines = [line.rstrip() for line in stripped.splitlines() if line.strip() and not line.startswith("#")]
    for reader in (_proc, _nstat, _netstat):
        found = reader(lines)
        if found is not None:
            return found
    if not lines and "#" in stripped[:1]:
        return dict.fromkeys(NOT_PRINTED, 0)  # nstat on a host that has moved nothing yet
    raise InputError("no counters found: give netstat -s, nstat -az, nstat JSON or /proc/net/netstat content")


def _name(group: str, name: str) -> str:
    return name if group in BARE else group + name


def _once(found: dict[str, int], name: str, value: int) -> None:
    if name in found:
        raise InputError(f"counter {name} stands there more than once: give one host and one moment per file")
    found[name] = value


def _json(text: str) -> dict[str, int]:
    """``nstat --json``: {"kernel": {"TcpExtTW": 1, ...}}."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError("looks like JSON and is damaged: give the output of nstat -az --json") from None
    inner = next((v for v in content.values() if isinstance(v, dict)), content)
    numbers = {k: v for k, v in inner.items() if isinstance(v, int) and not isinstance(v, bool)}
    found = {_name(*_split(key)): value for key, value in numbers.items() if _split(key)[0]}
    if not found:
        raise InputError("JSON without counters: give the output of nstat -az --json")
    return {**dict.fromkeys(NOT_PRINTED, 0), **found}


def _split(key: str) -> tuple[str, str]:
    """``TcpExtTWKilled`` as group and name; an empty group if it is none."""
    group = next((g for g in GROUPS if key.startswith(g)), "")
    return group, key[len(group) :]


def _proc(lines: Sequence[str]) -> dict[str, int] | None:
    """``/proc/net/netstat`` and ``snmp``: a line of names, then a line of values, both with the group in front."""
    found: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        group, colon, listed = names.partition(":")
        again, _, numbers = values.partition(":")
        if not colon or group != again or not re.fullmatch(r"\w+", group):
            return None
        for name, value in zip(listed.split(), numbers.split(), strict=False):
            if not re.fullmatch(r"-?\d{1,20}", value):
                return None
            _once(found, _name(group, name), int(value))
    return found or None


def _nstat(lines: Sequence[str]) -> dict[str, int] | None:
    """``nstat``: name with its group in front, value, rate."""
    found: dict[str, int] = {}
    for line in lines:
        entry = _LIST_LINE.match(line)
        group, name = _split(entry[1]) if entry else ("", "")
        if entry is None or not group or not name:
            return None
        _once(found, _name(group, name), int(entry[2]))
    return {**dict.fromkeys(NOT_PRINTED, 0), **found} if found else None


def _netstat(lines: Sequence[str]) -> dict[str, int] | None:
    """``netstat -s``: sections of sentences with one number each."""
    found: dict[str, int] = {}
    group, groups = "", set()
    for line in lines:
        heading = _HEADING.match(line)
        if heading:
            group = heading[1]
            if group in groups:
                raise InputError(f"section {group} stands there more than once: give one host and one moment per file")
            groups.add(group)
            continue
        named = _NAMED.match(line.strip())
        if named:
            found.setdefault(_name(group, named[1]), int(named[2]))
            continue
        number = _NUMBER.search(line)
        words = re.sub(r"\W+", " ", _NUMBER.sub("", line)).strip().lower()
        if number and words in _KEYS and group in BARE:
            _once(found, _KEYS[words], int(number[0]))
    if not groups & {"Tcp", "TcpExt"} or not found:
        return None
    return {**dict.fromkeys(NOT_PRINTED, 0), **found}


def load(path: str) -> dict[str, int]:
    """The counters of a file.

    Raises:
        InputError: It cannot be read or is none of the formats; the message names the file.
    """
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > MOST_BYTES:
        raise InputError(f"{path}: too large for a table of counters: give netstat -s or nstat -az output")
    try:
        return read_counters(raw.decode(errors="replace"))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


Snapshots = tuple[dict[str, int], dict[str, int]]


def load_pairs(pairs: Iterable[tuple[str, str]]) -> list[Snapshots]:
    """(before, after) counters per host, from pairs of files in the order of the servers.

    A pair that only adds groups which the host before it lacks (``/proc/net/snmp`` after
    ``/proc/net/netstat``) belongs to that host.

    Raises:
        InputError: A file cannot be used, or AFTER is older than BEFORE.
    """
    hosts: list[Snapshots] = []
    for before_path, after_path in pairs:
        before, after = load(before_path), load(after_path)
        shrunk = [n for n, v in before.items() if n not in GAUGES and after.get(n, v) < v]
        if shrunk and not any(after[n] > v for n, v in before.items() if n in after and n not in GAUGES):
            raise InputError(f"{after_path}: counters are lower than in {before_path}: say BEFORE, then AFTER")
        if hosts and not hosts[-1][0].keys() & before.keys() and not hosts[-1][1].keys() & after.keys():
            hosts[-1][0].update(before)
            hosts[-1][1].update(after)
        else:
            hosts.append((before, after))
    return hosts


def delta(before: dict[str, int], after: dict[str, int], name: str) -> int | None:
    """How much a counter rose; None if it was not given, or fell (the host was rebooted in between)."""
    if name not in after:
        return None
    rose = after[name] - before.get(name, 0)
    return rose if rose >= 0 else None

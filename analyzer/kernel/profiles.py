"""Kernel profiles: what differs between kernels, as data in one table.

A profile carries flags, not a version number; distribution kernels are profiles of their own
because they carry backports.  Every flag names the place in the kernel that it describes.
"""

import re
from dataclasses import dataclass, field, fields, replace


def _flag(meaning: str, **kwargs: object) -> object:
    return field(metadata={"meaning": meaning}, **kwargs)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Profile:
    """Rules of one family of kernels; each field's meaning is in its metadata."""

    name: str
    covers: str
    first: tuple[int, ...]
    last: tuple[int, ...]
    distribution: str = ""
    tw_recycle: bool = _flag("has tcp_tw_recycle and remembers a timestamp per peer", default=False)  # type: ignore[assignment]
    key: str = _flag("what a remembered timestamp is filed under", default="local_remote")  # type: ignore[assignment]
    dual_stack: str = _flag("IPv4 clients of an IPv6 listener", default="works")  # type: ignore[assignment]
    ipv6_peers: bool = _flag("remembers IPv6 peers", default=True)  # type: ignore[assignment]
    drop_without_ts: bool = _flag("a SYN without timestamps is dropped while a stamp is fresh", default=False)  # type: ignore[assignment]
    wide_seconds: bool = _flag("a stamp of the future counts as fresh", default=False)  # type: ignore[assignment]
    accept_queue: str = _flag("a SYN is dropped when the accept queue is full", default="always")  # type: ignore[assignment]
    overflow_counted: bool = _flag("that drop counts ListenOverflows and ListenDrops", default=True)  # type: ignore[assignment]
    drops_counted: bool = _flag("every listener drop counts ListenDrops", default=True)  # type: ignore[assignment]
    cookie_counted: bool = _flag("an answered cookie SYN counts ListenDrops too", default=False)  # type: ignore[assignment]
    queue_counters: bool = _flag("has TCPReqQFullDrop and TCPReqQFullDoCookies", default=True)  # type: ignore[assignment]
    cookies_always: bool = _flag("tcp_syncookies=2 sends cookies at any time", default=True)  # type: ignore[assignment]
    syn_queue: str = _flag("SYN queue full", default="length >= backlog")  # type: ignore[assignment]
    ack_ratelimit: bool = _flag("one out-of-window ACK per 500 ms", default=True)  # type: ignore[assignment]
    request_ratelimit: bool = _flag("the same limit for ACKs of a half-open request", default=True)  # type: ignore[assignment]
    tw_timer: str = _flag("TIME-WAIT timers (slots fire early, the wheel late)", default="wheel")  # type: ignore[assignment]
    live_syn: str = _flag("a SYN on a live connection gets", default="challenge")  # type: ignore[assignment]
    initial_rto_s: int = _flag("initial SYN-ACK timeout, s", default=1)  # type: ignore[assignment]
    clock: str = _flag("clock of the second stamps", default="wall")  # type: ignore[assignment]
    paws_forget_s: int = _flag("age after which PAWS forgets, s", default=86400 * 24)  # type: ignore[assignment]
    zero_exempt: bool = _flag("ts_recent = 0 never rejects", default=True)  # type: ignore[assignment]
    paws_tw_counter: str = _flag("counter of a PAWS reject in TIME-WAIT", default="PAWSEstab")  # type: ignore[assignment]
    proven: str = _flag("last quarter of the SYN queue: a peer is proven by", default="never")  # type: ignore[assignment]
    tw_isn: bool = _flag("a SYN taken out of TIME-WAIT continues its numbers and skips the queue checks", default=True)  # type: ignore[assignment]
    somaxconn: int = _flag("default of net.core.somaxconn", default=128)  # type: ignore[assignment]


_V2632 = Profile(
    "2.6.32", "2.6.32 vanilla", (2, 6, 32), (2, 6, 39), tw_recycle=True, key="remote", ipv6_peers=False,
    dual_stack="works, but the client's late FIN is not stored", wide_seconds=True, accept_queue="if young > 1",
    overflow_counted=False, drops_counted=False, queue_counters=False, cookies_always=False,
    syn_queue="length >= power of two", ack_ratelimit=False, request_ratelimit=False, tw_timer="slots",
    live_syn="reset", initial_rto_s=3, zero_exempt=False, proven="stamp or RTT",
)  # fmt: skip
_EL6 = replace(
    _V2632, name="el6", covers="RHEL/CentOS 6 (read in -642)", distribution="el6", live_syn="challenge",
    initial_rto_s=1, zero_exempt=True,
)  # fmt: skip
_V30 = replace(
    _V2632, name="3.0", covers="3.0 - 3.3", first=(3, 0), last=(3, 3), ipv6_peers=True, wide_seconds=False,
    zero_exempt=True,
)  # fmt: skip
_V34 = replace(
    _V30, name="3.4", covers="3.4 - 3.5 (read in 3.4.113)", first=(3, 4), last=(3, 5), queue_counters=True,
    live_syn="challenge", initial_rto_s=1,
)  # fmt: skip
_V36 = replace(
    _V34, name="3.6", covers="3.6 - 3.7", first=(3, 6), last=(3, 7), dual_stack="never checked",
    proven="RTT and stamp",
)  # fmt: skip
_V310 = replace(
    _V36, name="3.10", covers="3.8 - 3.13 (measured on 3.10.108)", first=(3, 8), last=(3, 13),
    overflow_counted=True, drops_counted=True, cookie_counted=True, live_syn="silent",
)  # fmt: skip
_EL71 = replace(
    _V310, name="el7.1", covers="RHEL/CentOS 7.0 - 7.2 (read in -229)", distribution="el7", cookies_always=True,
    live_syn="challenge",
)  # fmt: skip
_EL79 = replace(
    _EL71, name="el7.9", covers="RHEL/CentOS 7.3 - 7.9 (measured on -1160)", key="local_remote",
    dual_stack="works", drop_without_ts=True, ack_ratelimit=True, proven="never",
)  # fmt: skip
_V314 = replace(
    _V310, name="3.14", covers="3.14 - 3.16", first=(3, 14), last=(3, 16), key="local_remote", dual_stack="works",
    cookies_always=True,
)  # fmt: skip
_V317 = replace(
    _V314, name="3.17", covers="3.17 - 3.19", first=(3, 17), last=(3, 19), drop_without_ts=True, live_syn="challenge",
    proven="never",
)  # fmt: skip
_V40 = replace(_V317, name="4.0", covers="4.0", first=(4, 0), last=(4, 0), ack_ratelimit=True)
_V41 = replace(_V40, name="4.1", covers="4.1 - 4.3", first=(4, 1), last=(4, 3), tw_timer="exact")
_V44 = replace(_V41, name="4.4", covers="4.4 - 4.6", first=(4, 4), last=(4, 6), syn_queue="length >= backlog")
_V47 = replace(
    _V44, name="4.9.0", covers="4.7 - 4.9 early", first=(4, 7), last=(4, 9, 199), cookie_counted=False,
    request_ratelimit=True, tw_timer="wheel",
)  # fmt: skip
_V49 = replace(
    _V47, name="4.9.337", covers="4.9 late (measured on 4.9.337)", first=(4, 9, 200), last=(4, 9), accept_queue="always"
)
_V410 = replace(_V49, name="4.10", covers="4.10", first=(4, 10), last=(4, 10))
_V411 = replace(_V410, name="4.11", covers="4.11 (settings per network namespace)", first=(4, 11), last=(4, 11))
_V412 = replace(
    _V411, name="4.12", covers="4.12 - 4.13", first=(4, 12), last=(4, 13), tw_recycle=False, drop_without_ts=False,
    dual_stack="works",
)  # fmt: skip
_V414 = replace(_V412, name="4.14", covers="4.14 - 4.18", first=(4, 14), last=(4, 18), proven="RTT", tw_isn=False)
_V419 = replace(_V414, name="4.19", covers="4.19 - 5.3", first=(4, 19), last=(5, 3), clock="monotonic")
_V54 = replace(_V419, name="6.1", covers="5.4 - 6.6 (measured on 6.1)", first=(5, 4), last=(6, 6), somaxconn=4096)
_V67 = replace(_V54, name="6.12", covers="6.7 - 6.12", first=(6, 7), last=(6, 12), paws_forget_s=2147, tw_isn=True)
_V614 = replace(_V67, name="6.14", covers="6.13 - 6.15", first=(6, 13), last=(6, 15), syn_queue="length > backlog")
_V618 = replace(
    _V614, name="6.18", covers="6.16 and later (measured on 6.18)", first=(6, 16), last=(9999,),
    paws_tw_counter="PAWSTimewait",
)  # fmt: skip

PROFILES: tuple[Profile, ...] = (
    _V2632, _EL6, _V30, _V34, _V36, _V310, _EL71, _EL79, _V314, _V317, _V40, _V41, _V44, _V47, _V49, _V410, _V411,
    _V412, _V414, _V419, _V54, _V67, _V614, _V618,
)  # fmt: skip
"""All profiles, oldest rules first."""

FLAGS = tuple(f.name for f in fields(Profile) if "meaning" in f.metadata)


def meaning(flag: str) -> str:
    """What a profile's flag says, in words."""
    return next(str(f.metadata["meaning"]) for f in fields(Profile) if f.name == flag)


def compare(a: Profile, b: Profile) -> list[tuple[str, object, object, str]]:
    """The flags in which two profiles differ: (flag, value in *a*, value in *b*, meaning)."""
    return [(f, getattr(a, f), getattr(b, f), meaning(f)) for f in FLAGS if getattr(a, f) != getattr(b, f)]


_EL = re.compile(r"(?:^|[.\s-])el(\d+)(?:[._](\d+))?", re.IGNORECASE)
_RELEASE = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:-(\d+))?")
_EL7_MINOR_BUILDS = ((514, 3), (327, 2), (229, 1), (0, 0))


def find_profile(text: str) -> Profile:
    """The profile nearest to a version as people say it, or to the output of ``uname``.

    Args:
        text: ``3.10.108``, ``el7.9``, ``6.1``, ``3.10.0-693.11.1.el7.x86_64``, ``Linux host 4.9.337 …``.

    Raises:
        ValueError: No kernel version can be read from *text*; the message says what is accepted.
    """
    by_name = {p.name: p for p in PROFILES}
    wanted = text.strip()
    if wanted.lower() in by_name:
        return by_name[wanted.lower()]
    enterprise = _EL.search(wanted)
    if enterprise:
        return _enterprise(int(enterprise[1]), enterprise[2], _RELEASE.search(wanted))
    release = _RELEASE.search(wanted) or re.fullmatch(r"(\d+)()()()", wanted)
    if release is None:
        raise ValueError(
            f"no kernel version in {text!r}: say it like 3.10.108, el7.9, 6.1 or give the output of uname -r"
        )
    version = tuple(int(part) for part in release.groups()[:3] if part)
    return _vanilla(version)


def _enterprise(major: int, minor: str | None, release: re.Match[str] | None) -> Profile:
    by_name = {p.name: p for p in PROFILES}
    if major <= 6:
        return by_name["el6"]
    if major == 7:
        if release and release[4]:
            step = next(m for build, m in _EL7_MINOR_BUILDS if int(release[4]) >= build)
        else:
            step = int(minor) if minor else 9
        return by_name["el7.9"] if step >= 3 else by_name["el7.1"]
    return _vanilla({8: (4, 18), 9: (5, 14), 10: (6, 12)}.get(major, (6, 18)))


def _vanilla(version: tuple[int, ...]) -> Profile:
    candidates = [p for p in PROFILES if not p.distribution]
    for profile in candidates:
        top = profile.last + (9999,) * 3
        if profile.first <= version <= top[: max(3, len(version))]:
            return profile
    if version < candidates[0].first:
        return candidates[0]
    raise ValueError(f"no profile for kernel {'.'.join(map(str, version))}")

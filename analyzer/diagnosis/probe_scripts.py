"""Probe scripts for the live server: which one fits a kernel, and what it may ask of it."""

import re
from importlib.resources import files

from analyzer.errors import UsageError
from analyzer.kernel.profiles import Profile, find_profile

TOOLS = ("systemtap", "bpftrace")
DEFAULT_KERNEL = {"systemtap": "el7.9", "bpftrace": "6.1"}

_FIRST_BPF = (4, 9)
_REASONS_SINCE = {
    "NOT_SPECIFIED": (5, 17), "NO_SOCKET": (5, 17), "PKT_TOO_SMALL": (5, 17), "TCP_CSUM": (5, 17),
    "SOCKET_FILTER": (5, 17), "NETFILTER_DROP": (5, 18), "OTHERHOST": (5, 18), "IP_CSUM": (5, 18),
    "IP_INHDR": (5, 18), "IP_RPFILTER": (5, 18), "XFRM_POLICY": (5, 18), "PROTO_MEM": (5, 18),
    "TCP_MD5NOTFOUND": (5, 18), "TCP_MD5UNEXPECTED": (5, 18), "TCP_MD5FAILURE": (5, 18), "SOCKET_BACKLOG": (5, 18),
    "TCP_FLAGS": (5, 18), "TCP_RFC7323_PAWS": (5, 19), "TCP_INVALID_SEQUENCE": (5, 19), "TCP_RESET": (5, 19),
    "TCP_INVALID_SYN": (5, 19), "TCP_CLOSE": (5, 19), "TCP_MINTTL": (6, 3), "TCP_RFC7323_TW_PAWS": (6, 16),
    "TCP_LISTEN_OVERFLOW": (6, 18),
}  # fmt: skip
"""Drop reasons that a SYN may be freed with, and the kernel that has the name (include/net/dropreason-core.h)."""
_RESET_BY_SOCKADDR = (6, 10)


def script(tool: str, kernel: str | None = None) -> str:
    """The text of a probe script.

    Args:
        tool: ``systemtap`` or ``bpftrace``.
        kernel: Profile name, version or ``uname -r`` output; None for the tool's usual one.

    Raises:
        UsageError: No such tool or kernel, or the tool can show nothing on it; the message says what can.
    """
    if tool not in TOOLS:
        raise UsageError(f"--tool {tool}: say {' or '.join(TOOLS)}")
    wanted = kernel or DEFAULT_KERNEL[tool]
    try:
        profile = find_profile(wanted)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return _systemtap(profile) if tool == "systemtap" else _bpftrace(profile, _version(wanted, profile))


def _version(text: str, profile: Profile) -> tuple[int, ...]:
    """The version as typed, for a profile spans several that name their reasons differently."""
    found = re.search(r"(\d+)\.(\d+)", text)
    version = (int(found[1]), int(found[2])) if found and "el" not in text else profile.first[:2]
    return max(version, profile.first[:2])


def _systemtap(profile: Profile) -> str:
    if not profile.tw_recycle:
        raise UsageError(
            f"kernel {profile.name} has no tcp_tw_recycle, so no check to watch: use --tool bpftrace for it"
        )
    early = not profile.distribution and profile.first < (3, 6)
    name = "conn_request.stp" if early or profile.distribution == "el6" else "peer_is_proven.stp"
    return _render(name, covers=profile.covers)


def _bpftrace(profile: Profile, version: tuple[int, ...]) -> str:
    if profile.distribution or version < _FIRST_BPF:
        raise UsageError(f"kernel {profile.name} is too old for bpftrace (4.9 or later): use --tool systemtap for it")
    reasons = [name for name, since in _REASONS_SINCE.items() if since <= version]
    covers = ".".join(map(str, version)) + (" and later" if version >= (5, 17) else "")
    return _render("kfree_skb.bt", covers=covers, reasons=reasons, sockaddr=version >= _RESET_BY_SOCKADDR)


def _render(name: str, **values: object) -> str:
    from jinja2 import Environment, StrictUndefined

    text = files("analyzer.diagnosis").joinpath("scripts", f"{name}.j2").read_text(encoding="utf-8")
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return environment.from_string(text).render(values)

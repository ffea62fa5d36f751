"""Settings of the server that decide over SYNs: sysctls and the listener's backlog."""

import re
from dataclasses import dataclass, fields, replace

from analyzer.kernel.profiles import Profile

SYSCTLS = {
    "net.ipv4.tcp_tw_recycle": "tw_recycle",
    "net.ipv4.tcp_timestamps": "timestamps",
    "net.ipv4.tcp_syncookies": "syncookies",
    "net.ipv4.tcp_max_syn_backlog": "max_syn_backlog",
    "net.core.somaxconn": "somaxconn",
    "net.ipv4.tcp_abort_on_overflow": "abort_on_overflow",
    "net.ipv4.tcp_fin_timeout": "fin_timeout",
    "net.ipv4.tcp_rfc1337": "rfc1337",
    "net.ipv4.tcp_synack_retries": "synack_retries",
    "net.ipv4.tcp_invalid_ratelimit": "invalid_ratelimit_ms",
    "net.ipv4.tcp_max_tw_buckets": "max_tw_buckets",
    "listener.dual_stack": "dual_stack",
}
"""Names of the settings that the model reads; the last is no sysctl: 1 if ``ss -ltn`` shows ``*:`` or ``[::]:``."""


@dataclass(frozen=True)
class Settings:
    """One server's settings; None means not given."""

    tw_recycle: int | None = None
    timestamps: int | None = None
    syncookies: int | None = None
    max_syn_backlog: int | None = None
    somaxconn: int | None = None
    abort_on_overflow: int | None = None
    fin_timeout: int | None = None
    rfc1337: int | None = None
    synack_retries: int | None = None
    invalid_ratelimit_ms: int | None = None
    max_tw_buckets: int | None = None
    dual_stack: int | None = None
    backlog: int | None = None

    def with_defaults(self, profile: Profile) -> "Settings":
        """Fill in the kernel's defaults for what was not given; the backlog stays unknown."""
        defaults = {
            "tw_recycle": 0,
            "timestamps": 1,
            "syncookies": 1,
            "max_syn_backlog": 512,
            "somaxconn": profile.somaxconn,
            "abort_on_overflow": 0,
            "fin_timeout": 60,
            "rfc1337": 0,
            "synack_retries": 5,
            "invalid_ratelimit_ms": 500,
            "max_tw_buckets": 4096,
            "dual_stack": 0,
        }
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        filled = replace(self, **missing)
        return filled if profile.tw_recycle else replace(filled, tw_recycle=0)

    def override(self, values: dict[str, int]) -> "Settings":
        """These settings with *values* (kernel names or field names) in place of the old ones.

        Raises:
            ValueError: A name is no setting of the model.
        """
        known = {f.name for f in fields(self)}
        changes: dict[str, int] = {}
        for name, value in values.items():
            short = SYSCTLS.get(name, name.removeprefix("net.ipv4.tcp_"))
            if short not in known:
                raise ValueError(f"unknown setting {name}: known are {', '.join(SYSCTLS)}")
            changes[short] = value
        return replace(self, **changes)


_LINE = re.compile(r"^\s*([a-z0-9_.]+)\s*[=:]\s*(-?\d+)\s*$")
_KERNEL = re.compile(r"^\s*(?:kernel\s+|linux\s+\S+\s+)?(\d+\.\d+[^\s=]*)(?:\s.*)?$", re.IGNORECASE)


def parse_sysctls(text: str) -> tuple[dict[str, int], str | None]:
    """Read ``sysctl -a`` output.

    Args:
        text: Lines ``key = value``; anything else is ignored.

    Returns:
        The settings that the model knows, under their kernel names, and the text of a line
        ``kernel 4.9.337 …`` or of ``uname -r`` output, if there is one.
    """
    found: dict[str, int] = {}
    kernel: str | None = None
    for line in text.splitlines():
        setting = _LINE.match(line)
        if setting:
            if setting[1] in SYSCTLS:
                found[setting[1]] = int(setting[2])
            continue
        version = _KERNEL.match(line)
        if version and kernel is None and "=" not in line:
            kernel = line.strip()
    return found, kernel

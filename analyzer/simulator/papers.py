"""What an administrator would have beside the captures: counters, settings, probe lines, the netcat loop."""

from pathlib import Path

from analyzer.kernel.catalogue import NETSTAT_WORDS
from analyzer.kernel.events import Decision
from analyzer.kernel.settings import SYSCTLS
from analyzer.simulator.hosts import Host
from analyzer.simulator.truth import address, seconds
from analyzer.simulator.world import Chance, Packet

TCP_WORDS = {
    "PassiveOpens": "passive connection openings",
    "AttemptFails": "failed connection attempts",
    "EstabResets": "connection resets received",
    "InSegs": "segments received",
    "OutSegs": "segments sent out",
    "RetransSegs": "segments retransmitted",
    "OutRsts": "resets sent",
}
"""Counters of the Tcp section, in net-tools' order and words."""
EXT_WORDS = {
    "TW": "TCP sockets finished time wait in fast timer",
    "TWKilled": "TCP sockets finished time wait in slow timer",
}
ALWAYS = ("EmbryonicRsts", "TW", "PAWSPassive", "PAWSEstab", "ListenOverflows", "ListenDrops")
DROP_REASONS = {
    "time_wait_paws": "TCP_RFC7323_TW_PAWS",
    "time_wait_paws_rate_limited": "TCP_RFC7323_TW_PAWS",
    "accept_queue_full": "TCP_LISTEN_OVERFLOW",
    "firewall": "NETFILTER_DROP",
    "live_challenge": "TCP_INVALID_SYN",
}
"""kfree_skb reasons by the rule that refused a SYN; others are NOT_SPECIFIED."""


class Counters:
    """One server's counters since its boot: a past of its own plus what the simulation moved."""

    def __init__(self, host: Host) -> None:
        self.host = host
        chance = Chance(host.world.seed, f"counters {host.name}")
        opens = chance.between(20_000, 900_000)
        self._before = {
            "PassiveOpens": opens, "AttemptFails": opens // 300, "EstabResets": opens // 40, "InSegs": opens * 30,
            "OutSegs": opens * 29, "RetransSegs": opens // 50, "OutRsts": opens // 90, "TW": opens // 5,
            "EmbryonicRsts": opens // 900, "PAWSEstab": opens // 2_000, "ListenOverflows": 0, "ListenDrops": 0,
        }  # fmt: skip
        if host.kernel.profile.tw_recycle and host.kernel.settings.tw_recycle:
            self._before["TWKilled"] = opens // 4
            self._before["PAWSPassive"] = self._before["ListenDrops"] = opens // 70

    def text(self) -> str:
        """``netstat -s`` now."""
        moved = self.host.kernel.counters
        names = list(dict.fromkeys([*ALWAYS, *self._before, *moved]))
        values = {name: self._before.get(name, 0) + moved[name] for name in names}
        lines = ["Tcp:"]
        lines += [f"    {values.get(name, 0)} {words}" for name, words in TCP_WORDS.items()]
        lines.append("TcpExt:")
        for name in names:
            if name in TCP_WORDS or (name == "PAWSPassive" and not self.host.kernel.profile.tw_recycle):
                continue
            words = EXT_WORDS.get(name) or NETSTAT_WORDS.get(name)
            lines.append(f"    {values[name]} {words}" if words else f"    {name}: {values[name]}")
        return "\n".join(lines) + "\n"


def sysctl_text(host: Host, kernel: str) -> str:
    """``uname -r`` and the settings that matter, as ``sysctl -a`` prints them."""
    lines = [f"kernel {kernel}"]
    profile, settings = host.kernel.profile, host.kernel.settings
    for name, short in SYSCTLS.items():
        value = getattr(settings, short)
        missing = (short == "tw_recycle" and not profile.tw_recycle) or (
            short == "invalid_ratelimit_ms" and not profile.ack_ratelimit
        )
        if value is not None and not missing:
            lines.append(f"{name} = {value}")
    return "\n".join(lines) + "\n"


def probe_line(host: Host, packet: Packet, decision: Decision, time: int) -> str | None:
    """What a probe on the server prints for one SYN, or None where it sees nothing."""
    ends = (
        f"time={seconds(time)} saddr={address(packet.src)} sport={packet.sport} "
        f"daddr={address(packet.dst)} dport={packet.dport}"
    )
    if decision.proven is not None:
        tsval, stamp, now, passed = decision.proven
        mine = packet.tsval if packet.tsval >= 0 else 0
        return f"PROVEN {ends} tsval={mine} tcpm_ts={tsval} tcpm_stamp={stamp} now={now} ret={int(passed)}"
    if host.kernel.profile.tw_recycle or decision.verdict in ("accept", "cookie", "rst", ""):
        return None
    return f"DROP {ends} reason={DROP_REASONS.get(decision.rule, 'NOT_SPECIFIED')}"


def write(path: Path, text: str) -> None:
    """A small text file."""
    path.write_text(text, encoding="utf-8")

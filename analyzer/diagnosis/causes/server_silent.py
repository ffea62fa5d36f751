"""``server_silent``: reached the server, nothing came back, and no rule of its TCP explains it."""

import numpy as np

from analyzer.diagnosis.causes.base import Cause, Told, no_syn, strength
from analyzer.diagnosis.facts import LIKELY, POSSIBLE, Array, Facts


def weigh(facts: Facts) -> Array:
    """Silence at the server; only possible where the capture would not show a bare ACK."""
    level = np.where(facts.verdict("unknown") | (not facts.hears_acks), POSSIBLE, LIKELY)
    return strength(facts.silent & facts.at_server, level)


def statement(told: Told) -> str:
    """How many, and where to look."""
    text = (
        f"{told.who} reached the server's capture and nothing came back, though the kernel's TCP rules would have "
        "answered: a firewall, rp_filter, a missing route, a bad checksum, or another drop after the capture point"
    )
    if len(told.services) > 20 and len(told.peers) <= 3:
        text += f"; they went to {len(told.services):,} different ports, as in a scan"
    return text + "."


CAUSE = Cause(
    "server_silent",
    weigh,
    statement,
    "On the server look where packets end between the network card and TCP: iptables -vnL or nft list ruleset with "
    "counters, net.ipv4.conf.*.rp_filter with IPReversePathFilter, the conntrack table (conntrack -S: drop, "
    "insert_failed), ip route get to the source, InCsumErrors; on 5.17 and later the skb:kfree_skb tracepoint names "
    "the reason. No TCP setting changes it.",
    "A SYN-ACK in another capture, or a counter of the kernel's TCP that rises with these SYNs (nstat before and "
    "after: ListenDrops, ListenOverflows, TCPReqQFullDrop, PAWSPassive).",
    no_syn,
)

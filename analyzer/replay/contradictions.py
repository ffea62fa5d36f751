"""Answers that a certain prediction did not allow, by name, with what they refute."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analyzer.connections import Tracked
from analyzer.kernel.profiles import Profile
from analyzer.kernel.rules import RULE_NAMES
from analyzer.replay.doubt import REFUTED, UNANSWERED
from analyzer.replay.run import Replayed
from analyzer.schema import ANSWER_ACK, ANSWER_NONE, ANSWER_RST, ANSWER_SYN_ACK, CERTAINTIES, VERDICTS

MOST_FRAMES = 20
_CERTAIN = CERTAINTIES.index("certain")
_VERDICT = {word: number for number, word in enumerate(VERDICTS)}
_MEMORY = [RULE_NAMES.index(name) for name in ("peer_timestamp", "peer_timestamp_missing")]
_QUEUES = [RULE_NAMES.index(name) for name in ("accept_queue_full", "syn_queue_full")]


@dataclass
class Contradiction:
    """One kind of answer that certain predictions exclude.

    Attributes:
        name: Stable name of the kind.
        text: What was seen against what was predicted.
        refutes: What of the assumptions it refutes: any one of these would explain it.
        syns: How many SYNs.
        frames: Frames of the first of them.
    """

    name: str
    text: str
    refutes: tuple[str, ...]
    syns: int = 0
    frames: list[int] = field(default_factory=list)

    def add(self, syns: Any) -> None:
        """Count SYN_ROW records."""
        self.syns += len(syns)
        self.frames.extend(syns["frame"][: MOST_FRAMES - len(self.frames)].tolist())


def _lost_memory(profile: Profile) -> tuple[str, ...]:
    """What makes a server forget, or never look."""
    causes = ["the entry was evicted or flushed", "tcp_tw_recycle was 0 at the time", "the kernel is 4.12 or later"]
    if profile.dual_stack == "never checked":
        causes.append("the listener is an IPv6 one: 3.6 to 3.13 then never check IPv4 clients")
    if profile.key == "local_remote":
        causes.append("the connection that closed had another server address before a translation")
    return tuple(causes)


_BUCKET = ("the bucket had ended early", "tcp_max_tw_buckets was reached", "the kernel has other TIME-WAIT rules")
_Kind = tuple[str, str, Callable[[Profile], tuple[str, ...]], Callable[[Any, Any], Any]]
_KINDS: tuple[_Kind, ...] = (
    (
        "memory_did_not_reject",
        "behind the remembered timestamp, and answered with a SYN-ACK",
        _lost_memory,
        lambda s, v: np.isin(v["rule"], _MEMORY) & (s["answer"] == ANSWER_SYN_ACK),
    ),
    (
        "queue_had_room",
        "predicted to find a full queue, and answered with a SYN-ACK",
        lambda profile: ("the backlog or tcp_max_syn_backlog is larger than given", "tcp_syncookies was on"),
        lambda s, v: np.isin(v["rule"], _QUEUES) & (v["verdict"] == _VERDICT["drop"]) & (s["answer"] == ANSWER_SYN_ACK),
    ),
    (
        "bucket_did_not_refuse",
        "predicted to meet an old connection's state, and answered with a SYN-ACK",
        lambda profile: _BUCKET,
        lambda s, v: (v["verdict"] == _VERDICT["ack"]) & (s["answer"] == ANSWER_SYN_ACK),
    ),
    (
        "unseen_state_refused",
        "predicted to be taken, and answered with a bare ACK",
        lambda profile: ("packets of the old connection are missing from the capture", "another path to this server"),
        lambda s, v: (v["verdict"] == _VERDICT["accept"]) & (s["answer"] == ANSWER_ACK),
    ),
    (
        "nobody_listened",
        "predicted to be taken, and answered with a RST",
        lambda profile: ("nothing listened on the port at the time", "a firewall refused the SYN"),
        lambda s, v: (v["verdict"] == _VERDICT["accept"]) & (s["answer"] == ANSWER_RST),
    ),
    (
        "taken_in_silence",
        "predicted to be taken, and not answered",
        lambda profile: (
            "a drop between the capture point and TCP: firewall, rp_filter, conntrack, checksum",
            "the settings or the backlog are not as given",
            "the capture lacks packets",
        ),
        lambda s, v: (v["verdict"] == _VERDICT["accept"]) & (s["answer"] == ANSWER_NONE),
    ),
)


def contradictions(tracked: Tracked, replayed: Replayed) -> list[Contradiction]:
    """Every kind of answer that contradicts a certain verdict, the most frequent first.

    Args:
        tracked: The capture.
        replayed: Its verdicts, of which only those can be contradicted that are certain, or were but for earlier ones.
    """
    profile = replayed.hypothesis.profile
    doubted = [number for number, text in enumerate(replayed.reasons) if text in (REFUTED, UNANSWERED)]
    found = [Contradiction(name, text, refutes(profile)) for name, text, refutes, _ in _KINDS]
    for syns, verdicts in zip(tracked.syns.chunks(), replayed.verdicts.chunks(), strict=False):
        rows = syns[: len(verdicts)]
        certain = (verdicts["certainty"] == _CERTAIN) | np.isin(verdicts["reason"], doubted)
        for kind, (_, _, _, against) in zip(found, _KINDS, strict=True):
            kind.add(rows[certain & against(rows, verdicts)])
    return sorted((kind for kind in found if kind.syns), key=lambda kind: -kind.syns)

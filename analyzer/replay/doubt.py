"""Answers to earlier SYNs that a certain verdict excluded: what was assumed does not hold, so later ones are possible.

A contradiction shows that the kernel, its settings or the capture's completeness are not as assumed, and
so does silence where a SYN should have been taken.  It takes the certainty of the SYNs of the minute after it,
never of the SYN whose answer it was.
"""

from typing import Any

import numpy as np

from analyzer.connections import Tracked
from analyzer.replay.losses import AFTER
from analyzer.replay.memory import SILENCE
from analyzer.replay.run import Replayed
from analyzer.schema import ANSWER_ACK, ANSWER_NONE, ANSWER_SYN_ACK, CERTAINTIES, VERDICT, VERDICTS
from analyzer.spool import Spool

REFUTED = "an answer shortly before contradicts a certain verdict: kernel, settings or capture are not as assumed"
UNANSWERED = "earlier SYNs of this address that should have been taken got no answer"
_CERTAIN, _POSSIBLE = CERTAINTIES.index("certain"), CERTAINTIES.index("possible")
_ACCEPT, _DROP, _ACK, _RST = (VERDICTS.index(word) for word in ("accept", "drop", "ack", "rst"))

Times = np.ndarray[Any, np.dtype[np.int64]]


class _Silences:
    """SYNs without an answer by address: when each had waited long enough.

    Args:
        host: Id of each SYN's originator.
        shown: When its silence showed, ns.
    """

    def __init__(self, host: Times, shown: Times) -> None:
        self._times = np.sort(shown)
        self._step = len(shown) + 1
        keys = self._keys(host, shown)
        order = np.argsort(keys)
        self._sorted, self._host, self._shown = keys[order], host[order], shown[order]

    def _keys(self, host: Any, times: Any) -> Times:
        return np.asarray(host.astype(np.int64) * self._step + np.searchsorted(self._times, times, "left"), np.int64)

    def before(self, host: Any, times: Any) -> Any:
        """Bool per SYN: whether its address was left without an answer in the minute before."""
        if not len(self._sorted):
            return np.zeros(len(times), np.bool_)
        last = np.searchsorted(self._sorted, self._keys(host, times), "left") - 1
        found = np.maximum(last, 0)
        return (last >= 0) & (self._host[found] == host) & (self._shown[found] >= times - AFTER)


def doubt_refuted(tracked: Tracked, replayed: Replayed) -> Replayed:
    """Make certain verdicts possible where answers shortly before them contradict certain ones.

    Args:
        tracked: The capture.
        replayed: Its verdicts, changed in place.
    """
    at_server = replayed.hypothesis.vantage.at_server  # elsewhere a SYN may simply be lost on its way
    against, silent = [np.zeros(0, np.int64)], [np.zeros((0, 2), np.int64)]
    for syns, verdicts in zip(tracked.syns.chunks(), replayed.verdicts.chunks(), strict=True):
        sure, word, answer = verdicts["certainty"] == _CERTAIN, verdicts["verdict"], syns["answer"]
        wrong = np.isin(word, (_DROP, _ACK, _RST)) & (answer == ANSWER_SYN_ACK)
        wrong |= np.isin(word, (_ACCEPT, _DROP)) & (answer == ANSWER_ACK)
        against.append(syns["answer_time"][sure & wrong])
        mute = syns[sure & (word == _ACCEPT) & (answer == ANSWER_NONE) & at_server]
        silent.append(np.stack([mute["orig"].astype(np.int64), mute["time"] + SILENCE], axis=1))
    refuted, mutes = np.sort(np.concatenate(against)), np.concatenate(silent)
    if len(refuted) or len(mutes):
        _lower(tracked, replayed, refuted, _Silences(mutes[:, 0], mutes[:, 1]))
    return replayed


def _lower(tracked: Tracked, replayed: Replayed, refuted: Times, silences: _Silences) -> None:
    first = len(replayed.reasons)
    replayed.reasons.extend((REFUTED, UNANSWERED))
    lowered = Spool(VERDICT)
    for syns, verdicts in zip(tracked.syns.chunks(), replayed.verdicts.chunks(), strict=True):
        out, now = verdicts.copy(), syns["time"]
        sure = out["certainty"] == _CERTAIN
        mute = sure & (out["verdict"] == _ACCEPT) & silences.before(syns["orig"], now)
        wrong = sure & (np.searchsorted(refuted, now, "left") > np.searchsorted(refuted, now - AFTER, "left"))
        for where, reason in ((mute, first + 1), (wrong, first)):
            out["certainty"][where], out["reason"][where] = _POSSIBLE, reason
        lowered.append(out)
    replayed.verdicts = lowered

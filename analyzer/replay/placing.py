"""Verdicts that the place of the capture makes less than certain."""

from typing import Any

import numpy as np

from analyzer.replay.run import Replayed
from analyzer.schema import CERTAINTIES, VERDICT
from analyzer.spool import Spool

NOT_THE_SERVERS_NUMBERS = (
    "seen away from the server, on a leg that nothing shows to be the last: a load balancer behind it may give the SYN "
    "other numbers"
)


def doubt(replayed: Replayed, where: np.ndarray[Any, np.dtype[np.bool_]], why: str) -> None:
    """Make certain verdicts possible, in place.

    Args:
        replayed: A replay.
        where: bool, one per verdict.
        why: Reason given for them.
    """
    if not where.any():
        return
    replayed.reasons.append(why)
    reason = len(replayed.reasons) - 1
    lowered, done = Spool(VERDICT), 0
    for rows in replayed.verdicts.chunks():
        own = rows.copy()
        mine = where[done : done + len(own)] & (own["certainty"] == CERTAINTIES.index("certain"))
        own["certainty"][mine] = CERTAINTIES.index("possible")
        own["reason"][mine] = reason
        lowered.append(own)
        done += len(own)
    replayed.verdicts = lowered

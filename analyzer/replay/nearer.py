"""Where a server's own capture shows a SYN, its verdict outweighs the one made from farther away.

The load balancer's capture cannot show who else speaks to the server, nor when packets reached it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from analyzer.replay.run import Replayed
from analyzer.schema import CERTAINTIES, VERDICT
from analyzer.spool import Spool
from analyzer.units import NO_TIME

Records = np.ndarray[Any, np.dtype[np.void]]

WHY = "the server's own capture shows a state that this one does not"
_UNKNOWN = 0
_POSSIBLE = CERTAINTIES.index("possible")


def defer(replayed: Replayed, paths: Records, servers: Mapping[int, Replayed]) -> None:
    """Give verdicts of a load balancer's capture up where the server's own capture says otherwise.

    Args:
        replayed: Replay of the load balancer's capture; its verdicts are replaced.
        paths: PATH records beside its SYN rows.
        servers: Replays of the servers' captures, by index of the vantage.
    """
    said = {index: server.verdicts.to_array() for index, server in servers.items()}
    merged, done, reason = Spool(VERDICT), 0, len(replayed.reasons)
    replayed.reasons.append(WHY)
    for chunk in replayed.verdicts.chunks():
        own, where = chunk.copy(), paths[done : done + len(chunk)]
        done += len(chunk)
        for index, rows in said.items():
            mine = np.flatnonzero((where["server"] == index) & (where["server_row"] >= 0))
            near = rows[where["server_row"][mine]]
            judged = (own["verdict"][mine] != _UNKNOWN) & (near["verdict"] != _UNKNOWN)
            unlike = judged & ((own["verdict"][mine] != near["verdict"]) | (own["rule"][mine] != near["rule"]))
            doubted = judged & ~unlike & (near["certainty"] < own["certainty"][mine])
            own["certainty"][mine[doubted]] = near["certainty"][doubted]
            own["reason"][mine[doubted]] = reason
            _replace(own, mine[unlike], near[unlike], reason)
        merged.append(own)
    replayed.verdicts = merged


def _replace(own: Records, where: Any, near: Records, reason: int) -> None:
    """The compared state is left out: its frames are those of the other capture."""
    agreed = own["verdict"][where] == near["verdict"]
    own["certainty"][where] = np.minimum(near["certainty"], np.where(agreed, own["certainty"][where], _POSSIBLE))
    for name in ("verdict", "rule", "alternative"):
        own[name][where] = near[name]
    own["reason"][where] = reason
    for name in ("compared", "peer_tsval", "peer_stamp_frame", "peer_stamp_file", "tsval_delta", "stamp_age"):
        own[name][where] = 0
    own["peer_stamp_time"][where] = NO_TIME

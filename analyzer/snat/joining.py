"""What several captures tell together: legs paired, journeys followed, clocks aligned."""

from collections.abc import Sequence

from analyzer.snat.evidence import gather
from analyzer.snat.journeys import flow_table, layer4_pairs, path_tables
from analyzer.snat.model import Joined, Seen
from analyzer.snat.pairing import pair


def join(seen: Sequence[Seen]) -> Joined:
    """Join the captures of one incident.

    Args:
        seen: Captures with their vantages; ``lb`` ones may hold one leg or both, servers any number.

    Returns:
        Flows and, for every capture, a PATH row beside each SYN row.  A capture that shares nothing with
        the others has paths that name only its own place.
    """
    points = gather(seen)
    if not len(points.rows):
        return Joined()
    links = pair(points, seen)
    pairs, flow = layer4_pairs(points, links)
    return Joined(flow_table(points, seen, pairs), path_tables(points, seen, links, flow))

"""What several captures tell together: legs paired, journeys followed, clocks aligned."""

from collections.abc import Sequence

from analyzer.snat.alignment import align
from analyzer.snat.alone import is_alone, lone_paths
from analyzer.snat.clocks import clocks_of
from analyzer.snat.evidence import gather
from analyzer.snat.in_band import in_band_pairs
from analyzer.snat.journeys import flow_table, layer4_pairs, path_tables
from analyzer.snat.layer7 import proxied_pairs, take_in
from analyzer.snat.model import Joined, Seen
from analyzer.snat.pairing import pair


def join(seen: Sequence[Seen]) -> Joined:
    """Join the captures of one incident.

    Args:
        seen: Captures with their vantages; ``lb`` ones may hold one leg or both, servers any number.

    Returns:
        Flows and, for every capture, a PATH row beside each SYN row.  A capture that shares nothing with
        the others has paths that name only its own place.  Also the captures' clocks against each other and
        the hosts' clocks in each.
    """
    joined = _legs(seen)
    joined.offsets = align(seen)
    joined.notes += [("clocks", note) for offset in joined.offsets for note in offset.notes]
    joined.clocks = clocks_of(seen)
    return joined


def _legs(seen: Sequence[Seen]) -> Joined:
    """Flows and paths."""
    if is_alone(seen):
        return Joined(paths={seen[0].name: lone_paths(seen[0])}) if len(seen[0].tracked.syns) else Joined()
    points = gather(seen)
    if not len(points.rows):
        return Joined()
    links = pair(points, seen)
    told = in_band_pairs(points, seen, links)
    proxied, alone = proxied_pairs(points, seen, links, told)
    pairs, flow = layer4_pairs(points, links)
    own = told + proxied
    if len(own.client):
        take_in(points, links, own, flow, len(pairs.client))
        pairs += own
    joined = Joined(flow_table(points, seen, pairs), path_tables(points, seen, links, flow))
    if alone:
        text = (
            f"{alone:,} connections of the load balancer's client side have no partner on its server side that their "
            "payload would prove: they carried none, or several fit as well. They are left out of snat_flows."
        )
        joined.notes.append(("pairing", text))
    return joined

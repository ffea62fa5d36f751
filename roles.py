"""Which SYNs at a load balancer arrive from clients, and which leave for servers."""

import numpy as np
from numpy.typing import NDArray

from analyzer.schema import META_RECEIVED, META_SENT
from analyzer.snat.matching import Window, candidates
from analyzer.snat.pools import EARLY_SAME_CLOCK, Pool, exact_key, isn_key
from analyzer.snat.views import Ints, Keys
from analyzer.units import NS

Flags = NDArray[np.bool_]


def downstream(pool: Pool, at_server: Flags, digest: Keys) -> Flags:
    """Tell which SYN rows go to servers; all others come from clients.

    What is decided is the service (address and port) that a SYN goes to, by votes: the same SYN seen earlier
    towards another service; that service seen at a server; the direction that a cooked capture records; the
    same payload seen earlier towards another service.

    Args:
        pool: SYNs at the load balancer.
        at_server: Whether a server's capture has the same four numbers and ISN.
        digest: Digest of the connection's first payload per row, 0 if none.

    Returns:
        bool per row.
    """
    services, service = np.unique(pool.service(), return_inverse=True)
    vote = np.zeros(len(services))
    _forwarding_votes(vote, pool, service, exact_key(pool), 60 * NS)
    if not vote.any():
        _forwarding_votes(vote, pool, service, isn_key(pool), 60 * NS)
    seen = np.zeros(len(services))
    np.add.at(seen, service, np.where(at_server, 1.0, 0.0))
    undecided = vote == 0
    if (seen == 0).any():
        vote[undecided & (seen > 0)] = 1.0
    sent = ((pool.rows["meta"] & META_SENT) != 0) * 1.0 - ((pool.rows["meta"] & META_RECEIVED) != 0) * 1.0
    direction = np.zeros(len(services))
    np.add.at(direction, service, sent)
    undecided = vote == 0
    vote[undecided] = direction[undecided]
    if not (vote > 0).any() and digest.any():
        told = np.flatnonzero(digest)
        _forwarding_votes(vote, pool.part(told), service[told], digest[told], 5 * NS)
    return np.asarray(vote[service] > 0)


def _forwarding_votes(vote: NDArray[np.float64], pool: Pool, service: Ints, key: Keys, latest: int) -> None:
    """One vote per pair of rows of equal key and different four numbers: the later one's service is downstream."""
    up, down = candidates((key, key), (pool.time, pool.time), Window(-EARLY_SAME_CLOCK, latest), nearest=4)
    forwarded = (pool.four[up] != pool.four[down]) & (service[up] != service[down]) & (up != down)
    up, down = up[forwarded], down[forwarded]
    later = np.sign(pool.time[down] - pool.time[up])
    # a router also takes one from the TTL, which no clock can contradict
    hops = np.sign(pool.rows["ttl"][up].astype(np.int64) - pool.rows["ttl"][down])
    weight = later + np.where(np.abs(hops) == 1, 0.5 * hops, 0.0)
    np.add.at(vote, service[down], weight)
    np.add.at(vote, service[up], -weight)

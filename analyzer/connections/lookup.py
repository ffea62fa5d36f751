"""Finding a packet's four-tuple and its hosts: open addressing, compiled."""

import numpy as np
from numba import njit

EMPTY = -1
DEAD = -2

_MIX1 = np.uint64(0x9E3779B97F4A7C15)
_MIX2 = np.uint64(0xBF58476D1CE4E5B9)


@njit(cache=True, inline="always")
def _mix(value):
    value ^= value >> np.uint64(31)
    value *= _MIX2
    return value ^ (value >> np.uint64(29))


@njit(cache=True, inline="always")
def hash_tuple(a_hi, a_lo, a_p, b_hi, b_lo, b_p):
    """Mix of the canonical four numbers."""
    value = (a_lo * _MIX1) ^ (b_lo + (np.uint64(a_p) << np.uint64(48)) + (np.uint64(b_p) << np.uint64(16)))
    value = _mix(value)
    return _mix(value ^ a_hi ^ (b_hi * _MIX1))


@njit(cache=True, inline="always")
def source_is_a(p):
    """Whether the packet's source is the smaller side."""
    if p.src_hi != p.dst_hi:
        return p.src_hi < p.dst_hi
    if p.src_lo != p.dst_lo:
        return p.src_lo < p.dst_lo
    return p.sport <= p.dport


@njit(cache=True)
def find(table, slots, p, a_is_source):
    """Position in *table* of the packet's four numbers, or where they belong: (position, slot or -1)."""
    if a_is_source:
        a_hi, a_lo, a_p, b_hi, b_lo, b_p = p.src_hi, p.src_lo, p.sport, p.dst_hi, p.dst_lo, p.dport
    else:
        a_hi, a_lo, a_p, b_hi, b_lo, b_p = p.dst_hi, p.dst_lo, p.dport, p.src_hi, p.src_lo, p.sport
    mask = table.shape[0] - 1
    at = np.int64(hash_tuple(a_hi, a_lo, a_p, b_hi, b_lo, b_p) & np.uint64(mask))
    free = -1
    while True:
        slot = table[at]
        if slot == EMPTY:
            return (free if free >= 0 else at), -1
        if slot == DEAD:
            if free < 0:
                free = at
        else:
            s = slots[slot]
            if (
                s.a_lo == a_lo
                and s.b_lo == b_lo
                and s.a_p == a_p
                and s.b_p == b_p
                and s.a_hi == a_hi
                and s.b_hi == b_hi
            ):
                return at, slot
        at = (at + 1) & mask


@njit(cache=True)
def find_slot(table, slots, slot):
    """Position in *table* of the four numbers of *slot*."""
    s = slots[slot]
    mask = table.shape[0] - 1
    at = np.int64(hash_tuple(s.a_hi, s.a_lo, s.a_p, s.b_hi, s.b_lo, s.b_p) & np.uint64(mask))
    while table[at] != slot:
        if table[at] == EMPTY:
            return -1
        at = (at + 1) & mask
    return at


@njit(cache=True)
def rebuild(table, slots):
    """Fill an empty *table* from the slots that are newest on their four numbers."""
    mask = table.shape[0] - 1
    for slot in range(slots.shape[0]):
        s = slots[slot]
        if s.used != 1:
            continue
        at = np.int64(hash_tuple(s.a_hi, s.a_lo, s.a_p, s.b_hi, s.b_lo, s.b_p) & np.uint64(mask))
        while table[at] != EMPTY:
            at = (at + 1) & mask
        table[at] = slot


@njit(cache=True)
def intern_host(hosts, host_table, count, hi, lo, v6):
    """Host id of an address; a new one is appended at *count*. Returns (id, new count)."""
    mask = host_table.shape[0] - 1
    at = np.int64(_mix(lo * _MIX1 ^ hi) & np.uint64(mask))
    while True:
        host = host_table[at]
        if host == EMPTY:
            hosts[count].hi, hosts[count].lo, hosts[count].v6 = hi, lo, v6
            host_table[at] = count
            return count, count + 1
        if hosts[host].lo == lo and hosts[host].hi == hi and hosts[host].v6 == v6:
            return host, count
        at = (at + 1) & mask


@njit(cache=True)
def rebuild_hosts(host_table, hosts, count):
    """Fill an empty host table from the first *count* hosts."""
    mask = host_table.shape[0] - 1
    for host in range(count):
        at = np.int64(_mix(hosts[host].lo * _MIX1 ^ hosts[host].hi) & np.uint64(mask))
        while host_table[at] != EMPTY:
            at = (at + 1) & mask
        host_table[at] = host

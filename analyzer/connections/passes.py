"""The compiled pass over a block of packets: find the incarnation, follow it, tell what matters."""

import numpy as np
from numba import njit

from analyzer.connections.lookup import DEAD, find, find_slot, intern_host, source_is_a
from analyzer.connections.record import L_FLIP, conn_state, d32, from_orig, from_resp, letter, syn, syn_ack, timestamps
from analyzer.connections.state import (
    BLOCK_DONE,
    CHAINS,
    CONNS,
    DONE_FILL,
    EARLY_EVENTS,
    EVENT_FILL,
    FREE_HEAD,
    HOSTS,
    LATE_EVENTS,
    NEED_CHAINS,
    NEED_DONE,
    NEED_EVENTS,
    NEED_HOSTS,
    NEED_SLOTS,
    NEED_SYNS,
    NEXT_PACKET,
    NOW,
    SYN_BASE,
    SYN_FILL,
    TABLE_DEAD,
    USED_SLOTS,
)
from analyzer.schema import (
    ACK,
    ACKS_UNSEEN,
    ANSWER_ACK,
    ANSWER_ICMP,
    ANSWER_NONE,
    ANSWER_RST,
    ANSWER_SYN_ACK,
    FIN,
    KIND_ICMP,
    META_V6,
    RST,
    SEEN_FIN_ORIG_ACKED,
    SEEN_FIN_RESP,
    SEEN_FIN_RESP_ACKED,
    SEEN_MIDSTREAM,
    SEEN_RST_ORIG,
    SEEN_RST_RESP,
    SEEN_SYN,
    SEEN_SYN_ACK,
    SEEN_TFO,
    SYN,
)
from analyzer.units import NO_TIME

NEAR = 1 << 22
"""Sequence numbers this close speak of the same connection."""


@njit(cache=True)
def _open(p, is_a, orig_is_source, table, at, older, slots, conns, hosts, host_table, chain_syns, state):
    """Start an incarnation with packet *p*; returns its slot."""
    slot = state[FREE_HEAD]
    s = slots[slot]
    c = conns[slot]
    state[FREE_HEAD] = s.next_free
    state[USED_SLOTS] += 1
    s.used = 1
    s.closed = s.syn_open = s.ts_off = s.sampling = s.responder_spoke = s.responder_data = 0
    s.orig_known = s.resp_known = s.wup_known = s.letters = 0
    s.early_events = s.late_events = 0
    s.acks_unseen = s.holed_orig = s.holed_resp = s.unseen_orig = s.unseen_resp = 0
    s.told = s.rcv_wnd = s.rcv_wup = s.ts_recent = 0
    s.newest_syn = -1
    s.ts_recent_time = NO_TIME
    s.older = older
    if is_a:
        s.a_hi, s.a_lo, s.a_p, s.b_hi, s.b_lo, s.b_p = p.src_hi, p.src_lo, p.sport, p.dst_hi, p.dst_lo, p.dport
    else:
        s.a_hi, s.a_lo, s.a_p, s.b_hi, s.b_lo, s.b_p = p.dst_hi, p.dst_lo, p.dport, p.src_hi, p.src_lo, p.sport
    s.orig_is_a = 1 if is_a == orig_is_source else 0
    v6 = 1 if p.meta & META_V6 else 0
    source, state[HOSTS] = intern_host(hosts, host_table, state[HOSTS], p.src_hi, p.src_lo, v6)
    target, state[HOSTS] = intern_host(hosts, host_table, state[HOSTS], p.dst_hi, p.dst_lo, v6)
    c.conn = state[CONNS]
    state[CONNS] += 1
    if older >= 0:
        c.chain = conns[older].chain
        c.previous = conns[older].conn
        c.previous_end = conns[older].end
        slots[older].used = 2
    else:
        c.chain = state[CHAINS]
        chain_syns[state[CHAINS]] = 0
        state[CHAINS] += 1
        c.previous = -1
        c.previous_end = NO_TIME
        if table[at] == DEAD:
            state[TABLE_DEAD] -= 1
    table[at] = slot
    if orig_is_source:
        c.orig, c.orig_p, c.resp, c.resp_p = source, p.sport, target, p.dport
    else:
        c.orig, c.orig_p, c.resp, c.resp_p = target, p.dport, source, p.sport
    _blank(c, p)
    return slot


@njit(cache=True)
def _blank(c, p):
    """Everything of a record that starts empty."""
    c.start = c.end = p.time
    c.start_frame = c.end_frame = p.frame
    c.letters0 = c.letters1 = c.letters2 = 0
    c.seen = c.state = c.closer = 0
    c.isn_orig = c.isn_resp = c.syn_count = c.syn_ack_count = 0
    c.syn_time = c.syn_ack_time = c.established_time = NO_TIME
    c.first_data_orig = c.first_data_resp = NO_TIME
    c.fin_orig_time = c.fin_resp_time = c.fin_orig_acked = c.fin_resp_acked = c.rst_time = NO_TIME
    c.syn_ack_frame = c.established_frame = c.fin_orig_frame = c.fin_resp_frame = 0
    c.fin_orig_acked_frame = c.fin_resp_acked_frame = c.rst_frame = 0
    c.first_tsval_orig = c.last_tsval_orig = c.first_tsecr_orig = c.last_tsecr_orig = 0
    c.first_tsval_resp = c.last_tsval_resp = c.first_tsecr_resp = c.last_tsecr_resp = 0
    c.packets_orig = c.packets_resp = c.bytes_orig = c.bytes_resp = 0
    c.rtt_min = c.rtt_max = 0
    c.digest_orig = c.digest_resp = 0
    c.mss_orig = c.mss_resp = c.sack_orig = c.sack_resp = c.opts_orig = 0
    c.wscale_orig = c.wscale_resp = 255
    c.file, c.interface, c.vlan, c.meta = p.file, p.interface, p.vlan, p.meta


@njit(cache=True)
def finish(slot, slots, conns, done, state):
    """Hand a slot's record over and free the slot; its place in the table is the caller's business."""
    c = conns[slot]
    c.state = conn_state(c.seen)
    done[state[DONE_FILL]] = c
    state[DONE_FILL] += 1
    slots[slot].used = 0
    slots[slot].next_free = state[FREE_HEAD]
    state[FREE_HEAD] = slot
    state[USED_SLOTS] -= 1


@njit(cache=True)
def _event(p, c, s, responder, events, state):
    e = events[state[EVENT_FILL]]
    state[EVENT_FILL] += 1
    e.time, e.frame, e.file = p.time, p.frame, p.file
    e.conn, e.chain = c.conn, c.chain
    e.seq, e.ack, e.tsval, e.tsecr, e.length = p.seq, p.ack, p.tsval, p.tsecr, p.length
    e.ts_recent_time = s.ts_recent_time
    e.ts_recent = s.ts_recent if s.ts_recent_time != NO_TIME else 0
    e.rcv_wup, e.rcv_wnd = s.rcv_wup, s.rcv_wnd
    e.rtt_min, e.rtt_max = c.rtt_min, c.rtt_max
    e["flags"], e.opts, e.ipid, e.seen, e.kind = p["flags"], p.opts, p.ipid, c.seen, p.kind
    if s.acks_unseen:
        e.opts |= ACKS_UNSEEN
        s.acks_unseen = 0
    e.resp = 1 if responder else 0


@njit(cache=True)
def _syn_row(p, c, s, syns, chain_syns, state):
    row = syns[state[SYN_FILL]]
    s.newest_syn = state[SYN_BASE] + state[SYN_FILL]
    s.syn_open = 1
    state[SYN_FILL] += 1
    chain_syns[c.chain] += 1
    row.time, row.frame, row.file, row.interface = p.time, p.frame, p.file, p.interface
    row.answer_time, row.answer_frame, row.answer, row.icmp = NO_TIME, 0, ANSWER_NONE, 0
    row.conn, row.chain = c.conn, c.chain
    row.orig, row.resp, row.orig_p, row.resp_p = c.orig, c.resp, c.orig_p, c.resp_p
    row.isn, row.tsval, row.attempt = p.seq, p.tsval, c.syn_count
    row.opts, row.mss, row.wscale = p.opts, p.mss, p.wscale
    row.ipid, row.window, row.ttl, row.meta = p.ipid, p.window, p.ttl, p.meta


@njit(cache=True)
def _answer(p, s, kind, syns, state):
    """Credit an answer to the incarnation's latest SYN, if that has none."""
    if not s.syn_open:
        return
    s.syn_open = 0
    index = s.newest_syn - state[SYN_BASE]
    if index < 0:
        return
    row = syns[index]
    row.answer, row.answer_time, row.answer_frame = kind, p.time, p.frame
    if kind == ANSWER_ICMP:
        row.icmp = p["flags"]


@njit(cache=True, inline="always")
def _speaks_of_older(c, s, slots, conns, p, responder):
    """Whether a packet on an unanswered attempt is plainly the previous incarnation's."""
    if s.older < 0 or not c.seen & SEEN_SYN or c.seen & SEEN_SYN_ACK or p["flags"] & (SYN | RST):
        return False
    o = slots[s.older]
    first = np.int64(c.isn_orig) + 1
    if responder:
        if np.int64(p.ack) == first & 0xFFFFFFFF or not o.resp_known:
            return False
        return (p.length > 0 or p["flags"] & FIN != 0) and abs(d32(np.int64(p.seq), np.int64(o.resp_next))) < NEAR
    if not o.orig_known or abs(d32(np.int64(p.seq), first)) < 2:
        return False
    return abs(d32(np.int64(p.seq), np.int64(o.orig_next))) < abs(d32(np.int64(p.seq), first))


@njit(cache=True)
def _worth_telling(c, s, p, responder, before):
    """Whether the server's kernel may decide something by this packet (see ``schema.EVENT``)."""
    if p["flags"] & (SYN | RST | FIN) or s.acks_unseen:
        return True
    if before & SEEN_FIN_RESP:
        if s.late_events >= LATE_EVENTS:
            return False
        s.late_events += 1
        return True
    if not responder:
        if c.seen & SEEN_SYN and not s.responder_spoke and s.early_events < EARLY_EVENTS:
            s.early_events += 1
            return True
        if before & (SEEN_RST_ORIG | SEEN_RST_RESP) and s.late_events < LATE_EVENTS:
            s.late_events += 1
            return True
        return c.packets_orig == 1 and c.seen & SEEN_MIDSTREAM != 0
    if not s.responder_spoke:
        s.responder_spoke = 1
        s.responder_data = 1 if p.length else 0
        return True
    if p.length and not s.responder_data:
        s.responder_data = 1
        return True
    return before & SEEN_FIN_ORIG_ACKED != c.seen & SEEN_FIN_ORIG_ACKED


@njit(cache=True, nogil=True)
def track_block(packets, table, slots, conns, hosts, host_table, chain_syns, syns, events, done, state):
    """Follow packets from state[NEXT_PACKET] on; returns why it stopped."""
    index = state[NEXT_PACKET]
    while index < packets.shape[0]:
        if state[FREE_HEAD] < 0:
            state[NEXT_PACKET] = index
            return NEED_SLOTS
        if state[SYN_FILL] >= syns.shape[0]:
            state[NEXT_PACKET] = index
            return NEED_SYNS
        if state[EVENT_FILL] >= events.shape[0]:
            state[NEXT_PACKET] = index
            return NEED_EVENTS
        if state[DONE_FILL] + 2 > done.shape[0]:
            state[NEXT_PACKET] = index
            return NEED_DONE
        if state[HOSTS] + 2 > hosts.shape[0]:
            state[NEXT_PACKET] = index
            return NEED_HOSTS
        if state[CHAINS] >= chain_syns.shape[0]:
            state[NEXT_PACKET] = index
            return NEED_CHAINS
        p = packets[index]
        index += 1
        state[NOW] = max(state[NOW], p.time)
        is_a = source_is_a(p)
        at, slot = find(table, slots, p, is_a)
        if p.kind == KIND_ICMP:
            if slot >= 0 and conns[slot].isn_orig == p.seq and conns[slot].seen & SEEN_SYN:
                _answer(p, slots[slot], ANSWER_ICMP, syns, state)
                _event(p, conns[slot], slots[slot], True, events, state)
            continue
        flags = p["flags"]
        bare_syn = flags & SYN and not flags & (ACK | RST)
        if slot < 0:
            if bare_syn:
                from_source = True
            elif flags & SYN:
                from_source = False
            else:
                from_source = p.sport >= p.dport
            slot = _open(p, is_a, from_source, table, at, -1, slots, conns, hosts, host_table, chain_syns, state)
            if not bare_syn:
                conns[slot].seen |= SEEN_MIDSTREAM
                if not from_source:
                    letter(conns[slot], slots[slot], L_FLIP, False)
        elif bare_syn:
            c = conns[slot]
            same = c.seen & (SEEN_SYN | SEEN_SYN_ACK) and c.isn_orig == p.seq and (slots[slot].orig_is_a == 1) == is_a
            if not same:
                older = slots[slot].older
                if older >= 0:
                    finish(older, slots, conns, done, state)
                    slots[slot].older = -1
                if state[FREE_HEAD] < 0:
                    state[NEXT_PACKET] = index - 1
                    return NEED_SLOTS
                slot = _open(p, is_a, True, table, at, slot, slots, conns, hosts, host_table, chain_syns, state)
        s = slots[slot]
        responder = (s.orig_is_a == 1) != is_a
        if not bare_syn and _speaks_of_older(conns[slot], s, slots, conns, p, responder):
            slot = s.older
            s = slots[slot]
            responder = (s.orig_is_a == 1) != is_a
        c = conns[slot]
        c.end, c.end_frame = p.time, p.frame
        before = c.seen
        if bare_syn:
            c.packets_orig += 1
            c.bytes_orig += np.uint64(p.length)
            syn(c, s, p)
            letter(c, s, 0, False)
            s.orig_next, s.orig_known = (np.int64(p.seq) + 1 + np.int64(p.length)) & 0xFFFFFFFF, 1
            timestamps(c, s, p, False)
            _syn_row(p, c, s, syns, chain_syns, state)
            _event(p, c, s, False, events, state)
            continue
        if responder:
            older_speaks = s.older >= 0 and slots[s.older].resp_known == 1 and p.seq == slots[s.older].resp_next
            _from_responder(p, c, s, older_speaks, syns, events, state)
        else:
            from_orig(c, s, p)
            timestamps(c, s, p, False)
            if _worth_telling(c, s, p, False, before):
                _event(p, c, s, False, events, state)
        if c.seen & (SEEN_RST_ORIG | SEEN_RST_RESP) or (c.seen & SEEN_FIN_RESP_ACKED and c.seen & SEEN_FIN_ORIG_ACKED):
            s.closed = 1
    state[NEXT_PACKET] = index
    return BLOCK_DONE


@njit(cache=True)
def _from_responder(p, c, s, older_speaks, syns, events, state):
    """A responder's packet: an answer to a SYN, or part of the connection."""
    flags = p["flags"]
    before = c.seen
    ours = not c.seen & SEEN_SYN or np.int64(p.ack) == (np.int64(c.isn_orig) + 1) & 0xFFFFFFFF
    if flags & SYN and flags & ACK:
        with_data = c.seen & SEEN_TFO and 0 < d32(np.int64(p.ack), np.int64(c.isn_orig)) <= 1 + s.syn_length
        if ours or with_data:
            from_resp(c, s, p)
            timestamps(c, s, p, True)
            syn_ack(c, s, p)
            _answer(p, s, ANSWER_SYN_ACK, syns, state)
        else:  # answers another SYN, not one of this incarnation
            c.packets_resp += 1
            c.bytes_resp += np.uint64(p.length)
            c.syn_ack_count += 1 if c.syn_ack_count < 65535 else 0
        return
    waiting = c.seen & SEEN_SYN and not c.seen & SEEN_SYN_ACK
    if flags & RST:
        if waiting:
            _answer(p, s, ANSWER_RST, syns, state)
        from_resp(c, s, p)
        _event(p, c, s, True, events, state)
        return
    if waiting and (older_speaks or not ours) and s.syn_open and p.length == 0 and not flags & FIN:
        c.packets_resp += 1
        letter(c, s, 2, True)
        _answer(p, s, ANSWER_ACK, syns, state)
        _event(p, c, s, True, events, state)
        return
    from_resp(c, s, p)
    timestamps(c, s, p, True)
    if _worth_telling(c, s, p, True, before):
        _event(p, c, s, True, events, state)


@njit(cache=True)
def sweep(table, slots, conns, done, state, closed_before, idle_before, everything):
    """Hand over incarnations that nothing will speak of any more; False if *done* is full."""
    for slot in range(slots.shape[0]):
        s = slots[slot]
        if s.used != 1:
            continue
        end = conns[slot].end
        if not everything and not (end < idle_before or (s.closed and end < closed_before)):
            continue
        if state[DONE_FILL] + 2 > done.shape[0]:
            return False
        if s.older >= 0:
            finish(s.older, slots, conns, done, state)
            s.older = -1
        at = find_slot(table, slots, slot)
        if at >= 0:
            table[at] = DEAD
            state[TABLE_DEAD] += 1
        finish(slot, slots, conns, done, state)
    return True

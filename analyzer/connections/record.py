"""What one packet changes in its incarnation's record, compiled: handshake, closing, timestamps.

``c`` is the CONNECTION row of the incarnation, ``s`` its SLOT, ``p`` the packet.
"""

import numpy as np
from numba import njit

from analyzer import seqnum
from analyzer.schema import (
    ACK,
    CLOSER_BOTH,
    CLOSER_NONE,
    CLOSER_ORIG,
    CLOSER_RESP,
    CLOSER_RST,
    FIN,
    OPT_MSS,
    OPT_SACK_OK,
    OPT_TS,
    OPT_TS_CUT,
    OPT_WSCALE,
    RST,
    SEEN_ESTABLISHED,
    SEEN_FIN_ORIG,
    SEEN_FIN_ORIG_ACKED,
    SEEN_FIN_RESP,
    SEEN_FIN_RESP_ACKED,
    SEEN_GAP_ORIG,
    SEEN_GAP_RESP,
    SEEN_RST_ORIG,
    SEEN_RST_RESP,
    SEEN_SYN,
    SEEN_SYN_ACK,
    SEEN_TFO,
    SEEN_TS_AGREED,
    SEEN_TS_ORIG,
    SEEN_TS_RESP,
    SYN,
)
from analyzer.units import NO_TIME

d32 = njit(cache=True, inline="always")(seqnum.d32)
HISTORY_ROOM = 24
(L_SYN, L_SYN_ACK, L_ACK, L_DATA, L_FIN, L_RST, L_REPEAT, L_GAP, L_ZERO, L_FLIP) = range(10)
LETTERS = np.frombuffer(b"shadfrtgw^", np.uint8).copy()


@njit(cache=True)
def letter(c, s, which, responder):
    """Add a history letter once per direction; capitals are the originator's, as in Zeek."""
    bit = np.uint32(1) << np.uint32(which + (16 if responder else 0))
    if s.told & bit or s.letters >= HISTORY_ROOM:
        return
    s.told |= bit
    code = np.uint64(LETTERS[which])
    if not responder and which != L_FLIP:
        code -= np.uint64(32)
    shift = np.uint64(8 * (s.letters % 8))
    if s.letters < 8:
        c.letters0 |= code << shift
    elif s.letters < 16:
        c.letters1 |= code << shift
    else:
        c.letters2 |= code << shift
    s.letters += 1


@njit(cache=True)
def history(c, s, p, responder, repeated, gap):
    """Letters of one packet."""
    flags = p["flags"]
    plain = L_DATA if p.length > 0 else L_ACK
    if (
        s.told >> np.uint32(plain + (16 if responder else 0)) & np.uint32(1)
        and not gap and not repeated and flags & (SYN | FIN | RST) == 0 and p.window
    ):  # fmt: skip
        return
    if flags & SYN:
        letter(c, s, L_SYN_ACK if flags & ACK else L_SYN, responder)
    if gap:
        letter(c, s, L_GAP, responder)
    if p.length > 0:
        letter(c, s, L_REPEAT if repeated else L_DATA, responder)
    elif flags & (SYN | FIN | RST) == 0 and flags & ACK:
        letter(c, s, L_ACK, responder)
    if p.window == 0 and not flags & (SYN | RST | FIN):
        letter(c, s, L_ZERO, responder)
    if flags & FIN:
        letter(c, s, L_FIN, responder)
    if flags & RST:
        letter(c, s, L_RST, responder)


@njit(cache=True)
def syn(c, s, p):
    """A SYN of the incarnation's originator; the first one fills the record."""
    if c.syn_count < 65535:
        c.syn_count += 1
    if c.seen & SEEN_SYN:
        return
    c.seen |= SEEN_SYN
    c.isn_orig = p.seq
    c.syn_time = p.time
    c.opts_orig = p.opts
    c.mss_orig = p.mss if p.opts & OPT_MSS else 0
    c.wscale_orig = p.wscale if p.opts & OPT_WSCALE else 255
    c.sack_orig = 1 if p.opts & OPT_SACK_OK else 0
    s.syn_length = min(p.length, 65535)
    if p.length:
        c.seen |= SEEN_TFO
    s.rcv_wup = p.seq + 1
    s.wup_known = 1
    if p.opts & OPT_TS:
        s.ts_recent = p.tsval
        s.ts_recent_time = p.time


@njit(cache=True)
def syn_ack(c, s, p):
    """A SYN-ACK of the responder."""
    if c.syn_ack_count < 65535:
        c.syn_ack_count += 1
    if c.seen & SEEN_SYN_ACK and c.isn_resp == p.seq:
        return
    if c.seen & SEEN_SYN_ACK and c.seen & SEEN_ESTABLISHED:
        return
    if not c.seen & SEEN_SYN:
        c.isn_orig = p.ack - 1  # so that a SYN captured out of order finds its incarnation
    c.seen |= SEEN_SYN_ACK
    c.isn_resp = p.seq
    c.syn_ack_time = p.time
    c.syn_ack_frame = p.frame
    c.mss_resp = p.mss if p.opts & OPT_MSS else 0
    c.wscale_resp = p.wscale if p.opts & OPT_WSCALE else 255
    c.sack_resp = 1 if p.opts & OPT_SACK_OK else 0
    if p.opts & OPT_TS:
        if c.opts_orig & OPT_TS:
            c.seen |= SEEN_TS_AGREED
    elif c.seen & SEEN_SYN:
        s.ts_off = 1
        s.ts_recent_time = NO_TIME


@njit(cache=True)
def timestamps(c, s, p, responder):
    """First and last TSval and TSecr of each side, and ts_recent as the responder keeps it (RFC 7323 section 4.3)."""
    if not p.opts & OPT_TS:
        return
    echoed = p["flags"] & ACK and not p.opts & OPT_TS_CUT
    if responder:
        if not c.seen & SEEN_TS_RESP:
            c.seen |= SEEN_TS_RESP
            c.first_tsval_resp = p.tsval
            c.first_tsecr_resp = p.tsecr
        c.last_tsval_resp = p.tsval
        c.last_tsecr_resp = p.tsecr
        return
    if not c.seen & SEEN_TS_ORIG:
        c.seen |= SEEN_TS_ORIG
        c.first_tsval_orig = p.tsval
    c.last_tsval_orig = p.tsval
    if echoed:
        if c.first_tsecr_orig == 0:
            c.first_tsecr_orig = p.tsecr
        c.last_tsecr_orig = p.tsecr
    if p["flags"] & (SYN | RST) or s.ts_off:
        return
    if s.wup_known and d32(np.int64(p.seq), np.int64(s.rcv_wup)) > 0:
        return
    if s.ts_recent_time == NO_TIME or d32(np.int64(p.tsval), np.int64(s.ts_recent)) >= 0:
        s.ts_recent = p.tsval
        s.ts_recent_time = p.time


@njit(cache=True)
def from_orig(c, s, p):
    """A packet of the originator that is no SYN."""
    c.packets_orig += 1
    c.bytes_orig += np.uint64(p.length)
    flags = p["flags"]
    end = (np.int64(p.seq) + np.int64(p.length) + (1 if flags & FIN else 0)) & 0xFFFFFFFF
    repeated = gap = False
    if flags & RST == 0:
        if s.orig_known:
            ahead = d32(np.int64(p.seq), np.int64(s.orig_next))
            gap = ahead > 0
            repeated = p.length > 0 and d32(end, np.int64(s.orig_next)) <= 0
            if gap:
                c.seen |= SEEN_GAP_ORIG
                if not s.holed_orig:
                    s.holed_orig, s.hole_orig, s.hole_orig_end = 1, s.orig_next, p.seq
            elif s.holed_orig and d32(np.int64(p.seq), np.int64(s.hole_orig)) <= 0 < d32(end, np.int64(s.hole_orig)):
                s.holed_orig = 0
        if not s.orig_known or d32(end, np.int64(s.orig_next)) > 0:
            s.orig_next = end
            s.orig_known = 1
    if flags & ACK and flags & RST == 0:
        ack = np.int64(p.ack)
        if c.seen & SEEN_SYN_ACK and not c.seen & SEEN_ESTABLISHED and d32(ack, np.int64(c.isn_resp)) >= 1:
            c.seen |= SEEN_ESTABLISHED
            c.established_time = p.time
            c.established_frame = p.frame
        if s.sampling and d32(ack, np.int64(s.sample_end)) >= 0:
            s.sampling = 0
            if p.time >= s.sample_time:
                micros = min((p.time - s.sample_time) // 1000, 0xFFFFFFFF)
                micros = max(micros, 1)
                if c.rtt_min == 0 or micros < c.rtt_min:
                    c.rtt_min = micros
                c.rtt_max = max(c.rtt_max, micros)
        if c.seen & SEEN_FIN_RESP and not c.seen & SEEN_FIN_RESP_ACKED and d32(ack, np.int64(s.fin_resp_end)) >= 0:
            c.seen |= SEEN_FIN_RESP_ACKED
            c.fin_resp_acked = p.time
            c.fin_resp_acked_frame = p.frame
        if s.resp_known and d32(ack, np.int64(s.resp_next)) > 0:
            c.seen |= SEEN_GAP_RESP
        unknown = not s.resp_known and s.older < 0  # an older incarnation's answer may be what is acknowledged
        if (unknown or (s.resp_known and d32(ack, np.int64(s.resp_next)) > 0)) and c.seen & SEEN_SYN:
            s.acks_unseen = s.unseen_resp == 0 or d32(ack, np.int64(s.unseen_resp)) > 0
            s.unseen_resp = p.ack
        elif s.holed_resp and d32(ack, np.int64(s.hole_resp_end)) >= 0:
            s.acks_unseen, s.holed_resp = 1, 0
    if p.length and c.first_data_orig == NO_TIME:
        c.first_data_orig = p.time
        c.digest_orig = p.digest
    if flags & FIN and not c.seen & SEEN_FIN_ORIG:
        c.seen |= SEEN_FIN_ORIG
        c.fin_orig_time = p.time
        c.fin_orig_frame = p.frame
        s.fin_orig_end = end
        if c.closer == CLOSER_NONE:
            c.closer = CLOSER_ORIG
        elif c.closer == CLOSER_RESP and not c.seen & SEEN_FIN_RESP_ACKED:
            c.closer = CLOSER_BOTH
    if flags & RST:
        reset(c, p, SEEN_RST_ORIG)
    history(c, s, p, False, repeated, gap)


@njit(cache=True)
def from_resp(c, s, p):
    """A packet of the responder."""
    c.packets_resp += 1
    c.bytes_resp += np.uint64(p.length)
    flags = p["flags"]
    end = (np.int64(p.seq) + np.int64(p.length) + (1 if flags & FIN else 0) + (1 if flags & SYN else 0)) & 0xFFFFFFFF
    repeated = gap = False
    if flags & RST == 0:
        if s.resp_known:
            gap = d32(np.int64(p.seq), np.int64(s.resp_next)) > 0
            repeated = (p.length > 0 or flags & SYN) and d32(end, np.int64(s.resp_next)) <= 0
            if gap:
                c.seen |= SEEN_GAP_RESP
                if not s.holed_resp and not flags & SYN:
                    s.holed_resp, s.hole_resp, s.hole_resp_end = 1, s.resp_next, p.seq
            elif s.holed_resp and d32(np.int64(p.seq), np.int64(s.hole_resp)) <= 0 < d32(end, np.int64(s.hole_resp)):
                s.holed_resp = 0
        if repeated:
            s.sampling = 0
        elif (p.length > 0 or flags & SYN) and not s.sampling:
            s.sampling = 1
            s.sample_end = end
            s.sample_time = p.time
        if not s.resp_known or d32(end, np.int64(s.resp_next)) > 0 or (flags & SYN and not c.seen & SEEN_ESTABLISHED):
            s.resp_next = end
            s.resp_known = 1
    if flags & ACK and flags & RST == 0:
        ack = np.int64(p.ack)
        s.rcv_wup = p.ack
        s.wup_known = 1
        shift = c.wscale_resp if c.wscale_resp != 255 and c.wscale_orig != 255 and flags & SYN == 0 else 0
        s.rcv_wnd = np.int64(p.window) << min(np.int64(shift), 14)
        if c.seen & SEEN_FIN_ORIG and not c.seen & SEEN_FIN_ORIG_ACKED and d32(ack, np.int64(s.fin_orig_end)) >= 0:
            c.seen |= SEEN_FIN_ORIG_ACKED
            c.fin_orig_acked = p.time
            c.fin_orig_acked_frame = p.frame
        if s.orig_known and d32(ack, np.int64(s.orig_next)) > 0:
            c.seen |= SEEN_GAP_ORIG
            s.acks_unseen = s.unseen_orig == 0 or d32(ack, np.int64(s.unseen_orig)) > 0
            s.unseen_orig = p.ack
        elif s.holed_orig and d32(ack, np.int64(s.hole_orig_end)) >= 0:
            s.acks_unseen, s.holed_orig = 1, 0
    if p.length and c.first_data_resp == NO_TIME:
        c.first_data_resp = p.time
        c.digest_resp = p.digest
    if flags & FIN and not c.seen & SEEN_FIN_RESP:
        c.seen |= SEEN_FIN_RESP
        c.fin_resp_time = p.time
        c.fin_resp_frame = p.frame
        s.fin_resp_end = end
        if c.closer == CLOSER_NONE:
            c.closer = CLOSER_RESP
        elif c.closer == CLOSER_ORIG and not c.seen & SEEN_FIN_ORIG_ACKED:
            c.closer = CLOSER_BOTH
    if flags & RST:
        reset(c, p, SEEN_RST_RESP)
    history(c, s, p, True, repeated, gap)


@njit(cache=True)
def reset(c, p, who):
    """The first RST of a side."""
    if not c.seen & (SEEN_RST_ORIG | SEEN_RST_RESP):
        c.rst_time = p.time
        c.rst_frame = p.frame
        if c.closer == CLOSER_NONE:
            c.closer = CLOSER_RST
    c.seen |= who


@njit(cache=True)
def conn_state(seen):
    """Zeek's conn_state of a finished record, an index in ``schema.CONN_STATES``."""
    syn_seen, taken = seen & SEEN_SYN, seen & SEEN_SYN_ACK
    if syn_seen and taken:
        if seen & SEEN_RST_ORIG:
            return 7
        if seen & SEEN_RST_RESP:
            return 8
        if seen & SEEN_FIN_ORIG and seen & SEEN_FIN_RESP:
            return 3
        if seen & SEEN_FIN_ORIG:
            return 5
        if seen & SEEN_FIN_RESP:
            return 6
        return 2
    if syn_seen:
        if seen & SEEN_RST_RESP:
            return 4
        if seen & SEEN_RST_ORIG:
            return 9
        if seen & SEEN_FIN_ORIG:
            return 11
        return 1
    if taken:
        if seen & SEEN_RST_RESP:
            return 10
        if seen & SEEN_FIN_RESP:
            return 12
    return 0

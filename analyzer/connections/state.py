"""Layouts of the tracker's working memory: one slot per incarnation of a four-tuple."""

import numpy as np

from analyzer.schema import CONNECTION


def _working_layout() -> np.dtype[np.void]:
    """CONNECTION with its history as three integers, which compiled code can fill letter by letter."""
    final = CONNECTION.dtype
    names, formats, offsets = [], [], []
    assert final.fields is not None
    for name, (kind, offset, *_rest) in final.fields.items():
        if name == "history":
            assert offset % 8 == 0
            for part in range(3):
                names.append(f"letters{part}")
                formats.append(np.dtype("u8"))
                offsets.append(offset + 8 * part)
        else:
            names.append(name)
            formats.append(kind)
            offsets.append(offset)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": final.itemsize})


CONN = _working_layout()

SLOT = np.dtype(
    [
        ("a_hi", "u8"),  # the four numbers, smaller side first
        ("a_lo", "u8"),
        ("b_hi", "u8"),
        ("b_lo", "u8"),
        ("ts_recent_time", "i8"),
        ("sample_time", "i8"),
        ("newest_syn", "i8"),  # row number of the latest SYN, -1 if none
        ("a_p", "u2"),
        ("b_p", "u2"),
        ("orig_is_a", "u1"),
        ("used", "u1"),
        ("closed", "u1"),  # both FINs acknowledged, or reset
        ("syn_open", "u1"),  # the latest SYN has no answer yet
        ("ts_off", "u1"),  # the SYN-ACK declined timestamps
        ("sampling", "u1"),
        ("responder_spoke", "u1"),
        ("responder_data", "u1"),
        ("orig_known", "u1"),  # orig_next is valid
        ("resp_known", "u1"),
        ("wup_known", "u1"),
        ("letters", "u1"),
        ("holed_orig", "u1"),
        ("holed_resp", "u1"),
        ("acks_unseen", "u1"),  # the latest packet acknowledged what the capture lacks
        ("next_free", "i4"),
        ("older", "i4"),  # slot of the previous incarnation while it may still speak, -1
        ("orig_next", "u4"),  # highest sequence number seen + 1, per direction
        ("resp_next", "u4"),
        ("rcv_wup", "u4"),
        ("rcv_wnd", "u4"),
        ("ts_recent", "u4"),
        ("sample_end", "u4"),
        ("fin_orig_end", "u4"),
        ("fin_resp_end", "u4"),
        ("unseen_orig", "u4"),  # highest number acknowledged beyond orig_next and resp_next, 0 if none
        ("unseen_resp", "u4"),
        ("hole_orig", "u4"),  # first missing number and the end of the hole, while neither filled nor acknowledged
        ("hole_orig_end", "u4"),
        ("hole_resp", "u4"),
        ("hole_resp_end", "u4"),
        ("told", "u4"),  # which history letters were given
        ("syn_length", "u2"),  # data in the first SYN (RFC 7413)
        ("early_events", "u2"),
        ("late_events", "u2"),
    ],
    align=True,
)

# indices into the tracker's int64 state vector
(
    NEXT_PACKET,
    FREE_HEAD,
    USED_SLOTS,
    CONNS,
    CHAINS,
    HOSTS,
    SYN_FILL,
    SYN_BASE,
    EVENT_FILL,
    DONE_FILL,
    TABLE_DEAD,
    NOW,
    STATE_SIZE,
) = range(13)

# why the compiled pass returned
BLOCK_DONE, NEED_SLOTS, NEED_SYNS, NEED_EVENTS, NEED_DONE, NEED_HOSTS, NEED_CHAINS = range(7)

EARLY_EVENTS = 64
LATE_EVENTS = 256

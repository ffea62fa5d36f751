"""Every table of the program, each column declared once: name, dtype, unit, meaning.

Internal tables are numpy structured arrays ("records"); the public tables are made from them
in ``report.tables``.  Absent times are ``units.NO_TIME``, absent frames and vlans 0, absent
ids -1; an absent 32-bit value is told by a bit in ``opts`` or ``seen``, never by a magic number.

Hosts are interned: a host id is an index into the HOST table.  Addresses are 128-bit, split in
two; IPv4 is kept as ::ffff:a.b.c.d with ``v6`` = 0.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Column:
    """One column: *unit* is empty where the value is a plain number or an id."""

    name: str
    dtype: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class Table:
    """A table of records; ``dtype`` is the aligned numpy layout of one row."""

    name: str
    columns: tuple[Column, ...]

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Aligned numpy layout of one row."""
        return np.dtype([(c.name, c.dtype) for c in self.columns], align=True)


def _table(name: str, *columns: tuple[str, str, str, str]) -> Table:
    return Table(name, tuple(Column(*c) for c in columns))


# TCP flags, RFC 9293 section 3.1 (and RFC 3168 for ECE, CWR; NS historic)
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << i for i in range(8))

# bits of PACKET.opts: TCP options seen
OPT_TS = 1  # timestamps (RFC 7323) with at least a whole TSval
OPT_TS_CUT = 2  # the capture cut the TSecr away: tsecr is 0 and unknown
OPT_MSS = 4
OPT_WSCALE = 8
OPT_SACK_OK = 16
OPT_CLIPPED = 32  # options cut by the snap length: absence of an option proves nothing
OPT_AUTH = 64  # TCP-MD5 or TCP-AO
OPT_TFO = 128  # TCP Fast Open
OPT_TOA = 256  # client address option of a load balancer (252-254)
OPT_BAD = 512  # an option of impossible length
OPT_PROXY = 1024  # no option: the payload begins like a PROXY protocol header
ACKS_UNSEEN = 2048  # no option, in EVENT only: the packet acknowledges what the capture lacks

# bits of PACKET.meta
META_V6 = 1
META_FRAGMENT = 2  # first fragment of a datagram (later ones are no packets)
META_TUNNELLED = 4  # inside IPIP, GRE, VXLAN …
META_RARE = 8  # decoded by the dpkt path
META_CLIPPED = 16  # captured length is less than the wire length
META_SENT = 32  # the capture says: sent by the capturing host
META_RECEIVED = 64  # the capture says: received by the capturing host
META_TRAILER = 128  # bytes follow the IP packet in its frame, more than padding needs

# PACKET.kind
KIND_TCP = 0
KIND_ICMP = 1  # ICMP/ICMPv6 error quoting a TCP header: addresses, ports, seq are the quoted ones

PACKET = _table(
    "packet",
    ("time", "i8", "ns UTC", "capture clock"),
    ("src_hi", "u8", "", "source address, upper 64 bits"),
    ("src_lo", "u8", "", "source address, lower 64 bits"),
    ("dst_hi", "u8", "", "destination address, upper 64 bits"),
    ("dst_lo", "u8", "", "destination address, lower 64 bits"),
    ("digest", "u8", "", "FNV-1a of the first captured payload bytes (at most 64); 0 if not computed or no payload"),
    ("frame", "u4", "", "frame number in its file, from 1"),
    ("seq", "u4", "", "raw sequence number"),
    ("ack", "u4", "", "raw acknowledgment number"),
    ("tsval", "u4", "ticks", "valid if OPT_TS"),
    ("tsecr", "u4", "ticks", "valid if OPT_TS and not OPT_TS_CUT"),
    ("length", "u4", "bytes", "TCP payload length on the wire, by the IP header"),
    ("sport", "u2", "", "source port"),
    ("dport", "u2", "", "destination port"),
    ("window", "u2", "", "raw window field"),
    ("flags", "u2", "", "TCP flags; for KIND_ICMP: type << 8 | code"),
    ("opts", "u2", "", "OPT_* bits"),
    ("mss", "u2", "bytes", "valid if OPT_MSS"),
    ("ipid", "u2", "", "IPv4 identification; 0 for IPv6"),
    ("vlan", "u2", "", "outermost VLAN id, 0 if none"),
    ("interface", "u2", "", "index in the capture's list of interfaces"),
    ("file", "u2", "", "index in the capture's list of files"),
    ("meta", "u2", "", "META_* bits"),
    ("wscale", "u1", "bits", "valid if OPT_WSCALE"),
    ("ttl", "u1", "", "TTL or hop limit"),
    ("kind", "u1", "", "KIND_*"),
)

IDENTITY_SOURCES = ("f5", "nstrace", "proxy", "toa")

IDENTITY = _table(
    "identity",
    ("time", "i8", "ns UTC", "capture clock"),
    ("flow", "u8", "", "the load balancer's id of this leg (F5 flow id, NetScaler PCB), 0 if none"),
    ("peer_flow", "u8", "", "its id of the other leg (F5 peer id, NetScaler linked PCB), 0 if none"),
    ("src_hi", "u8", "", "source address of the packet, upper 64 bits"),
    ("src_lo", "u8", "", "source address of the packet, lower 64 bits"),
    ("dst_hi", "u8", "", "destination address of the packet, upper 64 bits"),
    ("dst_lo", "u8", "", "destination address of the packet, lower 64 bits"),
    ("remote_hi", "u8", "", "other leg: the far end (client or pool member), upper 64 bits"),
    ("remote_lo", "u8", "", "other leg: the far end, lower 64 bits"),
    ("local_hi", "u8", "", "other leg: the load balancer's own end (VIP or SNAT address), upper 64 bits"),
    ("local_lo", "u8", "", "other leg: the load balancer's own end, lower 64 bits"),
    ("frame", "u4", "", "frame number in its file"),
    ("sport", "u2", "", "source port of the packet"),
    ("dport", "u2", "", "destination port of the packet"),
    ("remote_p", "u2", "", "other leg: the far end's port; 0 if the other leg's addresses are not told"),
    ("local_p", "u2", "", "other leg: the load balancer's own port, 0 if not told"),
    ("file", "u2", "", "index in the capture's list of files"),
    ("source", "u1", "", "index in IDENTITY_SOURCES"),
    ("ingress", "u1", "", "1 if the load balancer received the packet, 0 if it sent it, 255 if not told"),
    ("vip", "S40", "", "name of the virtual server, cut to 40 bytes; empty if not told"),
)

HOST = _table(
    "host",
    ("hi", "u8", "", "address, upper 64 bits"),
    ("lo", "u8", "", "address, lower 64 bits"),
    ("v6", "u1", "", "1 if the address is IPv6"),
)

# SYN.answer, by strength of what came back first in the same capture
ANSWERS = ("none", "syn_ack", "ack", "rst", "icmp")
ANSWER_NONE, ANSWER_SYN_ACK, ANSWER_ACK, ANSWER_RST, ANSWER_ICMP = range(5)

SYN_ROW = _table(
    "syn",
    ("time", "i8", "ns UTC", "capture clock"),
    ("answer_time", "i8", "ns UTC", "when the answer was seen, NO_TIME if none"),
    ("frame", "u4", "", "frame number in its file"),
    ("answer_frame", "u4", "", "0 if none"),
    ("conn", "i4", "", "connection id (row of the connections table)"),
    ("chain", "i4", "", "id of the four numbers: all incarnations share it"),
    ("orig", "i4", "", "host id of the sender"),
    ("resp", "i4", "", "host id of the destination"),
    ("isn", "u4", "", "raw sequence number"),
    ("tsval", "u4", "ticks", "valid if OPT_TS"),
    ("orig_p", "u2", "", "source port"),
    ("resp_p", "u2", "", "destination port"),
    ("attempt", "u2", "", "1 for the first SYN of a handshake, 2... for its retransmissions"),
    ("opts", "u2", "", "OPT_* bits"),
    ("mss", "u2", "bytes", "valid if OPT_MSS"),
    ("ipid", "u2", "", "IPv4 identification"),
    ("window", "u2", "", "raw window field"),
    ("file", "u2", "", "index in the capture's list of files"),
    ("interface", "u2", "", "index in the capture's list of interfaces"),
    ("meta", "u2", "", "META_* bits"),
    ("wscale", "u1", "bits", "valid if OPT_WSCALE"),
    ("ttl", "u1", "", "TTL or hop limit"),
    ("answer", "u1", "", "ANSWER_*"),
    ("icmp", "u2", "", "type << 8 | code when the answer is ICMP"),
)

# bits of CONNECTION.seen
SEEN_SYN = 1
SEEN_SYN_ACK = 2
SEEN_ESTABLISHED = 4  # an ACK of the originator completed the handshake
SEEN_TS_ORIG = 8  # originator sent timestamps (tsval_* orig valid)
SEEN_TS_RESP = 16
SEEN_TS_AGREED = 32  # both SYN and SYN-ACK carried timestamps
SEEN_FIN_ORIG = 64
SEEN_FIN_RESP = 128
SEEN_FIN_ORIG_ACKED = 256
SEEN_FIN_RESP_ACKED = 512
SEEN_RST_ORIG = 1024
SEEN_RST_RESP = 2048
SEEN_GAP_ORIG = 4096  # bytes of the originator that the capture lacks (a hole, or an ACK of unseen data)
SEEN_GAP_RESP = 8192
SEEN_MIDSTREAM = 16384  # first packet seen was no SYN
SEEN_TFO = 32768  # data in the SYN

CLOSERS = ("", "orig", "resp", "both", "rst")
CLOSER_NONE, CLOSER_ORIG, CLOSER_RESP, CLOSER_BOTH, CLOSER_RST = range(5)

# Zeek's words, base/protocols/conn
CONN_STATES = ("OTH", "S0", "S1", "SF", "REJ", "S2", "S3", "RSTO", "RSTR", "RSTOS0", "RSTRH", "SH", "SHR")

CONNECTION = _table(
    "connection",
    ("conn", "i4", "", "connection id, from 0 in order of first packet"),
    ("chain", "i4", "", "id of the four numbers: all incarnations share it"),
    ("previous", "i4", "", "conn of the incarnation before on the same four numbers, -1 if none"),
    ("orig", "i4", "", "host id of the originator (sender of the first SYN)"),
    ("resp", "i4", "", "host id of the responder"),
    ("orig_p", "u2", "", "originator's port"),
    ("resp_p", "u2", "", "responder's port"),
    ("start", "i8", "ns UTC", "first packet"),
    ("end", "i8", "ns UTC", "last packet"),
    ("previous_end", "i8", "ns UTC", "last packet of the previous incarnation, NO_TIME if none"),
    ("history", "S24", "", "Zeek's history letters"),
    ("start_frame", "u4", "", "frame of the first packet"),
    ("end_frame", "u4", "", "frame of the last packet"),
    ("seen", "u2", "", "SEEN_* bits"),
    ("state", "u1", "", "index in CONN_STATES"),
    ("closer", "u1", "", "CLOSER_*: whose FIN came first; both = crossed FINs"),
    ("isn_orig", "u4", "", "valid if SEEN_SYN"),
    ("isn_resp", "u4", "", "valid if SEEN_SYN_ACK"),
    ("syn_count", "u2", "", "SYN packets of this incarnation"),
    ("syn_ack_count", "u2", "", "SYN-ACK packets"),
    ("syn_time", "i8", "ns UTC", "first SYN"),
    ("syn_ack_time", "i8", "ns UTC", "first SYN-ACK"),
    ("established_time", "i8", "ns UTC", "first ACK of the SYN-ACK"),
    ("first_data_orig", "i8", "ns UTC", "first payload of the originator"),
    ("first_data_resp", "i8", "ns UTC", "first payload of the responder: its application is alive"),
    ("fin_orig_time", "i8", "ns UTC", "first FIN of the originator"),
    ("fin_resp_time", "i8", "ns UTC", "first FIN of the responder"),
    ("fin_orig_acked", "i8", "ns UTC", "first ACK that covers the originator's FIN"),
    ("fin_resp_acked", "i8", "ns UTC", "first ACK that covers the responder's FIN"),
    ("rst_time", "i8", "ns UTC", "first RST"),
    ("syn_ack_frame", "u4", "", ""),
    ("established_frame", "u4", "", ""),
    ("fin_orig_frame", "u4", "", ""),
    ("fin_resp_frame", "u4", "", ""),
    ("fin_orig_acked_frame", "u4", "", ""),
    ("fin_resp_acked_frame", "u4", "", ""),
    ("rst_frame", "u4", "", ""),
    ("first_tsval_orig", "u4", "ticks", "valid if SEEN_TS_ORIG"),
    ("last_tsval_orig", "u4", "ticks", "valid if SEEN_TS_ORIG"),
    ("first_tsecr_orig", "u4", "ticks", "first TSecr sent by the originator with an ACK"),
    ("last_tsecr_orig", "u4", "ticks", ""),
    ("first_tsval_resp", "u4", "ticks", "valid if SEEN_TS_RESP"),
    ("last_tsval_resp", "u4", "ticks", "valid if SEEN_TS_RESP"),
    ("first_tsecr_resp", "u4", "ticks", ""),
    ("last_tsecr_resp", "u4", "ticks", ""),
    ("packets_orig", "u4", "", ""),
    ("packets_resp", "u4", "", ""),
    ("bytes_orig", "u8", "bytes", "payload, retransmissions included"),
    ("bytes_resp", "u8", "bytes", "payload, retransmissions included"),
    ("rtt_min", "u4", "us", "smallest round trip responder -> originator -> responder; 0 if never measured"),
    ("rtt_max", "u4", "us", "largest such round trip"),
    ("digest_orig", "u8", "", "digest of the originator's first payload, 0 if none"),
    ("digest_resp", "u8", "", "digest of the responder's first payload, 0 if none"),
    ("mss_orig", "u2", "bytes", "0 if absent"),
    ("mss_resp", "u2", "bytes", "0 if absent"),
    ("wscale_orig", "u1", "bits", "255 if absent"),
    ("wscale_resp", "u1", "bits", "255 if absent"),
    ("sack_orig", "u1", "", "1 if SACK-permitted was in the SYN"),
    ("sack_resp", "u1", "", "1 if SACK-permitted was in the SYN-ACK"),
    ("opts_orig", "u2", "", "OPT_* bits of the first SYN"),
    ("file", "u2", "", "file of the first packet"),
    ("interface", "u2", "", "interface of the first packet"),
    ("vlan", "u2", "", "VLAN of the first packet, 0 if none"),
    ("meta", "u2", "", "META_* bits of the first packet"),
)

EVENT = _table(
    "event",
    ("time", "i8", "ns UTC", "capture clock"),
    ("ts_recent_time", "i8", "ns UTC", "when the responder last stored ts_recent, NO_TIME if never"),
    ("frame", "u4", "", "frame number in its file"),
    ("file", "u2", "", "index in the capture's list of files"),
    ("conn", "i4", "", "connection id"),
    ("chain", "i4", "", "id of the four numbers"),
    ("seq", "u4", "", ""),
    ("ack", "u4", "", ""),
    ("tsval", "u4", "ticks", "valid if OPT_TS"),
    ("tsecr", "u4", "ticks", "valid if OPT_TS and not OPT_TS_CUT"),
    ("length", "u4", "bytes", "payload"),
    ("ts_recent", "u4", "ticks", "TSval the responder holds after this packet (0 if ts_recent_time is NO_TIME)"),
    ("rcv_wup", "u4", "", "ACK number of the responder's latest segment before this packet"),
    ("rcv_wnd", "u4", "bytes", "window the responder last advertised, scaled"),
    ("rtt_min", "u4", "us", "smallest round trip of the connection so far, 0 if none"),
    ("rtt_max", "u4", "us", "largest so far"),
    ("flags", "u2", "", "TCP flags; ICMP type << 8 | code"),
    ("opts", "u2", "", "OPT_* bits, ACKS_UNSEEN"),
    ("ipid", "u2", "", "IPv4 identification"),
    ("seen", "u2", "", "CONNECTION.seen after this packet"),
    ("kind", "u1", "", "KIND_*"),
    ("resp", "u1", "", "1 if the responder sent it"),
)

# VERDICT.verdict and .certainty
VERDICTS = ("unknown", "accept", "drop", "ack", "rst", "cookie")
CERTAINTIES = ("none", "possible", "certain")

VERDICT = _table(
    "verdict",
    ("verdict", "u1", "", "index in VERDICTS"),
    ("certainty", "u1", "", "index in CERTAINTIES"),
    ("rule", "u1", "", "index in kernel.rules.RULE_NAMES"),
    ("alternative", "u1", "", "rule of the next likeliest state where the verdict is not certain, else 0"),
    ("compared", "u1", "", "1 if the peer_* columns, tsval_delta and stamp_age are valid"),
    ("reason", "u2", "", "index in the run's list of reasons, 0 = none"),
    ("peer_tsval", "u4", "ticks", "TSval that the SYN was compared with"),
    ("peer_stamp_frame", "u4", "", "frame that brought it"),
    ("peer_stamp_file", "u2", "", "file of that frame"),
    ("peer_stamp_time", "i8", "ns UTC", "capture time of that frame"),
    ("tsval_delta", "i8", "ticks", "d32(SYN's TSval, peer_tsval): negative means behind"),
    ("stamp_age", "i8", "ns", "SYN's time - peer_stamp_time"),
)

PEER_STATE = _table(
    "peer_state",
    ("time", "i8", "ns UTC", "when the kernel wrote"),
    ("frame", "u4", "", "frame that caused it"),
    ("file", "u2", "", ""),
    ("conn", "i4", "", "connection that was closing"),
    ("server", "i4", "", "host id"),
    ("peer", "i4", "", "host id"),
    ("tsval", "u4", "ticks", "value offered to the memory"),
    ("stamp_second", "i8", "s", "whole second stored with it"),
    ("event", "u1", "", "index in kernel.rules.WRITE_EVENTS"),
    ("certain", "u1", "", "1 if the write certainly happened"),
    ("stored", "u1", "", "1 if it certainly replaced the stored value, 0 if certainly not, 2 if unknown"),
)

# causes, spec'd words, in report order
CAUSES = (
    "answered",
    "peer_timestamp",
    "time_wait_paws",
    "time_wait_sequence",
    "established_collision",
    "accept_queue_full",
    "syn_queue_full",
    "server_silent",
    "lost_before_server",
    "syn_ack_lost",
    "answer_not_forwarded",
    "not_forwarded",
    "refused",
    "unreachable",
    "no_evidence",
)
CAUSE_CERTAINTIES = ("possible", "likely", "certain")

CAUSE = _table(
    "cause",
    ("cause", "u1", "", "index in CAUSES"),
    ("certainty", "u1", "", "index in CAUSE_CERTAINTIES"),
    ("aggravated_by", "u1", "", "index in CAUSES, 0 = nothing"),
)

# SNAT_FLOW.proof, weakest first; .kind
PROOFS = ("none", "timing", "payload", "strong", "exact", "in_band")
FLOW_KINDS = ("layer4", "layer7", "synproxy", "direct")

SNAT_FLOW = _table(
    "snat_flow",
    ("client_hi", "u8", "", "client's address, upper 64 bits"),
    ("client_lo", "u8", "", "client's address, lower 64 bits"),
    ("vip_hi", "u8", "", "virtual address, upper 64 bits"),
    ("vip_lo", "u8", "", "virtual address, lower 64 bits"),
    ("snat_hi", "u8", "", "address that the server sees, upper 64 bits"),
    ("snat_lo", "u8", "", "address that the server sees, lower 64 bits"),
    ("server_hi", "u8", "", "pool member, upper 64 bits"),
    ("server_lo", "u8", "", "pool member, lower 64 bits"),
    ("client_p", "u2", "", "client's port"),
    ("vip_p", "u2", "", "virtual port"),
    ("snat_p", "u2", "", "port that the server sees"),
    ("server_p", "u2", "", "pool member's port"),
    ("client_v6", "u1", "", "1 if client and VIP are IPv6"),
    ("server_v6", "u1", "", "1 if SNAT address and server are IPv6"),
    ("proof", "u1", "", "index in PROOFS: the strongest evidence that joins the legs"),
    ("kind", "u1", "", "index in FLOW_KINDS"),
    ("rivals", "u2", "", "other pairings that the evidence leaves open, 0 if none"),
    ("lb", "i2", "", "index of the load balancer's vantage, -1 if none"),
    ("server", "i2", "", "index of the server's vantage, -1 if none saw it"),
    ("client_conn", "i4", "", "connection id of the client leg in the LB's capture, -1 if not seen"),
    ("lb_conn", "i4", "", "connection id of the server leg in the LB's capture, -1 if not seen"),
    ("server_conn", "i4", "", "connection id in the server's capture, -1 if not seen"),
    ("start", "i8", "ns UTC", "first packet of the leg seen first, its capture's clock"),
    ("end", "i8", "ns UTC", "last packet"),
    ("margin", "f8", "", "how much better this pairing fits than its best rival, 0 to 1"),
)

PATH = _table(
    "path",
    ("time_lb_client", "i8", "ns UTC", "the SYN on the LB's client side; NO_TIME if not seen there"),
    ("time_lb_server", "i8", "ns UTC", "the SYN on the LB's server side"),
    ("time_server", "i8", "ns UTC", "the SYN at the server, on that capture's clock"),
    ("time_answered", "i8", "ns UTC", "its answer at the server"),
    ("time_answer_lb", "i8", "ns UTC", "its answer on the LB's server side"),
    ("time_answer_client", "i8", "ns UTC", "its answer on the LB's client side"),
    ("journey", "i8", "", "one id for the same SYN packet at every point where it was seen"),
    ("flow", "i4", "", "row of SNAT_FLOW, -1 if none"),
    ("answer_server", "u1", "", "ANSWER_* that the server's capture shows, 255 if the SYN was not seen there"),
    ("answer_lb", "u1", "", "ANSWER_* on the LB's server side, 255 if the SYN was not seen there"),
    ("answer_client", "u1", "", "ANSWER_* on the LB's client side, 255 if the SYN was not seen there"),
    ("leg", "u1", "", "index in LEGS: which point of its journey this row is"),
    ("server", "i2", "", "index of the server's vantage that saw it, -1 if none"),
    ("server_row", "i8", "", "its SYN row in that vantage, -1 if none"),
)
LEGS = ("client_leg", "lb_server_leg", "server", "other")
NOT_THERE = 255

ERAS = ("not identifiable", "per host", "per address pair", "per connection")

CLOCK = _table(
    "clock",
    ("vantage", "i2", "", "index of the capture it was seen in"),
    ("host", "i4", "", "host id of the address that it speaks from"),
    ("peer", "i4", "", "host id of the address it speaks to, -1 where it shows the same to several"),
    ("number", "u2", "", "1, 2, ... among the clocks side by side behind one address; 0: what lies on no line"),
    ("era", "u1", "", "index in ERAS"),
    ("hz", "f8", "1/s", "nominal rate: 100, 250, 1000, 1e6; 0 if not identifiable"),
    ("offset", "i8", "ticks", "TSval that the clock shows at the capture's first packet, mod 2**32"),
    ("boot", "i8", "ns UTC", "when the clock was 0, where that means something; NO_TIME if not"),
    ("skew_ppm", "f8", "ppm", "against the capture's clock"),
    ("skew_bound", "f8", "ppm", "half-width of the skew's hard bound"),
    ("packets", "u4", "", "packets with timestamps"),
    ("connections", "u4", "", "connections"),
    ("span", "i8", "ns", "time between the first and the last of them"),
)

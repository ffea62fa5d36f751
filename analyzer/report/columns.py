"""The public tables, column by column: what ``docs/tables.md`` is generated from and a test holds tables to.

Types are Arrow's as Parquet stores them; ``word`` is a dictionary of the words listed.  Times are
``timestamp[ns, UTC]``, always on the clock of the capture that saw the packet.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublicColumn:
    """One column: name, type, unit (empty for plain numbers and words), meaning."""

    name: str
    type: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class PublicTable:
    """One table of the report folder."""

    about: str
    columns: tuple[PublicColumn, ...]


def _table(about: str, text: str) -> PublicTable:
    """Lines ``name | type | unit | meaning`` as a table."""
    rows = [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]
    return PublicTable(about, tuple(PublicColumn(*row) for row in rows))


COLUMNS: dict[str, PublicTable] = {
    "syns": _table(
        "One row per SYN packet seen (SYN set, ACK clear), in every capture.",
        """
        capture | word | | name of the vantage: `lb`, `server`, `server1` …
        frame | uint32 | | frame number in its file, from 1, as Wireshark counts
        time | time | | when the capture saw it
        src | word | | source address
        sport | uint16 | | source port
        dst | word | | destination address
        dport | uint16 | | destination port
        isn | uint32 | | raw sequence number
        tsval | uint32 | ticks | TSval; null without the timestamps option
        attempt | uint16 | | 1 for the first SYN of a handshake, 2 … for its retransmissions
        answer | word | | what came back in this capture: `syn_ack`, `ack`, `rst`, `icmp`, `none`
        answer_frame | uint32 | | frame of the answer
        answer_delay | double | s | answer after the SYN
        verdict | word | | what the replayed kernel does: `accept`, `drop`, `ack`, `rst`, `cookie`, `unknown`
        certainty | word | | `certain`, `possible`, `none`
        rule | word | | the rule that decided; docs/kernel-rules.md
        reason | word | | what the verdict rests on where it is not certain
        peer_tsval | uint32 | ticks | the TSval it was compared with
        peer_stamp_time | time | | when that TSval was received
        peer_stamp_frame | uint32 | | the frame that brought it
        tsval_delta | int64 | ticks | SYN's TSval minus the compared one, signed 32 bits: negative is behind
        stamp_age | double | s | SYN's time minus peer_stamp_time
        cause | word | | best explanation of what happened; `answered` when nothing went wrong
        cause_certainty | word | | `certain`, `likely`, `possible`
        aggravated_by | word | | a second thing that went wrong
        time_lb_client | time | | the SYN on the load balancer's client side
        time_lb_server | time | | the SYN on the load balancer's server side
        time_server | time | | the SYN at the server
        time_answered | time | | its answer at the server
        time_answer_lb | time | | its answer on the load balancer's server side
        time_answer_client | time | | its answer on the load balancer's client side
        uid | string | | uid of the connection
        flow | int64 | | row of `snat_flows`
        file | word | | file that holds the frame
        """,
    ),
    "connections": _table(
        "One row per TCP connection and capture; Zeek's names where Zeek has them.",
        """
        capture | word | | name of the vantage
        uid | string | | stable id: `C` and eleven letters
        orig_h | word | | originator's address (sender of the first SYN)
        orig_p | uint16 | | originator's port
        resp_h | word | | responder's address
        resp_p | uint16 | | responder's port
        start | time | | first packet
        end | time | | last packet
        conn_state | word | | Zeek's state: `S0`, `SF`, `REJ` …
        history | string | | Zeek's history letters
        isn_orig | uint32 | | originator's initial sequence number
        isn_resp | uint32 | | responder's initial sequence number
        syn_count | uint16 | | SYN packets
        syn_rexmit_delays | list<double> | s | each repeated SYN after the first
        syn_ack_count | uint16 | | SYN-ACK packets
        syn_ack_time | time | | first SYN-ACK
        established_time | time | | first ACK of the SYN-ACK
        fin_orig_time | time | | first FIN of the originator
        fin_resp_time | time | | first FIN of the responder
        fin_orig_acked | time | | first ACK that covers the originator's FIN
        fin_resp_acked | time | | first ACK that covers the responder's FIN
        rst_time | time | | first RST
        rst_by | word | | who sent RSTs: `orig`, `resp`, `both`
        closer | word | | whose FIN came first: `orig`, `resp`, `both` (crossed), `rst`
        first_tsval_orig | uint32 | ticks | originator's first TSval
        last_tsval_orig | uint32 | ticks | originator's last TSval
        first_tsecr_orig | uint32 | ticks | originator's first TSecr with an ACK
        last_tsecr_orig | uint32 | ticks | originator's last TSecr
        first_tsval_resp | uint32 | ticks | responder's first TSval
        last_tsval_resp | uint32 | ticks | responder's last TSval
        first_tsecr_resp | uint32 | ticks | responder's first TSecr
        last_tsecr_resp | uint32 | ticks | responder's last TSecr
        packets_orig | uint32 | | packets of the originator
        packets_resp | uint32 | | packets of the responder
        bytes_orig | uint64 | bytes | payload of the originator, retransmissions included
        bytes_resp | uint64 | bytes | payload of the responder, retransmissions included
        previous_uid | string | | connection before on the same four numbers
        reuse_interval | double | s | start minus the last packet of that one
        start_frame | uint32 | | frame of the first packet
        end_frame | uint32 | | frame of the last packet
        """,
    ),
    "snat_flows": _table(
        "One row per connection through the load balancer, its legs paired.",
        """
        client_h | word | | client's address
        client_p | uint16 | | client's port
        vip_h | word | | virtual address that the client spoke to
        vip_p | uint16 | | virtual port
        snat_h | word | | address that the server sees as the client's
        snat_p | uint16 | | port that the server sees as the client's
        server_h | word | | pool member's address
        server_p | uint16 | | pool member's port
        start | time | | first packet at the load balancer
        end | time | | last packet at the load balancer
        client_uid | string | | uid of the client leg in the load balancer's capture
        lb_uid | string | | uid of the server leg in the load balancer's capture
        server_uid | string | | uid of the connection in the server's capture
        server_capture | word | | name of that capture
        kind | word | | `layer4`, `layer7` (two connections), `synproxy`, `direct` (no address translation)
        proof | word | | strongest evidence that joins the legs: `in_band`, `exact`, `strong`, `payload`, `timing`
        margin | double | | how much better this pairing fits than its best rival, 0 to 1
        rivals | uint16 | | other pairings that the evidence leaves open
        """,
    ),
    "peer_states": _table(
        "Every write of a peer's remembered timestamp (kernels with tcp_tw_recycle).",
        """
        capture | word | | name of the vantage
        server | word | | the server that remembers
        peer | word | | the address it remembers the TSval for
        time | time | | when the kernel wrote
        tsval | uint32 | ticks | value offered to the memory
        stamp_second | int64 | s | whole second stored with it
        frame | uint32 | | frame that caused the write
        event | word | | which close wrote: `E1` … `E5`, docs/kernel-rules.md
        certain | bool | | whether the write certainly happened
        stored | word | | whether it replaced the stored value: `yes`, `no`, `unknown`
        uid | string | | uid of the closing connection
        """,
    ),
    "clocks": _table(
        "One row per TSval clock found behind an address, and one for an address's connections that lie on none. "
        "Era `per address pair` also where one peer only was seen; `not identifiable`: one connection only, or a new "
        "offset with each. Of very many connections of an address a sample is looked at, and of very many addresses "
        "the busiest.",
        """
        capture | word | | name of the vantage
        host | word | | address that the clock speaks from
        peer | word | | address that it speaks to; null where it shows the same to several
        number | uint16 | | 1, 2 … among the clocks that run side by side behind the address; null where none is known
        era | word | | `per host`: same towards several addresses; `per address pair`; `not identifiable`
        hz | double | 1/s | nominal rate; null where it cannot be told
        offset | int64 | ticks | TSval that it shows at the capture's first packet
        boot | time | | when it was 0, for clocks per host
        skew_ppm | double | ppm | its rate against the capture's clock; null beyond the 100 clocks with most packets
        skew_bound | double | ppm | half-width of the skew's hard bound; null where it is bounded from one side only
        packets | uint32 | | packets of its connections, those looked at
        connections | uint32 | | connections, those looked at
        span | double | s | time between the first and the last of its TSvals
        """,
    ),
}


def markdown() -> str:
    """The text of ``docs/tables.md``."""
    lines = [
        "# Tables of the report folder",
        "",
        "Generated from `analyzer/report/columns.py`; a test keeps it up to date. Parquet by default, `--tables csv` "
        "or `jsonl` for others; `analyzer.analyze(…)` gives the same tables as DataFrames. `time` is "
        "`timestamp[ns, UTC]` on the clock of the capture that saw the packet; `word` is text stored as a dictionary; "
        "every column may be null where its meaning allows it.",
    ]
    for name, table in COLUMNS.items():
        lines += [
            "",
            f"## {name}",
            "",
            table.about,
            "",
            "| column | type | unit | meaning |",
            "| --- | --- | --- | --- |",
        ]
        lines += [f"| `{c.name}` | {c.type} | {c.unit} | {c.meaning.replace('|', '/')} |" for c in table.columns]
    return "\n".join(lines) + "\n"

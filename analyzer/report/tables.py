"""Records → the public tables, chunk by chunk: Parquet, CSV or JSON lines.

Column names and their meaning are the contract with users; ``docs/tables.md`` is generated from here.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from analyzer.connections.names import address_texts, host_texts, uids
from analyzer.diagnosis.model import Analysis, Vantage
from analyzer.kernel.rules import RULE_NAMES, WRITE_EVENTS
from analyzer.report.arrays import coded, letters, lists, numbers, strings, times, words
from analyzer.schema import (
    ANSWERS,
    CAUSE_CERTAINTIES,
    CAUSES,
    CERTAINTIES,
    CLOSERS,
    CONN_STATES,
    ERAS,
    FLOW_KINDS,
    HOST,
    OPT_TS,
    PROOFS,
    SEEN_SYN,
    SEEN_SYN_ACK,
    SEEN_TS_ORIG,
    SEEN_TS_RESP,
    VERDICTS,
)
from analyzer.units import NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]
Mask = Any
FORMATS = ("parquet", "csv", "jsonl")
ORDERED = ["time", "start", "end", "frame"]
"""Columns whose least and greatest value per row group is of use to a reader."""
STAMPS = ("first_tsval", "last_tsval", "first_tsecr", "last_tsecr")


def _seconds(values: Any, mask: Mask = None) -> pa.Array:
    return numbers(values / NS, mask)


def _uids(name: str, conns: Any) -> pa.Array:
    return letters(uids(name, conns), conns < 0)


class Names:
    """Texts that a capture's records point to."""

    def __init__(self, vantage: Vantage) -> None:
        self.capture = vantage.name
        self.hosts = strings(host_texts(vantage.tracked.hosts))
        self.files = strings([info.path for info in vantage.tracked.files])

    def host(self, ids: Any) -> pa.Array:
        """Addresses of host ids."""
        return coded(ids, self.hosts)

    def constant(self, count: int) -> pa.Array:
        """The capture's name, *count* times."""
        return coded(np.zeros(count, np.int32), strings([self.capture]))

    def file(self, ids: Any) -> pa.Array:
        """File names by index."""
        return coded(ids, self.files)


def syn_batches(analysis: Analysis) -> Iterator[pa.Table]:
    """The ``syns`` table: one row per SYN packet seen."""
    for vantage in analysis.vantages:
        names = Names(vantage)
        if vantage.replayed is None:
            continue
        paths = analysis.joined.path(vantage.name, len(vantage.tracked.syns))
        causes: Iterator[Records | None] = iter(vantage.causes.chunks()) if len(vantage.causes) else iter(())
        at = 0
        for rows, verdicts in zip(vantage.tracked.syns.chunks(), vantage.replayed.verdicts.chunks(), strict=True):
            path = paths[at : at + len(rows)]
            at += len(rows)
            yield pa.table(_syns(names, vantage, rows, verdicts, next(causes, None)) | _path_columns(path))


PATH_TIMES = (
    "time_lb_client", "time_lb_server", "time_server", "time_answered", "time_answer_lb", "time_answer_client",
)  # fmt: skip


def _path_columns(path: Records) -> dict[str, pa.Array]:
    """The SYN's way and its answer's, and the flow that it belongs to."""
    columns = {name: times(path[name]) for name in PATH_TIMES}
    columns["flow"] = numbers(path["flow"].astype(np.int64), path["flow"] < 0)
    return columns


def _syns(names: Names, vantage: Vantage, rows: Records, verdicts: Records, causes: Records | None) -> dict[str, Any]:
    """Columns in the order of the table; those of the path are filled by :func:`_path_columns`."""
    assert vantage.replayed is not None
    no_ts = (rows["opts"] & OPT_TS) == 0
    no_answer = rows["answer_time"] == NO_TIME
    no_state = verdicts["compared"] == 0
    no_stamp = no_state | (verdicts["peer_stamp_time"] == NO_TIME)
    count = len(rows)
    return {
        "capture": names.constant(count),
        "frame": numbers(rows["frame"]),
        "time": times(rows["time"]),
        "src": names.host(rows["orig"]),
        "sport": numbers(rows["orig_p"]),
        "dst": names.host(rows["resp"]),
        "dport": numbers(rows["resp_p"]),
        "isn": numbers(rows["isn"]),
        "tsval": numbers(rows["tsval"], no_ts),
        "attempt": numbers(rows["attempt"]),
        "answer": words(rows["answer"], ANSWERS),
        "answer_frame": numbers(rows["answer_frame"], no_answer),
        "answer_delay": _seconds(rows["answer_time"] - rows["time"], no_answer),
        "verdict": words(verdicts["verdict"], VERDICTS),
        "certainty": words(verdicts["certainty"], CERTAINTIES),
        "rule": words(verdicts["rule"], RULE_NAMES),
        "reason": words(verdicts["reason"], vantage.replayed.reasons),
        "peer_tsval": numbers(verdicts["peer_tsval"], no_state),
        "peer_stamp_time": times(np.where(no_stamp, NO_TIME, verdicts["peer_stamp_time"])),
        "peer_stamp_frame": numbers(verdicts["peer_stamp_frame"], no_state | (verdicts["peer_stamp_frame"] == 0)),
        "tsval_delta": numbers(verdicts["tsval_delta"], no_state | no_ts),
        "stamp_age": _seconds(verdicts["stamp_age"], no_stamp),
        "cause": words(np.zeros(count, np.uint8), ("",)) if causes is None else words(causes["cause"], CAUSES),
        "cause_certainty": words(np.zeros(count, np.uint8), ("",))
        if causes is None
        else words(causes["certainty"], CAUSE_CERTAINTIES),
        "aggravated_by": words(np.zeros(count, np.uint8), ("",))
        if causes is None
        else words(causes["aggravated_by"], CAUSES, causes["aggravated_by"] == 0),
        **dict.fromkeys(PATH_TIMES),
        "uid": _uids(names.capture, rows["conn"]),
        "flow": None,
        "file": names.file(rows["file"]),
    }


def connection_batches(analysis: Analysis) -> Iterator[pa.Table]:
    """The ``connections`` table: one row per TCP connection and capture."""
    for vantage in analysis.vantages:
        names, delays = Names(vantage), _rexmit_delays(vantage)
        for rows in vantage.tracked.connections.chunks():
            yield _connections(names, rows, delays)


def _rexmit_delays(vantage: Vantage) -> tuple[Any, Any]:
    """Delays of repeated SYNs after the first: ids of their connections, ascending, and beside them seconds."""
    syns = vantage.tracked.syns
    repeats = [rows["conn"][rows["attempt"] > 1] for rows in syns.chunks()]
    several = np.unique(np.concatenate([np.zeros(0, np.int32), *repeats]))
    if not len(several):
        return several, np.zeros(0)
    mine = np.concatenate([rows[["conn", "time", "attempt"]][np.isin(rows["conn"], several)] for rows in syns.chunks()])
    mine = mine[np.argsort(mine["conn"], kind="stable")]
    first = np.maximum.accumulate(np.where(mine["attempt"] == 1, np.arange(len(mine)), -1))
    later = (mine["attempt"] > 1) & (first >= 0) & (mine["conn"][first] == mine["conn"])
    return mine["conn"][later], (mine["time"] - mine["time"][first])[later] / NS


def _connections(names: Names, rows: Records, delays: tuple[Any, Any]) -> pa.Table:
    seen = rows["seen"]
    orig_ts, resp_ts = (seen & SEEN_TS_ORIG) == 0, (seen & SEEN_TS_RESP) == 0
    no_previous = rows["previous"] < 0
    columns = {
        "capture": names.constant(len(rows)),
        "uid": _uids(names.capture, rows["conn"]),
        "orig_h": names.host(rows["orig"]),
        "orig_p": numbers(rows["orig_p"]),
        "resp_h": names.host(rows["resp"]),
        "resp_p": numbers(rows["resp_p"]),
        "start": times(rows["start"]),
        "end": times(rows["end"]),
        "conn_state": words(rows["state"], CONN_STATES),
        "history": letters(rows["history"]),
        "isn_orig": numbers(rows["isn_orig"], (seen & SEEN_SYN) == 0),
        "isn_resp": numbers(rows["isn_resp"], (seen & SEEN_SYN_ACK) == 0),
        "syn_count": numbers(rows["syn_count"]),
        "syn_rexmit_delays": _lists(rows["conn"], delays),
        "syn_ack_count": numbers(rows["syn_ack_count"]),
        **{
            name: times(rows[name])
            for name in (
                "syn_ack_time", "established_time", "fin_orig_time", "fin_resp_time", "fin_orig_acked",
                "fin_resp_acked", "rst_time",
            )
        },
        "rst_by": words(_reset_by(seen), ("", "orig", "resp", "both")),
        "closer": words(rows["closer"], CLOSERS),
        **{f"{name}_orig": numbers(rows[f"{name}_orig"], orig_ts) for name in STAMPS},
        **{f"{name}_resp": numbers(rows[f"{name}_resp"], resp_ts) for name in STAMPS},
        "packets_orig": numbers(rows["packets_orig"]),
        "packets_resp": numbers(rows["packets_resp"]),
        "bytes_orig": numbers(rows["bytes_orig"]),
        "bytes_resp": numbers(rows["bytes_resp"]),
        "previous_uid": _uids(names.capture, rows["previous"]),
        "reuse_interval": _seconds(rows["start"] - rows["previous_end"], no_previous),
        "start_frame": numbers(rows["start_frame"]),
        "end_frame": numbers(rows["end_frame"]),
    }  # fmt: skip
    return pa.table(columns)


def _lists(conns: Any, delays: tuple[Any, Any]) -> pa.Array:
    """One list of delays per connection; most are empty."""
    of, seconds = delays
    start, end = np.searchsorted(of, conns), np.searchsorted(of, conns, side="right")
    offsets = np.concatenate(([0], np.cumsum(end - start)))
    at = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], end - start)
    return lists(offsets, seconds[at])


def _reset_by(seen: Any) -> Any:
    from analyzer.schema import SEEN_RST_ORIG, SEEN_RST_RESP

    return ((seen & SEEN_RST_ORIG) > 0).astype(np.int64) + 2 * ((seen & SEEN_RST_RESP) > 0).astype(np.int64)


def peer_state_batches(analysis: Analysis) -> Iterator[pa.Table]:
    """The ``peer_states`` table: every write of a peer's remembered timestamp."""
    for vantage in analysis.vantages:
        if vantage.replayed is None:
            continue
        names, rows = Names(vantage), vantage.replayed.peer_states
        yield pa.table(
            {
                "capture": names.constant(len(rows)),
                "server": names.host(rows["server"]),
                "peer": names.host(rows["peer"]),
                "time": times(rows["time"]),
                "tsval": numbers(rows["tsval"]),
                "stamp_second": numbers(rows["stamp_second"]),
                "frame": numbers(rows["frame"]),
                "event": words(rows["event"], WRITE_EVENTS),
                "certain": numbers(rows["certain"] == 1),
                "stored": words(rows["stored"], ("no", "yes", "unknown")),
                "uid": _uids(names.capture, rows["conn"]),
            }
        )


def snat_flow_batches(analysis: Analysis) -> Iterator[pa.Table]:
    """The ``snat_flows`` table: one row per connection through the load balancer."""
    rows = analysis.joined.flows
    names = [vantage.name for vantage in analysis.vantages]
    columns: dict[str, pa.Array] = {}
    for end, side in (("client", "client"), ("vip", "client"), ("snat", "server"), ("server", "server")):
        columns[f"{end}_h"] = _addresses(rows[f"{end}_hi"], rows[f"{end}_lo"], rows[f"{side}_v6"])
        columns[f"{end}_p"] = numbers(rows[f"{end}_p"])
    columns |= {
        "start": times(rows["start"]),
        "end": times(rows["end"]),
        "client_uid": _leg_uids(names, rows["lb"], rows["client_conn"]),
        "lb_uid": _leg_uids(names, rows["lb"], rows["lb_conn"]),
        "server_uid": _leg_uids(names, rows["server"], rows["server_conn"]),
        "server_capture": words(rows["server"].astype(np.int64), [*names, ""]),
        "kind": words(rows["kind"], FLOW_KINDS),
        "proof": words(rows["proof"], PROOFS),
        "margin": numbers(rows["margin"]),
        "rivals": numbers(rows["rivals"]),
    }
    yield pa.table(columns)


def _addresses(high: Any, low: Any, v6: Any) -> pa.Array:
    """Addresses as text, a dictionary column."""
    return coded(*_told_apart(high, low, v6))


def _told_apart(high: Any, low: Any, v6: Any) -> tuple[Any, pa.Array]:
    """Of each address its number in a list of their texts."""
    hosts, codes = np.unique(np.stack([high, low, v6.astype(np.uint64)], axis=1), axis=0, return_inverse=True)
    table = np.zeros(len(hosts), HOST.dtype)
    table["hi"], table["lo"], table["v6"] = hosts.T
    return codes.ravel(), strings(address_texts(table))


def _leg_uids(names: list[str], vantages: Any, conns: Any) -> pa.Array:
    """Names of connections that lie in several captures."""
    texts = np.zeros(len(conns), "S12")
    for index, name in enumerate(names):
        mine = (vantages == index) & (conns >= 0)
        texts[mine] = uids(name, conns[mine])
    return letters(texts, texts == b"")


def clock_batches(analysis: Analysis) -> Iterator[pa.Table]:
    """The ``clocks`` table: the host clocks behind each address."""
    rows = analysis.joined.clocks
    unknown = rows["hz"] == 0
    hosts = [vantage.tracked.hosts for vantage in analysis.vantages]
    columns = {
        "capture": words(rows["vantage"].astype(np.int64), [vantage.name for vantage in analysis.vantages]),
        "host": _hosts_of(hosts, rows["vantage"], rows["host"]),
        "peer": _hosts_of(hosts, rows["vantage"], rows["peer"]),
        "number": numbers(rows["number"], rows["number"] == 0),
        "era": words(rows["era"], ERAS),
        "hz": numbers(rows["hz"], unknown),
        "offset": numbers(rows["offset"], unknown),
        "boot": times(rows["boot"]),
        "skew_ppm": numbers(rows["skew_ppm"], unknown | np.isnan(rows["skew_ppm"])),
        "skew_bound": numbers(rows["skew_bound"], unknown | ~np.isfinite(rows["skew_bound"])),
        "packets": numbers(rows["packets"]),
        "connections": numbers(rows["connections"]),
        "span": _seconds(rows["span"]),
    }
    yield pa.table(columns)


def _hosts_of(tables: list[Records], vantages: Any, ids: Any) -> pa.Array:
    """Addresses of host ids of several captures; null where the id is -1."""
    found = np.zeros(len(ids), HOST.dtype)
    for index, table in enumerate(tables):
        mine = (vantages == index) & (ids >= 0)
        found[mine] = table[ids[mine]]
    codes, texts = _told_apart(found["hi"], found["lo"], found["v6"])
    return coded(codes, texts, ids < 0)


Batches = Callable[[Analysis], Iterator[pa.Table]]
TABLES: dict[str, Batches] = {
    "syns": syn_batches,
    "connections": connection_batches,
    "snat_flows": snat_flow_batches,
    "peer_states": peer_state_batches,
    "clocks": clock_batches,
}


def write_tables(analysis: Analysis, folder: Path, form: str = "parquet") -> list[Path]:
    """Write each table as ``folder/NAME.FORM``.

    Args:
        analysis: What to write.
        folder: Existing folder.
        form: One of ``FORMATS``.

    Returns:
        The files written.
    """
    written = []
    for name, batches in TABLES.items():
        path = folder / f"{name}.{form}"
        _WRITERS[form](batches(analysis), path)
        written.append(path)
    return written


def _parquet(batches: Iterator[pa.Table], path: Path) -> None:
    import pyarrow.parquet as pq

    writer = None
    for table in batches:
        if writer is None:
            options = {"compression": "zstd", "compression_level": 1, "write_statistics": ORDERED}
            writer = pq.ParquetWriter(path, table.schema, use_dictionary=_few_values(table), **options)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _few_values(table: pa.Table) -> list[str]:
    return [f.name for f in table.schema if pa.types.is_dictionary(f.type)]


def _csv(batches: Iterator[pa.Table], path: Path) -> None:
    from pyarrow import csv

    with path.open("wb") as out:
        for number, table in enumerate(batches):
            flat = pa.table(
                {
                    f.name: strings([" ".join(map(str, v)) for v in table[f.name].to_pylist()])
                    if pa.types.is_list(f.type)
                    else table[f.name].cast(pa.string())
                    if pa.types.is_dictionary(f.type)
                    else table[f.name]
                    for f in table.schema
                }
            )
            csv.write_csv(flat, out, csv.WriteOptions(include_header=number == 0))


def _jsonl(batches: Iterator[pa.Table], path: Path) -> None:
    with path.open("w", encoding="utf-8") as out:
        for table in batches:
            texts = {
                f.name: table[f.name].cast(pa.string()).to_pylist()
                if pa.types.is_timestamp(f.type)
                else table[f.name].to_pylist()
                for f in table.schema
            }
            for values in zip(*texts.values(), strict=True):
                out.write(json.dumps(dict(zip(texts, values, strict=True))) + "\n")


_WRITERS = {"parquet": _parquet, "csv": _csv, "jsonl": _jsonl}

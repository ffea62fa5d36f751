"""Records → the public tables, chunk by chunk: Parquet, CSV or JSON lines.

Column names and their meaning are the contract with users; ``docs/tables.md`` is generated from here.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from analyzer.connections.names import host_texts, uids
from analyzer.diagnosis.model import Analysis, Vantage
from analyzer.kernel.rules import RULE_NAMES, WRITE_EVENTS
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
STAMPS = ("first_tsval", "last_tsval", "first_tsecr", "last_tsecr")
TIME = pa.timestamp("ns", tz="UTC")


def _times(values: Any) -> pa.Array:
    return pa.array(values, mask=values == NO_TIME, type=pa.int64()).cast(TIME)


def _words(codes: Any, words: Iterable[str], mask: Mask = None) -> pa.Array:
    """Codes as a dictionary column; an empty word is null."""
    listed = list(words)
    empty = np.array([not word for word in listed], np.bool_)[codes]
    hidden = empty if mask is None else empty | mask
    indices = pa.array(codes.astype(np.int32), mask=hidden if hidden.any() else None)
    return pa.DictionaryArray.from_arrays(indices, pa.array([word or "-" for word in listed], pa.string()))


def _numbers(values: Any, mask: Mask = None) -> pa.Array:
    return pa.array(values, mask=mask)


def _seconds(values: Any, mask: Mask = None) -> pa.Array:
    return pa.array(values / NS, mask=mask)


def _uids(name: str, conns: Any) -> pa.Array:
    return _texts(uids(name, conns), conns < 0)


def _texts(values: Any, mask: Mask = None) -> pa.Array:
    """Fixed-width byte strings as text."""
    return pa.array(values, mask=mask).cast(pa.string())


class Names:
    """Texts that a capture's records point to."""

    def __init__(self, vantage: Vantage) -> None:
        self.capture = vantage.name
        self.hosts = pa.array(host_texts(vantage.tracked.hosts), pa.string())
        self.files = pa.array([info.path for info in vantage.tracked.files], pa.string())

    def host(self, ids: Any) -> pa.Array:
        """Addresses of host ids."""
        return pa.DictionaryArray.from_arrays(pa.array(ids), self.hosts)

    def constant(self, count: int) -> pa.Array:
        """The capture's name, *count* times."""
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([self.capture]))

    def file(self, ids: Any) -> pa.Array:
        """File names by index."""
        return pa.DictionaryArray.from_arrays(pa.array(ids.astype(np.int32)), self.files)


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
    columns = {name: _times(path[name]) for name in PATH_TIMES}
    columns["flow"] = pa.array(path["flow"].astype(np.int64), mask=path["flow"] < 0)
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
        "frame": _numbers(rows["frame"]),
        "time": _times(rows["time"]),
        "src": names.host(rows["orig"]),
        "sport": _numbers(rows["orig_p"]),
        "dst": names.host(rows["resp"]),
        "dport": _numbers(rows["resp_p"]),
        "isn": _numbers(rows["isn"]),
        "tsval": _numbers(rows["tsval"], no_ts),
        "attempt": _numbers(rows["attempt"]),
        "answer": _words(rows["answer"], ANSWERS),
        "answer_frame": _numbers(rows["answer_frame"], no_answer),
        "answer_delay": _seconds(rows["answer_time"] - rows["time"], no_answer),
        "verdict": _words(verdicts["verdict"], VERDICTS),
        "certainty": _words(verdicts["certainty"], CERTAINTIES),
        "rule": _words(verdicts["rule"], RULE_NAMES),
        "reason": _words(verdicts["reason"], vantage.replayed.reasons),
        "peer_tsval": _numbers(verdicts["peer_tsval"], no_state),
        "peer_stamp_time": _times(np.where(no_stamp, NO_TIME, verdicts["peer_stamp_time"])),
        "peer_stamp_frame": _numbers(verdicts["peer_stamp_frame"], no_state | (verdicts["peer_stamp_frame"] == 0)),
        "tsval_delta": _numbers(verdicts["tsval_delta"], no_state | no_ts),
        "stamp_age": _seconds(verdicts["stamp_age"], no_stamp),
        "cause": _words(np.zeros(count, np.uint8), ("",)) if causes is None else _words(causes["cause"], CAUSES),
        "cause_certainty": _words(np.zeros(count, np.uint8), ("",))
        if causes is None
        else _words(causes["certainty"], CAUSE_CERTAINTIES),
        "aggravated_by": _words(np.zeros(count, np.uint8), ("",))
        if causes is None
        else _words(causes["aggravated_by"], CAUSES, causes["aggravated_by"] == 0),
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


def _rexmit_delays(vantage: Vantage) -> dict[int, list[float]]:
    """Delays of repeated SYNs after the first, by connection."""
    first: dict[int, int] = {}
    delays: dict[int, list[float]] = {}
    for rows in vantage.tracked.syns.chunks():
        repeated = np.unique(rows["conn"][rows["attempt"] > 1])
        mine = rows[np.isin(rows["conn"], repeated)]
        for conn, time, attempt in mine[["conn", "time", "attempt"]].tolist():
            if attempt == 1:
                first[conn] = time
            elif conn in first:
                delays.setdefault(conn, []).append((time - first[conn]) / NS)
    return delays


def _connections(names: Names, rows: Records, delays: dict[int, list[float]]) -> pa.Table:
    seen = rows["seen"]
    orig_ts, resp_ts = (seen & SEEN_TS_ORIG) == 0, (seen & SEEN_TS_RESP) == 0
    no_previous = rows["previous"] < 0
    columns = {
        "capture": names.constant(len(rows)),
        "uid": _uids(names.capture, rows["conn"]),
        "orig_h": names.host(rows["orig"]),
        "orig_p": _numbers(rows["orig_p"]),
        "resp_h": names.host(rows["resp"]),
        "resp_p": _numbers(rows["resp_p"]),
        "start": _times(rows["start"]),
        "end": _times(rows["end"]),
        "conn_state": _words(rows["state"], CONN_STATES),
        "history": _texts(rows["history"]),
        "isn_orig": _numbers(rows["isn_orig"], (seen & SEEN_SYN) == 0),
        "isn_resp": _numbers(rows["isn_resp"], (seen & SEEN_SYN_ACK) == 0),
        "syn_count": _numbers(rows["syn_count"]),
        "syn_rexmit_delays": _lists(rows["conn"], delays),
        "syn_ack_count": _numbers(rows["syn_ack_count"]),
        **{
            name: _times(rows[name])
            for name in (
                "syn_ack_time", "established_time", "fin_orig_time", "fin_resp_time", "fin_orig_acked",
                "fin_resp_acked", "rst_time",
            )
        },
        "rst_by": _words(_reset_by(seen), ("", "orig", "resp", "both")),
        "closer": _words(rows["closer"], CLOSERS),
        **{f"{name}_orig": _numbers(rows[f"{name}_orig"], orig_ts) for name in STAMPS},
        **{f"{name}_resp": _numbers(rows[f"{name}_resp"], resp_ts) for name in STAMPS},
        "packets_orig": _numbers(rows["packets_orig"]),
        "packets_resp": _numbers(rows["packets_resp"]),
        "bytes_orig": _numbers(rows["bytes_orig"]),
        "bytes_resp": _numbers(rows["bytes_resp"]),
        "previous_uid": _uids(names.capture, rows["previous"]),
        "reuse_interval": _seconds(rows["start"] - rows["previous_end"], no_previous),
        "start_frame": _numbers(rows["start_frame"]),
        "end_frame": _numbers(rows["end_frame"]),
    }  # fmt: skip
    return pa.table(columns)


def _lists(conns: Any, delays: dict[int, list[float]]) -> pa.Array:
    """One list of delays per connection; most are empty."""
    counts = np.zeros(len(conns), np.int32)
    values: list[float] = []
    known = np.isin(conns, list(delays)) if delays else np.zeros(len(conns), np.bool_)
    for at in np.flatnonzero(known).tolist():
        mine = delays[int(conns[at])]
        counts[at] = len(mine)
        values.extend(mine)
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, pa.float64()))


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
                "time": _times(rows["time"]),
                "tsval": _numbers(rows["tsval"]),
                "stamp_second": _numbers(rows["stamp_second"]),
                "frame": _numbers(rows["frame"]),
                "event": _words(rows["event"], WRITE_EVENTS),
                "certain": pa.array(rows["certain"] == 1),
                "stored": _words(rows["stored"], ("no", "yes", "unknown")),
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
        columns[f"{end}_p"] = _numbers(rows[f"{end}_p"])
    columns |= {
        "start": _times(rows["start"]),
        "end": _times(rows["end"]),
        "client_uid": _leg_uids(names, rows["lb"], rows["client_conn"]),
        "lb_uid": _leg_uids(names, rows["lb"], rows["lb_conn"]),
        "server_uid": _leg_uids(names, rows["server"], rows["server_conn"]),
        "server_capture": _words(rows["server"].astype(np.int64), [*names, ""]),
        "kind": _words(rows["kind"], FLOW_KINDS),
        "proof": _words(rows["proof"], PROOFS),
        "margin": _numbers(rows["margin"]),
        "rivals": _numbers(rows["rivals"]),
    }
    yield pa.table(columns)


def _addresses(high: Any, low: Any, v6: Any) -> pa.Array:
    """Addresses as text, a dictionary column."""
    hosts, codes = np.unique(np.stack([high, low, v6.astype(np.uint64)], axis=1), axis=0, return_inverse=True)
    table = np.zeros(len(hosts), HOST.dtype)
    table["hi"], table["lo"], table["v6"] = hosts[:, 0], hosts[:, 1], hosts[:, 2]
    return pa.DictionaryArray.from_arrays(pa.array(codes.ravel().astype(np.int32)), pa.array(host_texts(table)))


def _leg_uids(names: list[str], vantages: Any, conns: Any) -> pa.Array:
    """Names of connections that lie in several captures."""
    texts = np.zeros(len(conns), "S12")
    for index, name in enumerate(names):
        mine = (vantages == index) & (conns >= 0)
        texts[mine] = uids(name, conns[mine])
    return _texts(texts, texts == b"")


def clock_batches(analysis: Analysis) -> Iterator[pa.Table]:
    """The ``clocks`` table: the host clocks behind each address."""
    rows = analysis.joined.clocks
    unknown = rows["hz"] == 0
    hosts = [vantage.tracked.hosts for vantage in analysis.vantages]
    columns = {
        "capture": _words(rows["vantage"].astype(np.int64), [vantage.name for vantage in analysis.vantages]),
        "host": _hosts_of(hosts, rows["vantage"], rows["host"]),
        "peer": _hosts_of(hosts, rows["vantage"], rows["peer"]),
        "number": _numbers(rows["number"], rows["number"] == 0),
        "era": _words(rows["era"], ERAS),
        "hz": _numbers(rows["hz"], unknown),
        "offset": _numbers(rows["offset"], unknown),
        "boot": _times(rows["boot"]),
        "skew_ppm": _numbers(rows["skew_ppm"], unknown),
        "skew_bound": _numbers(rows["skew_bound"], unknown | ~np.isfinite(rows["skew_bound"])),
        "packets": _numbers(rows["packets"]),
        "connections": _numbers(rows["connections"]),
        "span": _seconds(rows["span"]),
    }
    yield pa.table(columns)


def _hosts_of(tables: list[Records], vantages: Any, ids: Any) -> pa.Array:
    """Addresses of host ids of several captures; null where the id is -1."""
    found = np.zeros(len(ids), HOST.dtype)
    for index, table in enumerate(tables):
        mine = (vantages == index) & (ids >= 0)
        found[mine] = table[ids[mine]]
    texts = _addresses(found["hi"], found["lo"], found["v6"]) if len(found) else pa.array([], pa.string())
    return pa.array(texts.to_pylist(), pa.string(), mask=ids < 0).dictionary_encode()


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
            writer = pq.ParquetWriter(
                path, table.schema, compression="zstd", compression_level=1, use_dictionary=_few_values(table)
            )
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
                    f.name: pa.array([" ".join(map(str, v)) for v in table[f.name].to_pylist()], pa.string())
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

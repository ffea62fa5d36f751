"""The chain behind one SYN: packet → connection → pair → peer's memory → rule → verdict → cause."""

import html
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.connections.names import host_text, uid
from analyzer.diagnosis.lookup import Row, find
from analyzer.diagnosis.model import Analysis
from analyzer.kernel.catalogue import RULES
from analyzer.kernel.rules import RULE_NAMES
from analyzer.schema import (
    ANSWERS,
    CAUSE_CERTAINTIES,
    CAUSES,
    CERTAINTIES,
    CLOSERS,
    CONN_STATES,
    FLOW_KINDS,
    OPT_TS,
    OPT_WSCALE,
    PROOFS,
    VERDICTS,
)
from analyzer.units import NO_TIME, NS

Facts = dict[str, object]

_DOES = {
    "unknown": "cannot be told",
    "accept": "answers it with a SYN-ACK",
    "drop": "drops it without a word",
    "ack": "answers it with a bare ACK",
    "rst": "answers it with a RST",
    "cookie": "answers it with a SYN cookie",
}


@dataclass(frozen=True)
class Link:
    """One link of the chain.

    Attributes:
        name: ``packet``, ``connection``, ``pair``, ``memory``, ``rule``, ``verdict`` or ``cause``.
        text: One sentence.
        facts: Its numbers by name; times as text in UTC, spans in seconds.
    """

    name: str
    text: str
    facts: Facts


@dataclass(frozen=True)
class Explanation:
    """Why one SYN got the verdict it got.

    Attributes:
        capture: Vantage that the SYN was seen in.
        frame: Its frame number there.
        links: The chain, in order; every link is there, a missing one says what is missing.
    """

    capture: str
    frame: int
    links: tuple[Link, ...]

    def __getitem__(self, name: str) -> Link:
        """A link by its name.

        Raises:
            KeyError: No such link.
        """
        for link in self.links:
            if link.name == name:
                return link
        raise KeyError(name)

    @property
    def verdict(self) -> str:
        """What the replayed kernel does with the SYN."""
        return str(self["verdict"].facts["verdict"])

    @property
    def rule(self) -> str:
        """Name of the rule that decided."""
        return str(self["rule"].facts["rule"])

    @property
    def cause(self) -> str:
        """Best explanation of what happened to it; empty where its capture was not diagnosed."""
        return str(self["cause"].facts.get("cause", ""))

    def __str__(self) -> str:
        """The chain as plain text, a line per link."""
        return "\n".join(f"{link.name}: {link.text}" for link in self.links)

    def _repr_html_(self) -> str:
        """The chain as a table, for notebooks; everything escaped."""
        rows = []
        for link in self.links:
            facts = ", ".join(f"{html.escape(k)}={html.escape(str(v))}" for k, v in link.facts.items())
            rows.append(
                f'<tr><th scope="row" style="text-align:left">{html.escape(link.name)}</th>'
                f'<td style="text-align:left">{html.escape(link.text)}<br><small>{facts}</small></td></tr>'
            )
        title = html.escape(f"SYN in frame {self.frame} of {self.capture}")
        return f"<table><caption>{title}</caption><tbody>{''.join(rows)}</tbody></table>"


def explain(analysis: Analysis, frame: int, capture: str | None = None) -> Explanation:
    """The chain behind one SYN.

    Args:
        analysis: What was found.
        frame: Frame number, as Wireshark counts.
        capture: Name of the vantage, or of one of its files; the decisive capture if not given.

    Raises:
        UsageError: No such capture, no such frame, or a frame that is no SYN; the line names the
            nearest SYN of the frame's connection.
    """
    row = find(analysis, frame, capture)
    links = (_packet(row), _connection(row), _pair(analysis, row), _memory(row), _rule(row), _verdict(row), _cause(row))
    return Explanation(row.vantage.name, frame, links)


def _when(ns: int) -> str:
    return "" if ns == NO_TIME else str(np.datetime64(ns, "ns")).replace("T", " ")


def _span(ns: int) -> float:
    return round(ns / NS, 9)


def _ends(row: Row) -> tuple[str, str]:
    hosts, syn = row.vantage.tracked.hosts, row.syn
    orig, resp = host_text(hosts, int(syn["orig"])), host_text(hosts, int(syn["resp"]))
    return f"{orig} port {int(syn['orig_p'])}", f"{resp} port {int(syn['resp_p'])}"


def _packet(row: Row) -> Link:
    syn = row.syn
    source, target = _ends(row)
    facts: Facts = {
        "capture": row.vantage.name,
        "file": row.file,
        "frame": int(syn["frame"]),
        "time": _when(int(syn["time"])),
        "isn": int(syn["isn"]),
        "tsval": int(syn["tsval"]) if syn["opts"] & OPT_TS else None,
        "mss": int(syn["mss"]) or None,
        "wscale": int(syn["wscale"]) if syn["opts"] & OPT_WSCALE else None,
        "ttl": int(syn["ttl"]),
        "attempt": int(syn["attempt"]),
    }
    stamp = f"TSval {facts['tsval']}" if facts["tsval"] is not None else "no timestamps"
    text = f"SYN from {source} to {target} at {facts['time']}, ISN {facts['isn']}, {stamp}, try {facts['attempt']}."
    return Link("packet", text, facts)


def _connection(row: Row) -> Link:
    conn, syn = row.connection, row.syn
    name = uid(row.vantage.name, int(syn["conn"]))
    answer = ANSWERS[int(syn["answer"])]
    facts: Facts = {"uid": name, "answer": answer}
    if syn["answer_time"] != NO_TIME:
        facts["answer_frame"] = int(syn["answer_frame"])
        facts["answer_delay"] = _span(int(syn["answer_time"]) - int(syn["time"]))
    if conn is None:
        return Link("connection", f"Part of connection {name}.", facts)
    facts |= {
        "conn_state": CONN_STATES[int(conn["state"])],
        "history": conn["history"].decode(),
        "syn_count": int(conn["syn_count"]),
        "closer": CLOSERS[int(conn["closer"])],
    }
    text = f"Connection {name}: {facts['syn_count']} SYNs, state {facts['conn_state']}, history {facts['history']}"
    if conn["previous"] >= 0:
        facts["previous_uid"] = uid(row.vantage.name, int(conn["previous"]))
        facts["reuse_interval"] = _span(int(conn["start"]) - int(conn["previous_end"]))
        text += f"; the same four numbers were in use {facts['reuse_interval']:.3f} s before"
    came = "nothing came back in this capture" if answer == "none" else f"the answer here was {answer}"
    return Link("connection", f"{text}; {came}.", facts)


def _pair(analysis: Analysis, row: Row) -> Link:
    path = row.path
    points = {
        "time_lb_client": "the load balancer's client side",
        "time_lb_server": "its server side",
        "time_server": "the server",
        "time_answered": "answered there",
        "time_answer_lb": "answer at the load balancer",
        "time_answer_client": "answer on its client side",
    }
    seen: Facts = {name: _when(int(path[name])) for name in points if path[name] != NO_TIME}
    where = ", ".join(words for name, words in points.items() if name in seen)
    if path["flow"] < 0:
        text = f"Seen at {where}." if seen else "Not paired with a SYN of another leg or capture."
        return Link("pair", text, seen)
    flow = analysis.joined.flows[int(path["flow"])]
    facts: Facts = {
        **{end: _endpoint(flow, end) for end in ("client", "vip", "snat", "server")},
        "proof": PROOFS[int(flow["proof"])],
        "kind": FLOW_KINDS[int(flow["kind"])],
        "margin": round(float(flow["margin"]), 3),
        "rivals": int(flow["rivals"]),
        **seen,
    }
    text = (
        f"{facts['client']} → {facts['vip']} is {facts['snat']} → {facts['server']} behind the load balancer "
        f"(proof: {facts['proof']}); seen at {where}."
    )
    return Link("pair", text, facts)


def _endpoint(flow: Any, end: str) -> str:
    high, low, port = int(flow[f"{end}_hi"]), int(flow[f"{end}_lo"]), int(flow[f"{end}_p"])
    if not high and not low:
        return "not seen"
    hosts = np.zeros(1, [("hi", "u8"), ("lo", "u8"), ("v6", "u1")])
    hosts[0] = high, low, int(flow["client_v6" if end in ("client", "vip") else "server_v6"])
    text = host_text(hosts, 0)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def _memory(row: Row) -> Link:
    verdict, syn = row.verdict, row.syn
    if verdict is None or not verdict["compared"]:
        return Link("memory", "Nothing that the server remembered or held was compared with this SYN.", {})
    facts: Facts = {"peer_tsval": int(verdict["peer_tsval"])}
    text = f"The server held TSval {facts['peer_tsval']}"
    if verdict["peer_stamp_frame"]:
        facts["peer_stamp_frame"] = int(verdict["peer_stamp_frame"])
        facts["peer_stamp_time"] = _when(int(verdict["peer_stamp_time"]))
        text += f" from frame {facts['peer_stamp_frame']}"
    if verdict["peer_stamp_time"] != NO_TIME:
        facts["stamp_age"] = _span(int(verdict["stamp_age"]))
        text += f", {facts['stamp_age']:.6f} s before the SYN"
    if syn["opts"] & OPT_TS:
        facts["tsval_delta"] = int(verdict["tsval_delta"])
        way = "behind" if verdict["tsval_delta"] < 0 else "ahead of"
        text += f"; the SYN's {int(syn['tsval'])} is {abs(int(verdict['tsval_delta'])):,} ticks {way} it"
    return Link("memory", text + ".", facts)


def _rule(row: Row) -> Link:
    name = "" if row.verdict is None else RULE_NAMES[int(row.verdict["rule"])]
    known = RULES.get(name)
    if known is None:
        return Link("rule", "No rule could be applied.", {"rule": name})
    counters = ", ".join(known.counters)
    facts: Facts = {"rule": name, "versions": known.versions, "where": known.where, "counters": counters}
    return Link("rule", f"{name}: {known.summary}", facts)


def _verdict(row: Row) -> Link:
    verdict = row.verdict
    if verdict is None:
        facts: Facts = {"verdict": "unknown", "certainty": "none"}
        return Link("verdict", "Not judged: no server answers for this SYN in this capture.", facts)
    word, certainty = VERDICTS[int(verdict["verdict"])], CERTAINTIES[int(verdict["certainty"])]
    facts = {"verdict": word, "certainty": certainty, "kernel": row.profile}
    text = f"Kernel {row.profile} {_DOES[word]} ({certainty})"
    if word == "unknown":
        text = f"It {_DOES[word]} under kernel {row.profile}"
    if verdict["reason"]:
        facts["reason"] = row.reason
        text += f": {row.reason}"
    if verdict["alternative"]:
        facts["alternative"] = RULE_NAMES[int(verdict["alternative"])]
        text += f"; it may also be {facts['alternative']}"
    return Link("verdict", text.rstrip(".") + ".", facts)


def _cause(row: Row) -> Link:
    cause = row.cause
    if cause is None:
        return Link("cause", "This capture was not diagnosed.", {})
    word, certainty = CAUSES[int(cause["cause"])], CAUSE_CERTAINTIES[int(cause["certainty"])]
    facts: Facts = {"cause": word, "certainty": certainty}
    text = "Nothing went wrong: it was answered." if word == "answered" else f"{word} ({certainty})."
    if cause["aggravated_by"]:
        facts["aggravated_by"] = CAUSES[int(cause["aggravated_by"])]
        text = f"{text} Made worse by {facts['aggravated_by']}."
    return Link("cause", text, facts)

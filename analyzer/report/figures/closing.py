"""From the close to the next SYN: FIN, its ACK, and the SYN that came too soon."""

from typing import Any

import numpy as np

from analyzer.report.figures.data import Points, Records, View
from analyzer.report.figures.style import (
    ACCEPTED,
    INK,
    REJECTED,
    WINDOW,
    Picture,
    dress,
    legend_below,
    new_figure,
)
from analyzer.report.words import count, span
from analyzer.schema import CAUSES
from analyzer.units import NO_TIME, NS

NAME = "closing"
SECTION = "causes"
ALT = (
    "For failed SYNs, one per row: the first FIN of the connection whose close the server still remembered, the other "
    "FIN, the last ACK of a FIN and the SYN, in time after that first FIN; the 60 s of memory are shaded."
)
BY_CLOSE = [CAUSES.index(c) for c in ("peer_timestamp", "time_wait_paws", "time_wait_sequence")]
PEER_TIMESTAMP = CAUSES.index("peer_timestamp")
MOST_ROWS = 20
SHORTEST = 1e-4
TICKS = {1e-4: "≤ 0.1 ms", 1e-3: "1 ms", 1e-2: "10 ms", 0.1: "0.1 s", 1: "1 s", 10: "10 s", 60: "60 s"}


def draw(view: View) -> Picture | None:
    """At most 20 first SYNs, spread over all delays; None where no close made a SYN fail."""
    data = view.servers
    data = data.where(np.isin(data.causes, BY_CLOSE) & (data.syns["attempt"] == 1))
    if not len(data):
        return None
    cases = [case for index in np.unique(data.vantage).tolist() for case in _cases(view, data, index)]
    if not cases:
        return None
    cases.sort(key=lambda case: case[1])
    picks = np.unique(np.linspace(0, len(cases) - 1, min(len(cases), MOST_ROWS)).round().astype(int))
    return _plot([cases[i] for i in picks.tolist()], [case[1] for case in cases])


def _cases(view: View, data: Points, index: int) -> list[tuple[str, float, dict[str, float]]]:
    """(label, delay of the SYN, delays of the close's packets) per SYN whose close is in the capture."""
    mine = data.where(data.vantage == index)
    closes = _closes(view, mine, index)
    connections = _fetch(view, index, closes)
    found = []
    for row, source, close in zip(mine.syns, mine.source.tolist(), closes.tolist(), strict=True):
        if close not in connections:
            continue
        old = connections[close]
        times = {"orig": int(old["fin_orig_time"]), "resp": int(old["fin_resp_time"])}
        began = min((t for t in times.values() if t != NO_TIME), default=NO_TIME)
        if began == NO_TIME or int(row["time"]) <= began:
            continue
        times["acked"] = max(int(old["fin_orig_acked"]), int(old["fin_resp_acked"]))
        delays = {name: (t - began) / NS for name, t in times.items() if t != NO_TIME}
        label = f"{mine.sources[source]}:{int(row['orig_p'])} #{int(row['frame'])}"
        found.append((label, (int(row["time"]) - began) / NS, delays))
    return found


def _closes(view: View, mine: Points, index: int) -> Any:
    """Connection id of the close that each SYN was held against, -1 if unknown."""
    vantage = view.analysis.vantages[index]
    assert vantage.replayed is not None
    writes = vantage.replayed.peer_states
    by_frame = {(frame, file): conn for frame, file, conn in writes[["frame", "file", "conn"]].tolist()}
    previous: dict[int, int] = {}
    wanted = np.unique(mine.syns["conn"])
    for chunk in vantage.tracked.connections.chunks():
        hit = chunk[np.isin(chunk["conn"], wanted)]
        previous.update(zip(hit["conn"].tolist(), hit["previous"].tolist(), strict=True))
    closes = []
    for syn, verdict, cause in zip(mine.syns, mine.verdicts, mine.causes.tolist(), strict=True):
        stamp = (int(verdict["peer_stamp_frame"]), int(verdict["peer_stamp_file"]))
        peer = cause == PEER_TIMESTAMP
        closes.append(by_frame.get(stamp, -1) if peer else previous.get(int(syn["conn"]), -1))
    return np.array(closes, np.int64)


def _fetch(view: View, index: int, wanted: Any) -> dict[int, Any]:
    wanted = np.unique(wanted[wanted >= 0])
    found: dict[int, Any] = {}
    for chunk in view.analysis.vantages[index].tracked.connections.chunks():
        rows: Records = chunk[np.isin(chunk["conn"], wanted)]
        found.update(zip(rows["conn"].tolist(), rows, strict=True))
    return found


def _plot(cases: list[tuple[str, float, dict[str, float]]], delays: list[float]) -> Picture:
    figure = new_figure(9.0, 1.7 + 0.2 * len(cases))
    axes = figure.add_subplot(1, 1, 1)
    axes.set_xscale("log")
    high = max(90.0, max(delays) * 1.2)
    axes.axvspan(SHORTEST, 60, color=WINDOW, alpha=0.28, linewidth=0, label="a close is remembered")
    axes.axvline(60, color=INK, linestyle=":", linewidth=1)
    rows = np.arange(len(cases))
    for row, (_, delay, _) in zip(rows.tolist(), cases, strict=True):
        axes.plot([SHORTEST, delay], [row, row], color="#999999", linewidth=0.7, zorder=1)
    looks = (
        ("resp", "s", INK, "server's FIN"),
        ("orig", "o", ACCEPTED, "client's FIN"),
        ("acked", "^", INK, "last FIN acked"),
    )
    for name, mark, colour, label in looks:
        at = [(max(c[2][name], SHORTEST), row) for row, c in zip(rows.tolist(), cases, strict=True) if name in c[2]]
        if at:
            x, y = zip(*at, strict=True)
            face = colour if mark == "s" else "none"
            axes.scatter(
                x, y, marker=mark, s=30, facecolors=face, edgecolors=colour, label=label, zorder=3, clip_on=False
            )
    axes.scatter([c[1] for c in cases], rows, marker="x", s=34, color=REJECTED, label="SYN that failed", zorder=4)
    early = sum(1 for d in delays if d < 60)
    title = (
        f"{early:,} of {count(len(delays), 'failed first SYN')} came within 60 s of the close "
        f"({span(min(delays))} to {span(max(delays))} after its first FIN)"
    )
    dress(axes, title, "time since the first FIN of the close (log scale)", "")
    axes.set_yticks(rows, [c[0] for c in cases], fontsize=7)
    axes.set_ylim(len(cases) - 0.4, -0.6)
    shown = {at: word for at, word in TICKS.items() if at <= high}
    axes.set_xlim(SHORTEST, high)
    axes.set_xticks(list(shown), list(shown.values()))
    axes.set_xticks([], minor=True)
    legend_below(axes, 5)
    return Picture(figure, title)

"""Lines of a probe on the live server, from any of the tools that people use.

Known: the lines of our own scripts (PROVEN, STAMP, DROP, LISTEN, SENT), of an instrumented kernel's log
(``ORA PROVEN``, ``ORA SYN``, ``ORA TWRX``, ``ORA STAMP``), and drop reasons as ``perf script``, the trace
buffer, ``bpftrace`` one-liners and ``dropwatch`` print them.
"""

import gzip
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from analyzer.errors import InputError
from analyzer.units import NO_TIME, NS

LONGEST_LINE = 4096
MOST_LINES = 1_000_000
PAIRED_WITHIN = NS // 100
"""A check and the kernel's decision on the same SYN are no further apart in a log."""


@dataclass(frozen=True, slots=True)
class ProbeLine:
    """One decision of the kernel, as a probe printed it.

    Attributes:
        kind: ``check`` (per-peer test), ``decision`` (what became of a SYN), ``bucket`` (a SYN at a
            TIME-WAIT), ``drop`` (a freed packet), ``listen`` (a SYN at a listener) or ``stamp`` (a write).
        text: The line as it stands, at most 200 characters.
        time: ns UTC, NO_TIME if it has none.
        source, sport, dest, dport: Addresses as text; empty and 0 where the line has none.
        seq, tsval: None where the line has none.
        word: The probe's own word, for the matrix.
        stored: (TSval, second) that the check compared with, None if the line has none.
    """

    kind: str
    text: str
    time: int = NO_TIME
    source: str = ""
    sport: int = 0
    dest: str = ""
    dport: int = 0
    seq: int | None = None
    tsval: int | None = None
    word: str = ""
    stored: tuple[int, int] | None = None


@dataclass
class ProbeLog:
    """What a log holds.

    Attributes:
        lines: Decisions, in order.
        ignored: Lines that are no probe output.
    """

    lines: list[ProbeLine] = field(default_factory=list)
    ignored: int = 0


_FIELD = re.compile(r"(\w+)=(\S+)")
_STAMPED = re.compile(r"^\s*(\d{9,10}\.\d{1,9})\s")
_TRACE_TIME = re.compile(r"\s(\d+\.\d{1,9}):\s")
_PAIR = re.compile(r"(\d+\.\d+\.\d+\.\d+)[:.](\d{1,5})\s*(?:->|→|>|=>)\s*(\d+\.\d+\.\d+\.\d+)[:.](\d{1,5})")
_REASON = re.compile(r"(?:reason[:=]\s*|SKB_DROP_REASON_)(?:SKB_DROP_REASON_)?([A-Z][A-Z0-9_]+)")
_DROPWATCH_TIME = re.compile(r"^timestamp:\s+\w+ (\w+\s+\d+ [\d:]+ \d{4})(?: (\d+) nsec)?")
_SILENT = ("#", "SENT ", "Attaching ", "Lost ")


def read_probe_log(lines: Iterable[str]) -> ProbeLog:
    """Sort a log's lines into decisions and the rest.

    Args:
        lines: Text lines; longer ones than ``LONGEST_LINE`` count as ignored, those after ``MOST_LINES`` are
            not read.
    """
    log = ProbeLog()
    watch: dict[str, str] = {}
    for number, raw in enumerate(lines):
        if number >= MOST_LINES:
            break
        line = raw.strip()
        if not line or line.startswith(_SILENT):
            continue
        if line.startswith(("drop at:", "timestamp:", "drop reason:", "origin:", "protocol:", "length:", "original")):
            found = _dropwatch(watch, line)
        else:
            found = _line(line) if len(line) <= LONGEST_LINE else None
            if found is None and " ORA " not in line:
                log.ignored += 1
        if found is not None:
            _add(log.lines, found)
    return log


def load_probe_log(path: str, rewrite: Callable[[str], str] | None = None) -> ProbeLog:
    """The lines of a file, plain or gzip.

    Args:
        path: The file.
        rewrite: Applied to every line before it is read, for addresses that must not be seen.

    Raises:
        InputError: It cannot be read, or no line of it is probe output.
    """
    try:
        with Path(path).open("rb") as probe:
            packed = probe.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rt", errors="replace") if packed else Path(path).open(errors="replace") as file:
            lines = _bounded(file)
            log = read_probe_log(lines if rewrite is None else map(rewrite, lines))
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not log.lines and log.ignored:
        raise InputError(f"{path}: no line of a probe: give the output of synquest probe's script, or kfree_skb lines")
    return log


def _bounded(file: object) -> Iterator[str]:
    """Lines, each read only as far as any probe writes."""
    while line := file.readline(LONGEST_LINE + 1):  # type: ignore[attr-defined]
        yield line


def _add(lines: list[ProbeLine], found: ProbeLine) -> None:
    """Append; a check and the decision that follows it on the same SYN become one line."""
    last = lines[-1] if lines else None
    if (
        last is not None
        and found.kind == "decision"
        and last.kind == "check"
        and not last.sport
        and last.source == found.source
        and abs(found.time - last.time) < PAIRED_WITHIN
    ):
        lines[-1] = replace(found, tsval=last.tsval, stored=last.stored)
        return
    lines.append(found)


def _line(line: str) -> ProbeLine | None:
    head = line.partition(" ")[0]
    fields = dict(_FIELD.findall(line))
    try:
        if head in ("PROVEN", "STAMP", "DROP", "LISTEN"):
            return _own(head, fields, line)
        if " ORA " in line:
            return _kernel_log(line, fields)
        return _reason(line)
    except (ValueError, KeyError, OverflowError):
        return None


def _seconds(text: str) -> int:
    """``12.5`` as 12 500 000 000 ns, exactly."""
    whole, _, part = text.partition(".")
    return int(whole) * NS + int(part.ljust(9, "0")[:9] or 0)


def _own(head: str, fields: dict[str, str], line: str) -> ProbeLine:
    """A line of our scripts, and of the simulator."""
    common = ProbeLine(
        {"PROVEN": "check", "STAMP": "stamp", "DROP": "drop", "LISTEN": "listen"}[head],
        line[:200],
        _seconds(fields["time"]),
        fields.get("saddr", ""),
        int(fields.get("sport", 0)),
        fields.get("daddr", ""),
        int(fields.get("dport", 0)),
        int(fields["seq"]) if "seq" in fields else None,
        _tsval(fields.get("tsval", "none")),
    )
    if head == "PROVEN":
        stored = (int(fields["tcpm_ts"]), int(fields["tcpm_stamp"]))
        return replace(common, word=f"PROVEN ret={int(fields['ret'])}", stored=stored)
    if head == "DROP":
        reason = fields.get("reason", "")
        if not reason or reason.startswith("code="):
            reason = f"code {fields.get('code', '?')}"
        return replace(common, word=f"DROP {reason.removeprefix('SKB_DROP_REASON_')}")
    if head == "LISTEN":
        full = int(fields["ackq"]) > int(fields["ackqmax"])
        return replace(common, word="LISTEN accept queue full" if full else "LISTEN accept queue has room")
    return replace(common, word="STAMP")


def _tsval(text: str) -> int | None:
    return None if text == "none" else int(text)


def _kernel_log(line: str, fields: dict[str, str]) -> ProbeLine | None:
    """A line that an instrumented kernel printed."""
    stamped = _STAMPED.match(line)
    what = line.split(" ORA ", 1)[1].split(" ", 1)[0]
    common = ProbeLine("", line[:200], _seconds(stamped[1]) if stamped else NO_TIME, fields.get("src", ""))
    if what == "PROVEN" and "nodst" not in line:
        tsval = int(fields["ts_recent"]) if fields.get("saw_ts", "1") == "1" else None
        stored = (int(fields["tcpm_ts"]), int(fields["tcpm_stamp"]))
        return replace(common, kind="check", tsval=tsval, word=f"PROVEN ret={int(fields['ret'])}", stored=stored)
    if what == "SYN":
        word = fields["v"] if fields["why"] == fields["v"] else f"{fields['v']} {fields['why']}"
        return replace(common, kind="decision", sport=int(fields["sport"]), seq=int(fields["seq"]), word=word)
    if what == "TWRX" and fields.get("syn") == "1" and fields["res"] != "SYN":
        word = f"TIME-WAIT {fields['res']}"
        return replace(common, kind="bucket", sport=int(fields["sport"]), seq=int(fields["seq"]), word=word)
    if what == "STAMP":
        wrote = int(fields["wrote"])
        return replace(
            common, kind="stamp", source=fields["peer"], sport=int(fields["port"]), tsval=int(fields["ts_recent"]),
            word=f"STAMP wrote={wrote}",
        )  # fmt: skip
    return None


def _reason(line: str) -> ProbeLine | None:
    """A drop reason in the words of perf, the trace buffer or somebody's one-liner."""
    reason = _REASON.search(line)
    if reason is None:
        return None
    pair = _PAIR.search(line)
    stamped, traced = _STAMPED.match(line), _TRACE_TIME.search(line)
    time = _seconds(stamped[1]) if stamped else _seconds(traced[1]) if traced else NO_TIME
    ends = (pair[1], int(pair[2]), pair[3], int(pair[4])) if pair else ("", 0, "", 0)
    return ProbeLine("drop", line[:200], time, *ends, word=f"DROP {reason[1]}")


def _dropwatch(watch: dict[str, str], line: str) -> ProbeLine | None:
    """Dropwatch spreads a drop over lines; its last one is the reason."""
    if line.startswith("drop at:"):
        watch.clear()
        watch["at"] = line
    elif line.startswith("timestamp:"):
        watch["time"] = line
    elif line.startswith("drop reason:"):
        reason = line.split(":", 1)[1].strip().removeprefix("SKB_DROP_REASON_")
        when = _DROPWATCH_TIME.match(watch.get("time", ""))
        time = NO_TIME
        if when:
            try:
                parsed = datetime.strptime(" ".join(when[1].split()), "%b %d %H:%M:%S %Y").replace(tzinfo=UTC)
                time = int(parsed.timestamp()) * NS + int(when[2] or 0)
            except ValueError:
                time = NO_TIME
        return ProbeLine("drop", f"{watch.get('at', '')} {line}"[:200], time, word=f"DROP {reason}")
    return None

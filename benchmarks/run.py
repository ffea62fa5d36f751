"""One command that measures us and the peers installed here, in turn, on one generated capture.

Prints user + system CPU seconds, peak memory of the largest process, and ratios against tcpdump.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TRACK = (
    "import sys; from analyzer.capture import open_capture; from analyzer.connections import track; "
    "track(open_capture([sys.argv[1]], 'x', hashes=False))"
)
READ = (
    "import sys; from analyzer.capture import open_capture; "
    "[0 for _ in open_capture([sys.argv[1]], 'x', hashes=False).blocks()]"
)
DPKT = (
    "import sys, dpkt; f = dpkt.pcap.Reader(open(sys.argv[1], 'rb')); rows = []\n"
    "for t, b in f:\n"
    "    i = dpkt.ethernet.Ethernet(b).data; c = getattr(i, 'data', None)\n"
    "    if isinstance(c, dpkt.tcp.TCP):\n"
    "        rows.append((t, i.src, i.dst, c.sport, c.dport, c.seq, c.ack, dpkt.tcp.parse_opts(c.opts)))"
)


def measure(command: list[str]) -> tuple[float, float]:
    """CPU seconds and peak MB of one run; a failing command ends the benchmark."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in (0, -13):
        raise SystemExit(f"{command[0]} ended with {child.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def jobs(capture: Path, part: Path, out: Path) -> dict[str, tuple[list[str], bool]]:
    """Commands by name; True where a smaller capture is used because the peer is slow."""
    python = sys.executable
    ours = [python, "-m", "analyzer.cli", "analyze", "--no-figures", "--server", str(capture), "-o", str(out)]
    found: dict[str, tuple[list[str], bool]] = {
        "tcpdump -w /dev/null": (["tcpdump", "-r", str(capture), "-w", "/dev/null"], False),
        "synquest: reading": ([python, "-c", READ, str(capture)], False),
        "synquest: reading + connections": ([python, "-c", TRACK, str(capture)], False),
        "synquest analyze --no-figures": (ours, False),
        "synquest analyze --no-figures --kernel 6.1": ([*ours, "--kernel", "6.1"], False),
        "tcptrace -l -n": (["tcptrace", "-l", "-n", str(capture)], False),
        "tshark -T fields (a tenth)": (
            ["tshark", "-r", str(part), "-T", "fields", *(w for f in FIELDS for w in ("-e", f))],
            True,
        ),
        "dpkt into a list (a tenth)": ([python, "-c", DPKT, str(part)], True),
    }
    return {name: job for name, job in found.items() if shutil.which(job[0][0])}


FIELDS = (
    "frame.number", "frame.time_epoch", "ip.src", "ip.dst", "tcp.srcport", "tcp.dstport", "tcp.flags", "tcp.seq_raw",
    "tcp.options.timestamp.tsval", "tcp.options.timestamp.tsecr",
)  # fmt: skip


def main() -> None:
    """Generate, measure in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packets", type=int, default=5_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="", help="names that contain this text")
    parser.add_argument("--folder", type=Path, default=HERE.parent / ".benchmarks")
    arguments = parser.parse_args()
    arguments.folder.mkdir(exist_ok=True)
    capture = arguments.folder / f"{arguments.packets}.pcap"
    part = arguments.folder / f"{arguments.packets // 10}.pcap"
    for path, packets in ((capture, arguments.packets), (part, arguments.packets // 10)):
        if not path.exists():
            subprocess.run(
                [sys.executable, str(HERE / "generate.py"), str(path), "--packets", str(packets)], check=True
            )
    wanted = {n: j for n, j in jobs(capture, part, arguments.folder / "out").items() if arguments.only in n}
    for command, slow in wanted.values():
        if not slow:
            measure(command)  # warms caches, and compiles what numba has not compiled yet
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in wanted}
    for _ in range(arguments.runs):
        for name, (command, slow) in wanted.items():
            if not slow or not results[name]:
                results[name].append(measure(command))
    report(results, wanted)


def report(results: dict[str, list[tuple[float, float]]], wanted: dict[str, tuple[list[str], bool]]) -> None:
    """Print medians; slow peers' figures are scaled to the whole capture."""
    scaled = {n: statistics.median(c for c, _ in r) * (10 if wanted[n][1] else 1) for n, r in results.items()}
    base = scaled.get("tcpdump -w /dev/null")
    print(f"{'program':46}{'CPU s':>9}{'peak MB':>9}{'x tcpdump':>11}")
    for name, runs in results.items():
        ratio = f"{scaled[name] / base:10.1f}" if base else ""
        print(f"{name:46}{scaled[name]:9.2f}{max(m for _, m in runs):9.0f} {ratio}")
    print(f"one process, {os.cpu_count()} cores; page size {resource.getpagesize()}")


if __name__ == "__main__":
    main()

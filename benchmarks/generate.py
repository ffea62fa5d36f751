"""A capture for benchmarks: mixed connections at a constant rate, written as fast as numpy and numba can.

Every five million packets hold about 190 000 connections in ten minutes: repeated SYNs, data, FIN and
RST closes by either side, ports reused, 10 % IPv6, 20 % VLAN or QinQ, 5 % without timestamps, 3 % UDP,
snap length 96.
"""

import argparse
from pathlib import Path

import numpy as np
from numba import njit

SLICE_PACKETS = 5_000_000
SLICE_SECONDS = 600
PER_CONNECTION = 26
SNAPLEN = 96
SYN, ACK, FIN, RST, PSH = 2, 16, 1, 4, 8


def connections(count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw *count* connections of one slice."""
    return {
        "start": np.sort(rng.random(count)) * (SLICE_SECONDS - 30),
        "client": rng.integers(0, 4096, count),
        "port": rng.integers(1024, 65535, count),
        "isn": rng.integers(0, 2**32, count, dtype=np.uint32),
        "server_isn": rng.integers(0, 2**32, count, dtype=np.uint32),
        "v6": rng.random(count) < 0.10,
        "tags": rng.choice(3, count, p=[0.8, 0.1, 0.1]),
        "stamps": rng.random(count) >= 0.05,
        "udp": rng.random(count) < 0.03,
        "rexmit": np.where(rng.random(count) < 0.04, rng.integers(1, 3, count), 0),
        "turns": rng.poisson(8.4, count) + 1,
        "closer": rng.choice(3, count, p=[0.55, 0.35, 0.10]),  # client, server, RST
    }


@njit(cache=True)
def _segments(start, rexmit, turns, closer, conn, time, step):
    """Packets of all connections: (connection, time, step); steps are decoded by ``_render``."""
    n = 0
    for i in range(start.shape[0]):
        t = start[i]
        for k in range(rexmit[i]):
            conn[n], time[n], step[n] = i, t, 0
            n += 1
            t += 1 << k
        for s in range(3):
            conn[n], time[n], step[n] = i, t, s
            t += 0.0006
            n += 1
        for k in range(turns[i]):
            t += 0.02
            conn[n], time[n], step[n] = i, t, 10 + 2 * k
            conn[n + 1], time[n + 1], step[n + 1] = i, t + 0.0004, 11 + 2 * k
            n += 2
        t += 0.05
        for s in range(1 if closer[i] == 2 else 4):
            conn[n], time[n], step[n] = i, t, 1000 + 10 * closer[i] + s
            t += 0.001
            n += 1
    return n


@njit(cache=True)
def _render(out, order, conn, time, step, base, client, port, isn, sisn, v6, tags, stamps, udp, turns):
    """Write pcap records in the given order; returns the bytes written."""
    at = 0
    for index in order:
        i, s = conn[index], step[index]
        ns = np.int64((base + time[index]) * 1e9)
        from_client, flags, size = True, ACK, 0
        done = min(max(0, (s - 10) // 2), turns[i]) if s < 1000 else turns[i]
        seq, ack = isn[i] + 1 + 120 * ((done + 1) // 2), sisn[i] + 1 + 120 * (done // 2)
        if s == 0:
            flags, seq, ack = SYN, isn[i], 0
        elif s == 1:
            from_client, flags, seq, ack = False, SYN | ACK, sisn[i], isn[i] + 1
        elif s == 2:
            seq, ack = isn[i] + 1, sisn[i] + 1
        elif s < 1000:
            mine = ((s - 10) // 2) % 2 == 0
            data = s % 2 == 0
            from_client = mine == data
            flags, size = (ACK | PSH, 120) if data else (ACK, 0)
            sent_c, sent_s = 120 * ((done + 1) // 2), 120 * (done // 2)
            if data:
                seq, ack = (
                    (isn[i] + 1 + sent_c, sisn[i] + 1 + sent_s) if mine else (sisn[i] + 1 + sent_s, isn[i] + 1 + sent_c)
                )
            elif mine:
                seq, ack = sisn[i] + 1 + sent_s, isn[i] + 1 + sent_c + 120
            else:
                seq, ack = isn[i] + 1 + sent_c, sisn[i] + 1 + sent_s + 120
        else:
            kind, part = (s - 1000) // 10, (s - 1000) % 10
            first = kind == 0
            end_c, end_s = isn[i] + 1 + 120 * ((done + 1) // 2), sisn[i] + 1 + 120 * (done // 2)
            from_client = first == (part in (0, 3))
            flags = RST if kind == 2 else FIN | ACK if part in (0, 2) else ACK
            if kind == 2:
                from_client = True
            fin_first, fin_second = (1 if part > 0 else 0), (1 if part > 2 else 0)
            fin_c, fin_s = (fin_first, fin_second) if first else (fin_second, fin_first)
            seq, ack = (end_c + fin_c, end_s + fin_s) if from_client else (end_s + fin_s, end_c + fin_c)
        ts = stamps[i]
        options = (20 if ts else 8) if flags & SYN else (12 if ts else 0)
        transport = 8 if udp[i] else 20 + options
        frame = 14 + 4 * tags[i] + (40 if v6[i] else 20) + transport + size
        kept = min(frame, SNAPLEN)
        _u32(out, at, ns // 1_000_000_000)
        _u32(out, at + 4, ns % 1_000_000_000 // 1000)
        _u32(out, at + 8, kept)
        _u32(out, at + 12, frame)
        body = at + 16
        out[body : body + kept] = 0
        p = body + 12
        for k in range(tags[i]):
            _be16(out, p, 0x88A8 if tags[i] == 2 and k == 0 else 0x8100)
            _be16(out, p + 2, 100 + k)
            p += 4
        _be16(out, p, 0x86DD if v6[i] else 0x0800)
        p += 2
        a, b = (client[i], 0x7FFF) if from_client else (0x7FFF, client[i])
        if v6[i]:
            out[p] = 0x60
            _be16(out, p + 4, transport + size)
            out[p + 6], out[p + 7] = 17 if udp[i] else 6, 64
            out[p + 8], out[p + 24] = 0xFD, 0xFD
            _be16(out, p + 22, a)
            _be16(out, p + 38, b)
            p += 40
        else:
            out[p], out[p + 8], out[p + 9] = 0x45, 64, 17 if udp[i] else 6
            _be16(out, p + 2, 20 + transport + size)
            out[p + 12], out[p + 16] = 10, 10
            _be16(out, p + 14, a)
            _be16(out, p + 18, b)
            p += 20
        _be16(out, p, port[i] if from_client else 1120)
        _be16(out, p + 2, 1120 if from_client else port[i])
        if udp[i]:
            _be16(out, p + 4, 8 + size)
        else:
            _be32(out, p + 4, seq)
            _be32(out, p + 8, ack)
            out[p + 12] = (20 + options) << 2
            out[p + 13] = flags
            _be16(out, p + 14, 29200)
            ticks = np.int64((base + time[index]) * 1000) + (client[i] * 7919 if from_client else 77)
            echo = ticks - 1 if flags & ACK else 0
            p += 20
            if flags & SYN:
                out[p], out[p + 1] = 2, 4
                _be16(out, p + 2, 1460)
                out[p + 4], out[p + 5] = (4, 2) if ts else (1, 3)
                if ts:
                    _stamps(out, p + 6, ticks, echo)
                    out[p + 16], out[p + 17], out[p + 18], out[p + 19] = 1, 3, 3, 7
                else:
                    out[p + 5], out[p + 6], out[p + 7] = 3, 3, 7
            elif ts:
                out[p], out[p + 1] = 1, 1
                _stamps(out, p + 2, ticks, echo)
        at = body + kept
    return at


@njit(cache=True, inline="always")
def _u32(out, at, value):
    for k in range(4):
        out[at + k] = (value >> (8 * k)) & 255


@njit(cache=True, inline="always")
def _be16(out, at, value):
    out[at], out[at + 1] = (value >> 8) & 255, value & 255


@njit(cache=True, inline="always")
def _be32(out, at, value):
    for k in range(4):
        out[at + k] = (value >> (24 - 8 * k)) & 255


@njit(cache=True, inline="always")
def _stamps(out, at, ticks, echo):
    out[at], out[at + 1] = 8, 10
    _be32(out, at + 2, ticks)
    _be32(out, at + 6, echo)


def write(path: Path, packets: int, seed: int = 1) -> int:
    """Write a pcap of about *packets* packets; returns how many it holds."""
    total = 0
    with path.open("wb") as out:
        out.write(np.array([0xA1B2C3D4, 2 | 4 << 16, 0, 0, SNAPLEN, 1], np.uint32).tobytes())
        for number in range(max(1, round(packets / SLICE_PACKETS))):
            share = min(packets, SLICE_PACKETS)
            total += _slice(out, share // PER_CONNECTION, 1_500_000_000 + number * SLICE_SECONDS, seed + number)
    return total


def _slice(out: object, count: int, base: int, seed: int) -> int:
    c = connections(count, np.random.default_rng(seed))
    room = int(c["rexmit"].sum() + 3 * count + 2 * c["turns"].sum() + 4 * count)
    conn, time, step = np.empty(room, np.int64), np.empty(room), np.empty(room, np.int64)
    n = _segments(c["start"], c["rexmit"], c["turns"], c["closer"], conn, time, step)
    order = np.argsort(time[:n], kind="stable")
    for first in range(0, n, 500_000):
        part = order[first : first + 500_000]
        buffer = np.empty(len(part) * (16 + SNAPLEN), np.uint8)
        size = _render(
            buffer, part, conn, time, step, base, c["client"], c["port"].astype(np.int64), c["isn"].astype(np.int64),
            c["server_isn"].astype(np.int64), c["v6"], c["tags"], c["stamps"], c["udp"], c["turns"],
        )  # fmt: skip
        out.write(buffer[:size].tobytes())
    return n


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--packets", type=int, default=SLICE_PACKETS)
    arguments = parser.parse_args()
    print(f"{write(arguments.path, arguments.packets):,} packets in {arguments.path}")

"""CPU time of the replay per kernel-visible event, with a peer memory and without: best of three."""

import argparse
import time

from analyzer.capture import open_capture
from analyzer.connections import track
from analyzer.kernel.profiles import find_profile
from analyzer.kernel.settings import Settings
from analyzer.replay.run import replay

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("capture", help="for example one of benchmarks/generate.py")
    tracked = track(open_capture([parser.parse_args().capture], "server"))
    for kernel, recycle in (("el7.9", 1), ("el7.9", 0), ("6.1", 0)):
        spent = []
        for _ in range(3):
            begin = time.process_time()
            replay(tracked, find_profile(kernel), Settings(tw_recycle=recycle, backlog=128))
            spent.append(time.process_time() - begin)
        best = min(spent) / max(len(tracked.events), 1) * 1e6
        print(f"{kernel} tcp_tw_recycle={recycle}: {best:.2f} µs per event, {len(tracked.events):,} events")

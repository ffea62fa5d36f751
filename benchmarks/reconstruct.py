"""Figures of the reconstruction: ``python -m benchmarks.reconstruct [SCENARIO…] [--seeds N]``."""

import argparse
import tempfile
from pathlib import Path

from analyzer.simulator.run import simulate
from analyzer.simulator.scenario import load, shipped
from tests.simulator.reconstruction import SMALL, Reconstruction, reconstruct


def tell(title: str, done: Reconstruction, most: int) -> None:
    """One line of figures, then what was wrong."""
    verdicts = {f"{sure} {'right' if ok else 'wrong'}": n for (sure, ok), n in sorted(done.verdicts.items())}
    wrong = {sure: n for (sure, ok), n in done.causes.items() if not ok}
    print(
        f"{title}: verdicts {verdicts}; causes {done.cause_share():.4f} of {sum(done.causes.values())}, wrong {wrong};"
        f" flows {done.flows} ({done.false_flows} false, {done.found_flows} of {done.true_flows} true ones);"
        f" clocks {done.clocks} ({len(done.wrong_clocks)} wrong); residuals {done.counters};"
        f" probe {len(done.disagreements)} unexplained, {done.unmatched} unmatched",
        flush=True,
    )
    for texts in (done.wrong, done.wrong_clocks, done.outside, done.disagreements):
        for text in texts[:most]:
            print("   ", text)


def main() -> None:
    """Simulate, analyse and compare each scenario with each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--wrong", type=int, default=3, help="wrong ones to print of each kind")
    given = parser.parse_args()
    for name in given.scenarios or shipped():
        for seed in range(1, given.seeds + 1):
            with tempfile.TemporaryDirectory() as folder:
                simulate(load(name, list(SMALL.get(name, ())), seed), folder)
                tell(f"{name} {seed}", reconstruct(Path(folder)), given.wrong)


if __name__ == "__main__":
    main()

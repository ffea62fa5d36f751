"""The whole estate, simulated: clients, load balancers, servers, with ground truth.

``simulate("cal-incident", "folder")`` writes a shipped scenario or a TOML file of one's own;
``simulator.run.simulate`` takes a ``Scenario`` and tells what was written.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def simulate(
    scenario: str, folder: str | Path, seed: int | None = None, changes: Mapping[str, Any] | None = None
) -> Path:
    """Write a simulated estate's captures with their ground truth.

    Args:
        scenario: Name of a shipped scenario, or a TOML file.
        folder: Where to; made if missing.
        seed: Same seed, same bytes.
        changes: Values of the scenario to override, by dotted name.

    Raises:
        InputError: The TOML file cannot be read.
        UsageError: No such scenario, key or value, or a folder that cannot be written.
    """
    from analyzer.simulator import run
    from analyzer.simulator.scenario import load, toml_value

    pairs = [f"{key}={toml_value(value)}" for key, value in (changes or {}).items()]
    return run.simulate(load(scenario, pairs, seed), folder).folder


__all__ = ["simulate"]

"""The tutorial's commands, pasted one after the other, print what it shows."""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHECK = doctest.OutputChecker()
LOOSE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def steps(text: str) -> list[tuple[str, str]]:
    """(command, expected output) of every ``$ command`` in the console blocks."""
    found = []
    for block in BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            count = 1
            while lines[count - 1].endswith("\\"):
                count += 1
            found.append(("\n".join(lines[:count]), "\n".join(lines[count:])))
    return found


@pytest.mark.parametrize("page", ["tutorial.md"])
def test_page(page, tmp_path):
    todo = steps((ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert todo
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "80", "NO_COLOR": "1"}
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    for command, expected in todo:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        shown = done.stdout + done.stderr
        assert done.returncode == 0, f"{command}\n{shown}"
        if expected.strip():
            assert CHECK.check_output(expected.replace("…", "...") + "\n", shown + "\n", LOOSE), (
                f"$ {command}\nexpected:\n{expected}\nprinted:\n{shown}"
            )

"""What all tests share: where captures are, and how to build one by hand."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "fixtures"
SHARED = ROOT.parent / "shared"


@pytest.fixture
def shared() -> Path:
    """Captures that are no part of the project; the test is skipped where they are missing."""
    if not SHARED.is_dir():
        pytest.skip("the shared captures are not beside this checkout")
    return SHARED


@pytest.fixture
def synquest():
    """Run the command as a user types it; returns the finished process."""

    def run(*words: object, stdin: bytes | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
        import os

        return subprocess.run(
            [sys.executable, "-m", "analyzer.cli", *map(str, words)],
            input=stdin,
            capture_output=True,
            env={**os.environ, "COLUMNS": "80", **environment},
            check=False,
            timeout=120,
        )

    return run

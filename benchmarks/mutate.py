"""Mutate the kernel rules one comparison at a time and list what the tests let pass.

Each comparison operator, and each number next to one, in the rules and in the peer memory is changed
once; the fast tests run against a copy of the project with that one change.  A survivor is a change
that no test noticed.
"""

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = ("analyzer/kernel/rules.py", "analyzer/replay/memory.py")
TESTS = ("tests/kernel/test_vectors.py", "tests/kernel/test_rules.py", "tests/replay/test_memory.py")
SWAPS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Every (description, changed source)."""
    count = sum(isinstance(node, ast.Compare) for node in ast.walk(ast.parse(source)))
    for index in range(count):
        fresh = ast.parse(source)
        found = [node for node in ast.walk(fresh) if isinstance(node, ast.Compare)][index]
        for place, operator in enumerate(found.ops):
            for swap in SWAPS[type(operator)]:
                before = ast.unparse(found)
                found.ops[place] = swap()
                yield f"line {found.lineno}: {before}  ->  {ast.unparse(found)}", ast.unparse(fresh)
                found.ops[place] = operator


def survives(copy: Path) -> bool:
    """Whether the tests pass in *copy*."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *TESTS]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, check=False, timeout=300)
    return done.returncode == 0


def main() -> None:
    """Run all mutants and print the survivors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", default=list(FILES))
    chosen = parser.parse_args().files
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("analyzer", "tests", "fixtures"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        if not survives(copy):
            raise SystemExit("the tests fail without any change")
        total = alive = 0
        for name in chosen:
            source = (ROOT / name).read_text()
            for what, changed in mutants(source):
                (copy / name).write_text(changed)
                total += 1
                if survives(copy):
                    alive += 1
                    print(f"survived: {name} {what}", flush=True)
            (copy / name).write_text(source)
        print(f"{total} changes, {alive} survived")


if __name__ == "__main__":
    main()

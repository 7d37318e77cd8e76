"""The benchmarks' scripts: that they start from anywhere, and that the operator's runs."""

import ast
import csv
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = [path for path in sorted(BENCHMARKS.glob("*.py")) if '__name__ == "__main__"' in path.read_text()]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_leaves_its_folder_before_it_imports(path):
    # Else the modules that Python's own `operator` is imported by get benchmarks/operator.py.
    statements = iter(ast.parse(path.read_text()).body)
    imported = set()
    for statement in statements:
        if "sys.path[0]" in ast.unparse(statement):
            break
        if isinstance(statement, ast.Import | ast.ImportFrom):
            imported |= {alias.name for alias in statement.names}
    else:
        pytest.fail("sys.path is never changed")
    assert imported <= {"annotations", "os", "sys"}


@pytest.mark.slow
@pytest.mark.parametrize("section", ["pools", "profile", "crossing"])
def test_the_operators_benchmark_measures_a_section(tmp_path, section):
    command = [sys.executable, str(BENCHMARKS / "operator.py"), "--quick", "--only", section, "--output", str(tmp_path)]
    subprocess.run(command, check=True, cwd=BENCHMARKS, stdout=subprocess.DEVNULL)
    with (tmp_path / "operator.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["section"] for row in rows} == {section}
    assert all(0 <= float(row["low"]) <= float(row["median"]) <= float(row["high"]) for row in rows)
    report = (tmp_path / "operator.md").read_text()
    assert all(f"| {row['place']}" in report or f"### {row['place']}" in report for row in rows)

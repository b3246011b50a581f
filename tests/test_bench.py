"""The table that `make bench` prints."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHES = """
import pytest

def test_fast(table):
    table.at_least("speed", 3.14159, 2, against="a peer")
    table.told("rate", 12345.6, unit="rows/s")

def test_slow(table):
    table.at_most("memory", 0.75, 0.5, against="a peer")
    table.at_most("time", 0.25, 0.5, against="a peer")

def test_elsewhere(table):
    pytest.skip("no CUDA device")

def test_broken(table):
    assert table is None, "the peer did not start"
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benches")
    shutil.copy(ROOT / "tests" / "bench" / "conftest.py", folder)
    (folder / "bench_some.py").write_text(BENCHES)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-s", "bench_some.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done, folder / "bench-out"


def test_all_figures_of_a_run_come_in_one_table_with_their_verdicts(run):
    done, out = run
    markdown = (out / "bench.md").read_text()
    assert markdown.strip() in done.stdout
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown.splitlines()]
    assert lines[0] == ["what", "measured", "target", "against", "verdict"]
    assert ["speed", "3.142", ">= 2", "a peer", "pass"] in lines
    assert ["rate", "12,346 rows/s", "", "", ""] in lines
    assert ["memory", "0.75", "<= 0.5", "a peer", "MISSED"] in lines
    assert ["time", "0.25", "<= 0.5", "a peer", "pass"] in lines


def test_what_was_not_measured_is_in_the_table_with_its_reason(run):
    _done, out = run
    document = json.loads((out / "bench.json").read_text())
    reasons = {f["what"]: f["measured"] for f in document["figures"] if f["verdict"][:3] == "not"}
    assert reasons == {
        "bench_some.py::test_elsewhere": "no CUDA device",
        "bench_some.py::test_broken": "AssertionError: the peer did not start",
    }
    assert document["machine"]["processors"] >= 1


def test_a_missed_target_fails_its_test_and_no_other(run):
    done, _out = run
    assert done.returncode == 1
    assert "2 failed, 1 passed, 1 skipped" in done.stdout
    assert "targets missed: memory | 0.75 | <= 0.5 | a peer | MISSED" in done.stdout


@pytest.mark.slow
def test_make_bench_finds_every_bench():
    files = sorted((ROOT / "tests" / "bench").glob("bench_*.py"))
    collect = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-m", "bench", *files]
    done = subprocess.run(collect, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert all(f"{file.name}::test_" in done.stdout for file in files)

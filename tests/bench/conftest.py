"""One table of everything that the benches of a run measured, in the terminal and in bench-out.

A bench asks for `table` and reports to it what it measured; a figure that misses its target fails
its test, but only when the test is over, so that no other figure is lost.
"""

import dataclasses
import datetime as dt
import json
import operator
import os
import platform
from pathlib import Path

import pytest
import torch

FOLDER = "bench-out"
COLUMNS = ("what", "measured", "target", "against", "verdict")
COMPARISONS = {">=": operator.ge, "<=": operator.le}
TABLE = pytest.StashKey()
TABLES = pytest.StashKey()


@dataclasses.dataclass(frozen=True)
class Figure:
    """One line of the table."""

    what: str
    measured: float | str
    """A number, or why there is none."""
    unit: str = ""
    """Empty for ratios."""
    comparison: str = ""
    """>= or <=; empty for what is only told."""
    target: float | None = None
    against: str = ""
    """The peer or the physical limit that a ratio is over; what a target stands for."""

    @property
    def verdict(self) -> str:
        if isinstance(self.measured, str):
            return "not measured"
        if self.target is None:
            return ""
        return "pass" if COMPARISONS[self.comparison](self.measured, self.target) else "MISSED"

    @property
    def cells(self) -> tuple[str, ...]:
        target = "" if self.target is None else f"{self.comparison} {self._shown(self.target)}"
        return self.what, self._shown(self.measured), target, self.against, self.verdict

    def _shown(self, value: float | str) -> str:
        if isinstance(value, str):
            return value
        digits = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        return f"{digits} {self.unit}".strip()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Prefect last: workers forked from a process that used it end with 1, and torch minds."""
    items.sort(key=lambda item: item.path.name == "bench_prefect.py")


class Table:
    """Collects the figures of one bench."""

    def __init__(self):
        self.figures = []

    def at_least(self, what, measured, target, *, against, unit=""):
        """Something that should be large."""
        self._add(Figure(what, float(measured), unit, ">=", target, against))

    def at_most(self, what, measured, target, *, against, unit=""):
        """Something that should be small."""
        self._add(Figure(what, float(measured), unit, "<=", target, against))

    def told(self, what, measured, *, unit="", against=""):
        """Something that explains the others."""
        self._add(Figure(what, float(measured), unit, against=against))

    @property
    def missed(self):
        return [figure for figure in self.figures if figure.verdict == "MISSED"]

    def _add(self, figure):
        self.figures.append(figure)
        print(f"\n{' | '.join(figure.cells)}", end="")  # noqa: T201 - a long run shows how far it is


@pytest.fixture
def table(request) -> Table:
    """Where a bench reports what it measured."""
    found = Table()
    request.node.stash[TABLE] = found
    request.config.stash.setdefault(TABLES, []).append(found)
    return found


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    outcome = yield
    table = pyfuncitem.stash.get(TABLE, None)
    if table is not None and table.missed:
        lines = "; ".join(" | ".join(figure.cells) for figure in table.missed)
        pytest.fail(f"targets missed: {lines}", pytrace=False)
    return outcome


def pytest_terminal_summary(terminalreporter, config):
    figures = [figure for table in config.stash.get(TABLES, []) for figure in table.figures]
    figures += [
        Figure(report.nodeid.rsplit("/", 1)[-1], _reason(report))
        for outcome in ("failed", "error", "skipped")
        for report in terminalreporter.stats.get(outcome, [])
        if not _is_miss(report)
    ]
    if not figures:
        return
    folder = Path(config.rootpath) / FOLDER
    folder.mkdir(exist_ok=True)
    machine = describe_machine()
    document = {
        "machine": machine,
        "figures": [dataclasses.asdict(figure) | {"verdict": figure.verdict} for figure in figures],
    }
    (folder / "bench.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    text = as_markdown(figures, machine)
    (folder / "bench.md").write_text(text)
    terminalreporter.section("ratios of this run")
    terminalreporter.write(text)


def _is_miss(report):
    """Whether a test failed by a figure that is in the table already."""
    return "targets missed:" in str(report.longrepr)


def _reason(report):
    """Why a test measured nothing, or not all, in one line."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message if crash else report.longrepr)
    return text.strip().splitlines()[0]


def as_markdown(figures, machine):
    """The table, padded so that it reads well in a terminal, too."""
    rows = [tuple(cell.replace("|", "/") for cell in figure.cells) for figure in figures]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    lines = [COLUMNS, tuple("-" * width for width in widths), *rows]
    table = "\n".join(
        f"| {' | '.join(cell.ljust(w) for cell, w in zip(line, widths, strict=True))} |"
        for line in lines
    )
    return f"{table}\n\n{'; '.join(f'{name} {value}' for name, value in machine.items())}\n"


def describe_machine():
    """What a reader needs to know of the machine to judge the figures."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "load at the end": ", ".join(f"{value:.1f}" for value in os.getloadavg()),
        "GPU": cuda,
        "torch": torch.__version__,
    }


def _processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

"""One self-contained HTML page: sections of figures, tables and pictures; no network, no script."""

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from stores.atomic import make_folder, write_atomic

PAGE = "report.html"
WIDE_PX = 1000
"""A wider picture scrolls within itself on a narrow screen; a narrower one shrinks to fit."""
_PNG_WIDTH = slice(16, 20)


@dataclass(frozen=True, slots=True)
class ReportPicture:
    """A PNG and what it shows."""

    png: bytes
    caption: str

    @property
    def base64(self) -> str:
        """The picture as it stands in a data URI."""
        return base64.b64encode(self.png).decode()

    @property
    def is_wide(self) -> bool:
        """Whether it would be too small on a telephone if it were made to fit."""
        return struct.unpack(">I", self.png[_PNG_WIDTH])[0] > WIDE_PX


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A value of 0 to 1, shown as per cent with a bar behind it."""

    value: float
    """The share."""
    goal: float = 0.0
    """A smaller value is marked as a failure."""

    @property
    def percent(self) -> str:
        """For people."""
        return f"{100 * self.value:.1f} %"

    @property
    def is_low(self) -> bool:
        """Whether the goal is missed."""
        return self.value < self.goal


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportTable:
    """Lines under column heads; the first column names the line."""

    heads: Sequence[str]
    """One for each column."""
    lines: Sequence[Sequence[object]]
    """Texts, numbers and `Share`s."""
    caption: str = ""
    """What the table shows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One part of the page; what is empty is not shown."""

    title: str
    """Its heading, and its entry in the list of contents."""
    text: str = ""
    """What to see here."""
    figures: Mapping[str, str] = field(default_factory=dict)
    """The few numbers that matter, by what they are."""
    table: Mapping[str, object] = field(default_factory=dict)
    """Names and values; where all values are mappings, their keys become columns."""
    tables: Sequence[ReportTable] = ()
    """Larger tables."""
    pictures: Sequence[ReportPicture] = ()
    """One below the other."""
    gallery: Sequence[ReportPicture] = ()
    """Small pictures side by side."""


def write_report(out: Path, *, title: str, lead: str, sections: Sequence[Section]) -> Path:
    """Write ``report.html`` into the folder `out` and return its path."""
    from jinja2 import Environment

    source = files("flows").joinpath("templates", PAGE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"cell": _cell, "as_table": _as_table}
    environment.tests["share"] = lambda value: isinstance(value, Share)
    html = environment.from_string(source).render(title=title, lead=lead, sections=sections)
    make_folder(out)
    write_atomic(out / PAGE, html.encode())
    return out / PAGE


def _as_table(table: Mapping[str, object]) -> ReportTable:
    rows = {name: value for name, value in table.items() if isinstance(value, Mapping)}
    if len(rows) < len(table):
        return ReportTable(heads=(), lines=[*table.items()])
    heads = list(dict.fromkeys(str(head) for row in rows.values() for head in row))
    lines = [[name, *(row.get(head, "") for head in heads)] for name, row in rows.items()]
    return ReportTable(heads=["", *(head.replace("_", " ") for head in heads)], lines=lines)


def _cell(value: object) -> str:
    """A value as a table shows it."""
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.0f}"  # noqa: PLR2004 - digits
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_cell(item)}" for name, item in value.items())
    return str(value)

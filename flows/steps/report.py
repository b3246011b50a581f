"""One self-contained HTML page about a store or a run: tables and pictures, no network."""

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from flows.steps.train import CONFIG_NAME, CURVE_NAME, FIT_NAME, run_store
from pipeline.errors import CheckpointError
from stores.atomic import make_folder, write_atomic
from stores.contents import is_store
from stores.errors import StoreError
from stores.places import StorePath
from stores.reader import StoreReader

PAGE = "report.html"


@dataclass(frozen=True, slots=True)
class ReportPicture:
    """A PNG and what it shows."""

    png: bytes
    caption: str

    @property
    def base64(self) -> str:
        """The picture as it stands in a data URI."""
        return base64.b64encode(self.png).decode()


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One part of the page."""

    title: str
    text: str = ""
    table: Mapping[str, object] = field(default_factory=dict)
    pictures: Sequence[ReportPicture] = ()


def write_report(out: Path, *, title: str, lead: str, sections: Sequence[Section]) -> Path:
    """Write ``report.html`` into the folder `out` and return its path."""
    from jinja2 import Environment

    source = files("flows").joinpath("templates", PAGE).read_text(encoding="utf-8")
    page = Environment(autoescape=True).from_string(source)
    html = page.render(title=title, lead=lead, sections=sections)
    make_folder(out)
    write_atomic(out / PAGE, html.encode())
    return out / PAGE


def store_section(store: StorePath) -> Section:
    """What a store holds: counts that add up, columns, rejects by reason, fingerprints."""
    reader = StoreReader(store)
    counts = reader.manifest.counts
    reasons = Counter(reason for _key, reason, _detail in reader.rejects())
    columns = {f"column {c.name}": f"{list(c.shape)} {c.dtype}" for c in reader.schema.columns}
    prints = {f"fingerprint {name}": text for name, text in reader.fingerprints.items()}
    return Section(
        title="The store",
        text=f"{counts.inputs} inputs = {counts.rows} rows + {counts.rejects} rejects + "
        f"{counts.duplicates} duplicates; {reader.num_eval_rows} rows are held out.",
        table={
            "shards": len(reader.manifest.shards),
            **columns,
            **{f"left out: {reason}": count for reason, count in reasons.most_common()},
            **prints,
        },
    )


def report(target: StorePath, out: Path) -> Path:
    """Write the page about a store or a run into the folder `out`; returns its path.

    Raises:
        StoreError: `target` is neither.
        CheckpointError: `target` is a run that has not ended.
    """
    if isinstance(target, Path) and (target / CONFIG_NAME).exists():
        store = run_store(target)
        sections = [_training_section(target)]
        if is_store(store):
            sections.append(store_section(store))
        lead = f"Trained on {store}."
        return write_report(out, title=f"Run {target.name}", lead=lead, sections=sections)
    if not is_store(target):
        raise StoreError(f"{target} is neither a store nor a run; give the folder of one")
    section = store_section(target)
    return write_report(out, title=f"Store {target.name}", lead=section.text, sections=[section])


def _training_section(run: Path) -> Section:
    try:
        fit = json.loads((run / FIT_NAME).read_text(encoding="utf-8"))
        curve = (run / CURVE_NAME).read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{run} was interrupted before its end; run the same deltaedit train again"
        ) from error
    return Section(
        title="Training",
        text="Fit of the S difference on held-out pairs, in raw codes and with channels "
        "weighted alike (scaled).",
        table={
            f"{space} {group}": ", ".join(f"{name} {value:.4f}" for name, value in values.items())
            for space, groups in fit.items()
            for group, values in groups.items()
        },
        pictures=[ReportPicture(curve, "Held-out error while training.")],
    )

"""One page about a store or a run: everything that it holds, to be looked at."""

from pathlib import Path

from flows.steps.page import PAGE, ReportPicture, ReportTable, Section, write_report
from flows.steps.run_sections import run_sections
from flows.steps.store_sections import store_section, store_sections
from flows.steps.train import CONFIG_NAME, run_store
from stores.contents import is_store
from stores.errors import StoreError
from stores.places import StorePath

__all__ = [
    "PAGE",
    "ReportPicture",
    "ReportTable",
    "Section",
    "report",
    "store_section",
    "store_sections",
    "write_report",
]


def report(target: StorePath, out: Path) -> Path:
    """Write the page about a store or a run into the folder `out`; returns its path.

    Raises:
        StoreError: `target` is neither.
        CheckpointError: `target` is a run that has not ended.
    """
    if isinstance(target, Path) and (target / CONFIG_NAME).exists():
        store = run_store(target)
        sections = run_sections(target)
        if is_store(store):
            sections += store_sections(store)
        name = target.resolve().name
        lead = f"A Delta Mapper trained from the cached vectors of {store.name}, without any text."
        return write_report(out, title=f"Edits by text: {name}", lead=lead, sections=sections)
    if not is_store(target):
        raise StoreError(f"{target} is neither a store nor a run; give the folder of one")
    lead = f"Vectors of a data set, computed once: {target.name}."
    title = f"Store {target.name}"
    return write_report(out, title=title, lead=lead, sections=store_sections(target))

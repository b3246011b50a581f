"""Merging stores, with what they know about their models and sources."""

from collections.abc import Sequence

from flows.steps.origin import merge_origin
from stores.merge import MergeReport, merge_stores
from stores.places import StorePath


def merge(stores: Sequence[StorePath], into: StorePath, *, keep_first: bool = False) -> MergeReport:
    """Make a store with the rows of several; arguments and errors as of `merge_stores`."""
    report = merge_stores(stores, into, keep_first=keep_first)
    merge_origin(stores, into)
    return report

"""The ways to edit by text, as one pair of questions: what changes, and which channels may."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch

from flows.steps.editor import Editor, open_rows
from pipeline.editing import Direction, relevance_mask
from pipeline.editing.directions import class_embedding
from pipeline.editing.global_directions import global_direction
from pipeline.errors import PipelineError
from pipeline.pairs.deltas import edit_conditions
from pipeline.training import TrainedMapper
from pipeline.training.rows import measure_scaling
from stores.reader import StoreReader

DELTAEDIT, GLOBAL = METHODS = ("deltaedit", "global")
MAX_ROWS = 50_000
"""Rows that the spread of channels is measured on at most."""


class EditMethod(Protocol):
    """A way to edit; an edited code is ``s + strength * mask * change``."""

    def change(self, codes: Mapping[str, np.ndarray], direction: Direction) -> np.ndarray:
        """Columns clip [N, C] and s [N, S] and a text direction -> the change [N, S] of s."""
        ...

    def mask(
        self, direction: Direction, threshold: float | None, top_k: int | None
    ) -> np.ndarray | None:
        """Channels that may change, [S] bool; None for all.

        Raises:
            PipelineError: a mask is wanted and there is no relevance matrix.
        """
        ...


class DeltaEdit:
    """The Delta Mapper; the mask is on the raw direction, as published."""

    def __init__(self, editor: Editor, trained: TrainedMapper | None = None) -> None:
        """Take the editor's CLIP and relevance matrix, and its mapper or another of its store."""
        self._editor, self._trained = editor, trained or editor.trained

    def change(self, codes: Mapping[str, np.ndarray], direction: Direction) -> np.ndarray:
        """The mapper's prediction, [N, S]."""
        trained, wanted = self._trained, direction.unit
        if trained.condition == "target":
            wanted = class_embedding(self._editor.clip, direction.target)
        condition = edit_conditions(torch.from_numpy(codes["clip"]), wanted.cpu())
        return trained.predict(codes["s"], condition).cpu().numpy()

    def mask(
        self, direction: Direction, threshold: float | None, top_k: int | None
    ) -> np.ndarray | None:
        """As `EditMethod` says."""
        if threshold is None and top_k is None:
            return None
        rs = _relevance(self._editor)
        raw = direction.raw.cpu().numpy()
        return relevance_mask(rs, raw, threshold=threshold, top_k=top_k)


class GlobalDirections:
    """StyleCLIP's global directions; the mask is on the unit direction, as published."""

    def __init__(self, editor: Editor, std: np.ndarray) -> None:
        """Take the editor's relevance matrix, and each channel's standard deviation [S]."""
        self._rs, self._std = _relevance(editor), std

    def change(self, codes: Mapping[str, np.ndarray], direction: Direction) -> np.ndarray:
        """The same change for every row, [N, S]."""
        everywhere = np.ones(len(self._rs), dtype=bool)
        unit = direction.unit.cpu().numpy()
        change = global_direction(self._rs, unit, self._std, everywhere)
        return np.broadcast_to(change, codes["s"].shape)

    def mask(
        self, direction: Direction, threshold: float | None, top_k: int | None
    ) -> np.ndarray | None:
        """As `EditMethod` says."""
        if threshold is None and top_k is None:
            return None
        unit = direction.unit.cpu().numpy()
        return relevance_mask(self._rs, unit, threshold=threshold, top_k=top_k)


def choose_method(name: str, editor: Editor, std: np.ndarray | None = None) -> EditMethod:
    """The method `name`.

    Args:
        name: one of `METHODS`.
        editor: its models.
        std: [S] float32 standard deviation of each channel; measured on the editor's store if not
            given.

    Raises:
        PipelineError: the method needs a relevance matrix, or a store, and there is none.
    """
    if name == DELTAEDIT:
        return DeltaEdit(editor)
    if std is None:
        if editor.parts.store is None:
            raise PipelineError(
                "--method global takes the spread of every channel from a store: give RUN instead "
                "of --mapper"
            )
        std = channel_std(open_rows(editor.parts.store))
    return GlobalDirections(editor, std)


def channel_std(store: StoreReader) -> np.ndarray:
    """Standard deviation of each style channel over the rows of a store, [S] float32."""
    rows = np.arange(min(len(store), MAX_ROWS))
    return measure_scaling(rows, lambda part: store.rows(rows[part], ["s"])["s"]).std


def _relevance(editor: Editor) -> np.ndarray:
    if editor.relevance is None:
        store = editor.parts.store
        raise PipelineError(
            "--threshold, --top-k and --method global need a relevance matrix: give --relevance "
            "FILE" + ("" if store is None else f", or run: deltaedit relevance {store}")
        )
    return editor.relevance

"""Early stopping: the best held-out weights so far, and when to wait no longer."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

HELD_OUT_LOSS = "eval/loss"
"""The record's value that is compared; smaller is better."""


class EarlyStopping:
    """Keeps the weights of the best evaluation, and ends a run that finds no better ones.

    The history of records decides, so that a resumed run decides as one that was not interrupted.
    """

    def __init__(self, patience: int | None) -> None:
        """Set the patience: evaluations without improvement; None keeps nothing, stops nothing."""
        self._patience = patience
        self.weights: dict[str, Tensor] = {}
        """The best weights by name; empty before the first evaluation, or without patience."""

    def note(self, history: Sequence[Mapping[str, float]], weights: Mapping[str, Tensor]) -> None:
        """Keep a copy of `weights` if the last evaluation of `history` is the best one."""
        if self._patience is not None and _since_best(history) == 0:
            with torch.no_grad():
                self.weights = {name: tensor.clone() for name, tensor in weights.items()}

    def is_over(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Whether the patience is used up."""
        return self._patience is not None and _since_best(history) >= self._patience


def best_step(history: Sequence[Mapping[str, float]]) -> int:
    """The step of the evaluation with the smallest held-out loss, the first of equals."""
    evaluations = [record for record in history if HELD_OUT_LOSS in record]
    return int(min(evaluations, key=lambda record: record[HELD_OUT_LOSS])["step"])


def _since_best(history: Sequence[Mapping[str, float]]) -> int:
    losses = [record[HELD_OUT_LOSS] for record in history if HELD_OUT_LOSS in record]
    return len(losses) - 1 - losses.index(min(losses)) if losses else 0

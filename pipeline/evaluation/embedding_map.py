"""A map of embeddings: where on a grid each row stands, so that like stands beside like."""

import numpy as np

from pipeline.evaluation.alignment import tsne
from pipeline.shapes import Floats, Ints, assert_shape


def arrange(rows: Floats, *, seed: int = 0) -> Ints:
    """Give every row a cell of its own in a square grid, by t-SNE and the nearest free cell.

    Distances between groups are lost: what is kept is who the neighbours are. Cells are assigned
    so that the sum of squared distances from the t-SNE points is least (Jonker-Volgenant).

    Args:
        rows: [N, C] float32 embeddings, of unit length where only directions matter.
        seed: of the t-SNE.

    Returns:
        [N, 2] int64, row and column of the grid; the grid is ``ceil(sqrt(N))`` wide.

    Raises:
        ShapeError: there are fewer than three rows.
    """
    from scipy.optimize import linear_sum_assignment

    assert_shape(rows, (None, None), "rows")
    points = tsne(rows, rows[:0], seed=seed).astype(float)
    low, high = points.min(axis=0), points.max(axis=0)
    width = int(np.ceil(np.sqrt(len(rows))))
    height = int(np.ceil(len(rows) / width))
    size = np.array([height - 1, width - 1])
    wanted = (points - low) / np.maximum(high - low, np.finfo(float).tiny) * size
    cells = np.stack(np.divmod(np.arange(height * width), width), axis=1)
    costs = np.square(wanted[:, None] - cells[None]).sum(axis=2)
    _rows, chosen = linear_sum_assignment(costs)
    return cells[chosen]

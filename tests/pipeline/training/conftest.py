import numpy as np
import pytest

WIDTHS = (8, 8, 8, 8, 8, 8, 8, 8, 4)
CLIP_DIM = 12


class ArrayRows:
    """Columns in memory, read as training reads a store."""

    def __init__(self, clip, s):
        self.columns = {"clip": clip, "s": s}

    def __len__(self):
        return len(self.columns["s"])

    def rows(self, indices, columns):
        return {name: self.columns[name][indices] for name in columns}


def make_rows(num_rows=240, widths=WIDTHS, clip_dim=CLIP_DIM, seed=0):
    """Codes and embeddings of five hidden causes; channels of very different size."""
    generator = np.random.default_rng(seed)
    causes = generator.standard_normal((num_rows, 5))
    s = np.tanh(causes @ generator.standard_normal((5, sum(widths))) / 3)
    s = s * np.geomspace(0.1, 10, sum(widths)) + generator.standard_normal(sum(widths))
    clip = causes @ generator.standard_normal((5, clip_dim)) + 3
    return ArrayRows(clip.astype(np.float32), s.astype(np.float32))


@pytest.fixture(scope="session")
def rows():
    return make_rows()


@pytest.fixture(scope="session")
def split():
    numbers = np.random.default_rng(9).permutation(240)
    return np.sort(numbers[:200]), np.sort(numbers[200:])


@pytest.fixture(scope="session")
def widths():
    return WIDTHS

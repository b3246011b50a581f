import numpy as np
import pytest
import torch

from pipeline.errors import ShapeError
from pipeline.shapes import assert_shape


def test_matching_shapes_pass_for_numpy_and_torch():
    assert_shape(np.zeros((3, 512)), (None, 512), "clip")
    assert_shape(torch.zeros(3, 512), (3, 512), "clip")


@pytest.mark.parametrize("shape", [(3, 511), (512,), (1, 3, 512)])
def test_another_shape_is_refused_with_both_shapes(shape):
    found = ", ".join(map(str, shape))
    with pytest.raises(ShapeError, match=rf"clip has shape \[{found}\], expected \[\*, 512\]"):
        assert_shape(np.zeros(shape), (None, 512), "clip")

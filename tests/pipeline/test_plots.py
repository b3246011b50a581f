"""Plots: what is drawn, and refusals."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ShapeError
from pipeline.plots import loss_curve, scatter, tradeoff


def opened(png: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(png)).convert("RGB"))


def test_loss_curve_draws_each_series_and_its_baseline():
    steps = np.arange(1, 50)
    one = loss_curve(steps, {"mse": 10 / steps}, baseline={}, title="losses")
    two = loss_curve(steps, {"mse": 10 / steps}, baseline={"mse": 4.0}, title="losses")
    assert opened(one).shape == opened(two).shape
    assert (opened(one) != opened(two)).any()


def test_loss_curve_takes_gaps_and_dollar_signs():
    png = loss_curve([0, 1, 2], {"a_b": [1.0, np.nan, 2.0]}, baseline={}, title="costs $5 and $6")
    assert (opened(png) < 255).any()


def test_scatter_colours_groups_apart():
    points = np.random.default_rng(0).standard_normal((100, 2)).astype(np.float32)
    groups = np.repeat([0, 1], 50)
    picture = opened(scatter(points, groups, title="CLIP space", labels=["image", "text"]))
    vivid = picture[picture.max(axis=2) - picture.min(axis=2) > 100]
    assert (vivid[:, 2] > vivid[:, 0]).any()
    assert (vivid[:, 0] > vivid[:, 2]).any()


def test_scatter_refuses_points_that_are_not_in_the_plane():
    with pytest.raises(ShapeError, match="points"):
        scatter(np.zeros((5, 3), np.float32), np.zeros(5, int), title="", labels=["a"])


def test_tradeoff_draws_a_line_a_series_and_its_points():
    axes = {"x_label": "preservation", "y_label": "success"}
    points = {"a": [(1.0, 0.0, "0"), (0.8, 0.7, "1")]}
    one = tradeoff(points, title="edits", **axes)
    two = tradeoff({**points, "b": [(0.9, 0.2, "1"), (0.5, 0.9, "2")]}, title="edits", **axes)
    assert (opened(one) != opened(two)).any()

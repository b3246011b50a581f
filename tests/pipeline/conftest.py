"""The deterministic weight fill of the golden numbers, and access to them.

A parameter's value depends on its key, its shape and a seed, so any implementation with the
published keys can be compared without published weights. A small part of the golden numbers lies in
tests/data/golden; all of them where ../shared/golden exists.
"""

import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "../shared/golden"
KEPT = ROOT / "tests/data/golden"

LEFT_AS_BUILT = re.compile(r"(^|\.)kernel$|num_batches_tracked$")
ROOT_OF_FAN_IN = -0.5
# (pattern searched in the key, scale, shift, power of the fan-in); the first match wins
RULES = [
    (re.compile(pattern), *numbers)
    for pattern, *numbers in [
        (r"(^|\.)(style|mapping)\.\d+\.weight$", 100.0, 0.0, 0.0),
        (r"(^|\.)(style|mapping)\.\d+\.bias$", 20.0, 0.0, 0.0),
        (r"\.modulation\.weight$", 1.0, 0.0, 0.0),
        (r"\.modulation\.bias$", 0.1, 1.0, 0.0),
        (r"^to_rgb(1|s\.\d+)\.conv\.weight$", 0.3, 0.0, 0.0),
        (r"^to_rgb(1|s\.\d+)\.bias$", 0.1, 0.0, 0.0),
        (r"^(conv1|convs\.\d+)\.conv\.weight$", 1.0, 0.0, 0.0),
        (r"\.noise\.weight$", 0.05, 0.15, 0.0),
        (r"\.activate\.bias$", 0.2, 0.0, 0.0),
        (r"^noises\.noise_\d+$|^input\.input$", 1.0, 0.0, 0.0),
        (r"running_var$", 0.1, 1.0, 0.0),
        (r"running_mean$", 0.1, 0.0, 0.0),
        (r"(^|\.)(input_layer|res_layer)\.2\.weight$", 0.05, 0.25, 0.0),
        (r"(^|\.)(input_layer\.1|shortcut_layer\.1|res_layer\.[04])\.weight$", 0.1, 1.0, 0.0),
        (r"(^|\.)(input_layer\.1|shortcut_layer\.1|res_layer\.[04])\.bias$", 0.1, 0.0, 0.0),
        (
            r"(^|\.)(input_layer\.0|shortcut_layer\.0|res_layer\.[13])\.weight$",
            1.0,
            0.0,
            ROOT_OF_FAN_IN,
        ),
        (r"\.fc[12]\.weight$", 2.0, 0.0, ROOT_OF_FAN_IN),
        (r"^styles\.\d+\.convs\.\d+\.weight$", 2**0.5, 0.0, ROOT_OF_FAN_IN),
        (r"^styles\.\d+\.(convs\.\d+|linear)\.bias$", 0.1, 0.0, 0.0),
        (r"^styles\.\d+\.linear\.weight$", 1.0, 0.0, 0.0),
        (r"^latlayer[12]\.weight$", 1.0, 0.0, ROOT_OF_FAN_IN),
        (r"^latlayer[12]\.bias$", 0.1, 0.0, 0.0),
    ]
]


class Recipe:
    """Weights, inputs and recorded arrays of the golden numbers (fill seed 0)."""

    @staticmethod
    def value(key, shape):
        """float32 array of one state-dict entry; None for entries left as constructed."""
        if LEFT_AS_BUILT.search(key):
            return None
        scale, shift, power = next(numbers for rule, *numbers in RULES if rule.search(key))
        rng = np.random.RandomState(zlib.crc32(key.encode()))
        n = rng.standard_normal(tuple(shape)).astype(np.float32)
        n = np.abs(n) if key.endswith("running_var") else n
        fan_in = int(np.prod(shape[1:]))
        return n * np.float32(scale * fan_in**power) + np.float32(shift)

    def fill(self, module):
        """Fill a module in place; returned in eval mode without gradients."""
        with torch.no_grad():
            for key, tensor in module.state_dict().items():
                value = self.value(key, tensor.shape)
                if value is not None:
                    tensor.copy_(torch.from_numpy(np.asarray(value)))
        return module.eval().requires_grad_(requires_grad=False)

    @staticmethod
    def normal(number, shape, scale=1.0, shift=0.0):
        """float32 normals of input recipe `number`."""
        n = np.random.RandomState(number).standard_normal(shape).astype(np.float32)
        return torch.from_numpy(n * np.float32(scale) + np.float32(shift))

    @staticmethod
    def unit(number, shape):
        """float32 unit rows of input recipe `number`."""
        n = np.random.RandomState(number).standard_normal(shape)
        return torch.from_numpy((n / np.linalg.norm(n, axis=-1, keepdims=True)).astype(np.float32))

    @staticmethod
    def smooth_image(number, size):
        """[1, 3, size, size] float32 in -1..1: 12 cosines a channel and weak noise."""
        rng, terms = np.random.RandomState(number), 12
        fx, fy = rng.randint(0, 6, (3, terms)), rng.randint(0, 6, (3, terms))
        phase, amplitude = rng.uniform(0, 2 * np.pi, (3, terms)), rng.standard_normal((3, terms))
        t = np.arange(size) / size
        waves = (
            2 * np.pi * (fx[:, :, None, None] * t[None, :] + fy[:, :, None, None] * t[:, None])
            + phase[:, :, None, None]
        )
        image = (amplitude[:, :, None, None] * np.cos(waves)).sum(axis=1)
        image = 0.8 * image / np.sqrt(terms) + 0.1 * rng.standard_normal((3, size, size))
        return torch.from_numpy(np.clip(image, -1, 1).astype(np.float32)[None])

    @staticmethod
    def golden(name, *, whole=False):
        """Recorded arrays of file `name`; without ../shared only the part kept in tests/data."""
        places = [GOLDEN / f"{name}.npz"] + ([] if whole else [KEPT / f"{name}.npz"])
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            pytest.skip(f"golden numbers {places[0].resolve()} are not here")
        with np.load(path) as file:
            return dict(file)

    @staticmethod
    def document(name):
        """A recorded JSON document: listings of keys and shapes."""
        path = GOLDEN / f"{name}.json"
        if not path.is_file():
            pytest.skip(f"golden listing {path.resolve()} is not here")
        return json.loads(path.read_text())


@pytest.fixture(scope="session")
def recipe():
    return Recipe()


@pytest.fixture(scope="session")
def compare():
    """Assert parity with a recorded array; `pytest -s` shows the errors of docs/parity.md.

    The error is the largest absolute difference over the root mean square of the reference. Where
    only the first rows of a reference are kept, ours are cut to them.
    """

    def check(name, ours, reference, tolerance=1e-4):
        reference = np.asarray(reference, dtype=np.float64)
        ours = np.asarray(ours, dtype=np.float64)
        ours = ours[: len(reference)] if reference.ndim else ours
        assert ours.shape == reference.shape
        error = np.abs(ours - reference).max() / np.sqrt((reference**2).mean())
        print(f"\n{name}: {error:.1e}")  # noqa: T201 - the table of docs/parity.md is made of these
        assert error < tolerance

    return check

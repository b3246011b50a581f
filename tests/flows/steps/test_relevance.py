"""The relevance matrix of a store: estimated from its vectors, or rendered layer by layer."""

import shutil

import numpy as np
import pytest

from flows.steps.relevance import (
    RELEVANCE,
    RelevanceRun,
    estimate_relevance,
    load_relevance,
    read_agreement,
)
from pipeline.encoding.rendered_relevance import RenderedConfig
from stores.blobs import list_blobs, remove_blob
from stores.reader import StoreReader
from stores.store import Store

LAYER_WIDTH = 96


class Killed(BaseException):
    pass


@pytest.fixture
def store(encoded, tmp_path):
    """A copy without relevance matrix, for commands that write blobs."""
    path = shutil.copytree(encoded, tmp_path / "faces.store")
    if RELEVANCE in list_blobs(Store.open(path)):
        remove_blob(Store.open(path), RELEVANCE)
    return path


def rendered(store, **settings):
    rendering = RenderedConfig(**{"num_images": 2, "batch_size": 4, **settings})
    return RelevanceRun(store=store, method="rendered", rendering=rendering)


def kill_at(channels):
    def kill(done, _total):
        if done >= channels:
            raise Killed

    return kill


def test_regressed_relevance_is_estimated_once_from_the_same_rows(store):
    first = estimate_relevance(RelevanceRun(store=store))
    made = (store / "blobs" / RELEVANCE).stat().st_ino
    assert np.array_equal(estimate_relevance(RelevanceRun(store=store)), first)
    assert (store / "blobs" / RELEVANCE).stat().st_ino == made
    assert read_agreement(store) is None


def test_an_interrupted_rendering_keeps_the_layers_it_finished(store):
    with pytest.raises(Killed):
        estimate_relevance(rendered(store), kill_at(LAYER_WIDTH))
    kept = list_blobs(Store.open(store))
    assert {name for name in kept if "layer" in name} == {"relevance-layer-00.h5"}
    assert RELEVANCE not in kept
    before = (store / "blobs/relevance-layer-00.h5").stat().st_mtime_ns
    with pytest.raises(Killed):
        estimate_relevance(rendered(store), kill_at(2 * LAYER_WIDTH))
    assert (store / "blobs/relevance-layer-00.h5").stat().st_mtime_ns == before
    assert "relevance-layer-01.h5" in list_blobs(Store.open(store))


def test_layers_of_other_settings_are_made_again(store):
    for settings in ({}, {"strength": 3.0}):
        with pytest.raises(Killed):
            estimate_relevance(rendered(store, **settings), kill_at(LAYER_WIDTH))
        record = list_blobs(Store.open(store))["relevance-layer-00.h5"]
        assert record.made_from["settings"]["strength"] == settings.get("strength", 5.0)


@pytest.mark.slow
def test_a_rendered_matrix_is_whole_used_for_edits_and_compared_with_the_regressed_one(store, call):
    run = call("relevance", store, "--method", "rendered", "--num-images", 8)
    rs = load_relevance(store, StoreReader(store))
    lengths = np.linalg.norm(rs, axis=1)
    assert np.isclose(lengths, 1, atol=1e-4).mean() > 0.95
    agreement = read_agreement(store)
    # Two estimates of one thing, from 72 rows and from 8 codes: alike, not equal.
    assert 0.1 < agreement["mean"] < 1
    assert "cosine with regressed" in run.out

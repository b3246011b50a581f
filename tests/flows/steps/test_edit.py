"""Edits from a trained run: what is shown, what is recorded, what is refused."""

import numpy as np
import pytest

from flows.steps.edit import EditConfig, edit, prepare_edit
from flows.steps.editor import Editor
from flows.steps.relevance import RelevanceRun, estimate_relevance
from flows.steps.train import TrainRun, train
from pipeline.errors import ImageError, PipelineError
from pipeline.training import TrainConfig
from stores.errors import KeyNotFoundError

KEY = "avatar-000003.png"
TEXT = "face with glasses"


@pytest.fixture(scope="module")
def run(encoded, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    training = TrainConfig(steps=4, batch_size=8, eval_pairs=16)
    train(TrainRun(store=encoded, run=run, device="cpu", training=training))
    return run


@pytest.fixture(scope="module")
def editor(run):
    return Editor(prepare_edit(config(run)))


def config(run, **changes):
    return EditConfig(run=run, texts=(TEXT,), **{"keys": (KEY,), **changes})


def test_strength_0_gives_the_reconstruction(run, editor):
    edits = edit(config(run, strength=0.0), editor)
    np.testing.assert_array_equal(edits.pictures[0], edits.reconstructions)


def test_a_file_and_its_row_are_edited_alike(run, editor, faces):
    edits = edit(config(run, images=(faces / KEY,)), editor)
    row, file = edits.pictures[0].astype(int)
    assert np.abs(row - file).max() <= 2


def test_the_table_says_how_each_edit_was_made(run, editor):
    (line,) = edit(config(run, neutral="person", strength=2.0), editor).table
    assert (line["text"], line["neutral"]) == (TEXT, "person")
    assert (line["method"], line["strength"]) == ("deltaedit", 2.0)
    assert line["channels"] == editor.trained.config.s_dim


def test_a_mask_needs_the_relevance_matrix_and_then_lets_k_channels_through(run, editor, encoded):
    with pytest.raises(PipelineError, match="run: deltaedit relevance"):
        edit(config(run, top_k=7), editor)
    estimate_relevance(RelevanceRun(store=encoded))
    (line,) = edit(config(run, top_k=7)).table
    assert line["channels"] == 7


def test_an_unknown_key_lists_near_ones(run, editor):
    with pytest.raises(KeyNotFoundError, match=r"did you mean 'avatar-0000"):
        edit(config(run, keys=("avatar-3.png",)), editor)


def test_an_image_that_is_none_is_named(run, editor, tmp_path):
    (tmp_path / "me.jpg").write_text("not me")
    with pytest.raises(ImageError, match=r"me\.jpg: the content starts with"):
        edit(config(run, images=(tmp_path / "me.jpg",)), editor)


def test_contradictions_are_named_at_once(run):
    with pytest.raises(ValueError, match=r"--key or --image; threshold and top_k .*; method: 'x'"):
        EditConfig(run=run, texts=(TEXT,), threshold=0.1, top_k=3, method="x")

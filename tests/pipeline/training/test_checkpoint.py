import numpy as np
import pytest
import torch

from pipeline.errors import CheckpointError, ShapeError
from pipeline.pairs.deltas import pair_conditions
from pipeline.training.checkpoint import (
    Checkpoint,
    export_official,
    from_bytes,
    load_trained,
    to_bytes,
)
from pipeline.training.config import TrainConfig
from pipeline.training.loop import MAPPER_NAME, train_mapper


@pytest.fixture(scope="module")
def files(rows, split, widths):
    """Mapper files of both recipes after a few steps."""
    made = {}
    for recipe in ("official", "fast"):
        saved = {}
        config = TrainConfig(recipe=recipe, steps=5, batch_size=8, eval_pairs=16)
        result = train_mapper(
            rows,
            split[0],
            split[1],
            config,
            widths=widths,
            save=saved.__setitem__,
            made_from={"clip_pre": "box7"},
        )
        made[recipe] = saved[MAPPER_NAME], result.trained
    return made


@pytest.mark.parametrize("recipe", ["official", "fast"])
@pytest.mark.parametrize("by_path", [True, False])
def test_a_saved_mapper_predicts_what_the_trained_one_predicts(
    files, rows, tmp_path, recipe, by_path
):
    data, trained = files[recipe]
    path = tmp_path / "mapper.safetensors"
    path.write_bytes(data)
    loaded = load_trained(path if by_path else data)
    s, clip = rows.columns["s"][:4], rows.columns["clip"]
    condition = pair_conditions(clip[:4], clip[4:8])
    assert torch.equal(loaded.predict(s, condition), trained.predict(s, condition))
    assert loaded.made_from == {"clip_pre": "box7"}
    assert loaded.step == 5
    assert not any(parameter.requires_grad for parameter in loaded.mapper.parameters())


def test_predict_undoes_the_z_scoring(files, rows):
    trained = files["fast"][1]
    s, clip = torch.from_numpy(rows.columns["s"][:4]), rows.columns["clip"]
    condition = pair_conditions(clip[:4], clip[4:8])
    scaled = trained.mapper((s - trained.s_centre) / trained.s_std, condition)
    assert torch.allclose(trained.predict(s, condition), scaled * trained.s_std, atol=1e-5)


def test_codes_of_another_width_are_refused(files):
    with pytest.raises(ShapeError, match="s has shape"):
        files["fast"][1].predict(np.zeros((1, 5)), np.zeros((1, 24)))


def test_equal_checkpoints_give_equal_bytes(files):
    data = files["fast"][0]
    assert to_bytes(from_bytes(data)) == data


def test_damaged_or_foreign_bytes_are_refused(files):
    data = files["fast"][0]
    for wrong in (b"", data[:7], data[:100], data[:-1], b"not a checkpoint at all"):
        with pytest.raises(CheckpointError, match="not a whole checkpoint"):
            from_bytes(wrong)


def test_a_newer_format_is_refused(monkeypatch):
    monkeypatch.setattr("pipeline.training.checkpoint.FORMAT", 2)
    newer = to_bytes(Checkpoint(tensors={"x": torch.zeros(1)}, document={}))
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 2, this version reads 1"):
        from_bytes(newer)


def test_only_a_mapper_without_extras_becomes_a_published_file(files):
    state = export_official(files["official"][0])
    assert set(state) == set(files["official"][1].mapper.state_dict())
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    with pytest.raises(CheckpointError, match="recipe official"):
        export_official(files["fast"][0])

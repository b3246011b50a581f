"""Published files of mapper and relevance, and runs written as such, in the small world."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from flows.models import ModelOptions
from flows.steps.edit import EditConfig, edit, prepare_edit, write_pictures
from flows.steps.published import choose_clip_pre, export_mapper, read_mapper, read_relevance
from flows.steps.train import TrainRun, train
from pipeline.errors import CheckpointError, PipelineError, ShapeError, WeightsError
from pipeline.models.clip_weights import read_clip_state
from pipeline.models.delta_mapper import DeltaMapper, DeltaMapperConfig
from pipeline.models.registry import BUNDLED_FOLDER
from pipeline.models.weights import load_generator, mapper_state
from pipeline.training import TrainConfig, load_trained

TEXT = "face with glasses"


@pytest.fixture(scope="module")
def widths():
    return load_generator(BUNDLED_FOLDER / "generator.safetensors")[0].layout.widths


@pytest.fixture(scope="module")
def clip_dim():
    state, _ = read_clip_state(BUNDLED_FOLDER / "avatar-clip.safetensors")
    return state["text_projection"].shape[1]


def save_mapper(path, widths, clip_dim):
    torch.manual_seed(0)
    mapper = DeltaMapper(DeltaMapperConfig(widths=tuple(widths), clip_dim=clip_dim))
    torch.save(mapper_state(mapper), path)
    return path


@pytest.fixture(scope="module")
def net(tmp_path_factory, widths, clip_dim):
    """A mapper in the published layout, which says nothing of where it is from."""
    return save_mapper(tmp_path_factory.mktemp("net") / "net_face.pth", widths, clip_dim)


@pytest.fixture(scope="module")
def fs3(tmp_path_factory, widths, clip_dim):
    rows = np.random.default_rng(0).standard_normal((sum(widths), clip_dim)).astype(np.float32)
    path = tmp_path_factory.mktemp("fs3") / "fs3.npy"
    np.save(path, rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return path


@pytest.fixture(scope="module")
def official_run(encoded, tmp_path_factory):
    run = tmp_path_factory.mktemp("official") / "run"
    training = TrainConfig(recipe="official", steps=2, batch_size=8, eval_pairs=16)
    train(TrainRun(store=encoded, run=run, device="cpu", training=training))
    return run


def config(mapper, faces, **changes):
    given = {
        "mapper": mapper,
        "models": ModelOptions(models="avatar"),
        "texts": (TEXT,),
        "images": (faces / "avatar-000003.png",),
    }
    return EditConfig(**{**given, **changes})


def test_the_command_edits_with_published_files_alone(call, net, fs3, faces, tmp_path):
    run = call(
        *("edit", "--mapper", net, "--relevance", fs3, "--models", "avatar"),
        *("--image", faces / "avatar-000003.png", "--text", TEXT, "--text", "face with a hat"),
        *("--out", tmp_path / "edit.png", "--pictures", tmp_path / "full", "--json"),
    )
    assert [line["text"] for line in json.loads(run.out)["edits"]] == [TEXT, "face with a hat"]
    beside = json.loads((tmp_path / "edit.png.json").read_text())
    assert (beside["clip_pre"], beside["config"]["threshold"]) == ("box7", 0.03)
    pictures = sorted((tmp_path / "full").iterdir())
    assert [path.name for path in pictures] == [
        "001-avatar-000003-0-reconstruction.png",
        "001-avatar-000003-1-face-with-glasses.png",
        "001-avatar-000003-2-face-with-a-hat.png",
    ]
    assert {Image.open(path).size for path in pictures} == {(64, 64)}


def test_pictures_at_full_size_are_those_of_the_edit(net, faces, tmp_path):
    given = config(net, faces)
    edits = edit(given)
    files = write_pictures(edits, given.texts, tmp_path)
    np.testing.assert_array_equal(np.asarray(Image.open(files[1])), edits.pictures[0][0])


def test_an_exported_run_edits_as_the_run_does(official_run, faces, tmp_path):
    trained = export_mapper(official_run, tmp_path / "net.pth")
    state = torch.load(tmp_path / "net.pth", weights_only=True)
    assert state.keys() == trained.mapper.state_dict().keys()
    loaded = read_mapper(tmp_path / "net.pth")
    assert dict(loaded.made_from) == dict(trained.made_from)
    ours = edit(config(tmp_path / "net.pth", faces))
    image = faces / "avatar-000003.png"
    theirs = edit(EditConfig(run=official_run, texts=(TEXT,), images=(image,)))
    np.testing.assert_array_equal(ours.pictures[0], theirs.pictures[0])


def test_a_runs_own_file_is_read_too(official_run):
    path = official_run / "mapper.safetensors"
    assert dict(read_mapper(path).made_from) == dict(load_trained(path).made_from)


def test_export_on_the_command_line_says_what_it_wrote(call, official_run, tmp_path, widths):
    run = call("export", official_run, tmp_path / "net.pth", "--json")
    assert json.loads(run.out)["channels"] == sum(widths)
    assert "avatar-clip sha256=" in (tmp_path / "net.pth.json").read_text()


def test_the_fast_recipe_cannot_be_exported(encoded, tmp_path):
    training = TrainConfig(recipe="fast", steps=1, batch_size=4, eval_pairs=8)
    train(TrainRun(store=encoded, run=tmp_path / "run", device="cpu", training=training))
    with pytest.raises(CheckpointError, match="train with recipe official"):
        export_mapper(tmp_path / "run", tmp_path / "net.pth")
    assert not (tmp_path / "net.pth").exists()


def test_clip_pre_is_the_mappers_own_else_box7_else_what_is_asked():
    made_from = {"clip": "ViT-B-32 sha256=0 pre=official precision=float32 images=photo"}
    assert choose_clip_pre(made_from, None) == choose_clip_pre(made_from, "official") == "official"
    assert choose_clip_pre({}, None) == "box7"
    assert choose_clip_pre({}, "official") == "official"
    with pytest.raises(CheckpointError, match="trained with official, --clip-pre asks for box7"):
        choose_clip_pre(made_from, "box7")


def test_another_clip_pre_is_refused_before_any_work(call, official_run, faces, tmp_path):
    export_mapper(official_run, tmp_path / "net.pth")
    run = call(
        *("edit", "--mapper", tmp_path / "net.pth", "--models", "avatar", "--clip-pre", "box7"),
        *("--image", faces / "avatar-000003.png", "--text", TEXT, "--out", tmp_path / "edit.png"),
        code=2,
    )
    assert "the mapper was trained with official, --clip-pre asks for box7" in run.err
    assert not (tmp_path / "edit.png").exists()


def test_clip_of_another_width_is_refused(call, widths, faces, tmp_path):
    net = save_mapper(tmp_path / "net.pth", widths, 12)
    run = call(
        *("edit", "--mapper", net, "--models", "avatar", "--text", TEXT),
        *("--image", faces / "avatar-000003.png", "--out", tmp_path / "edit.png"),
        code=2,
    )
    assert "the mapper takes CLIP embeddings of 12, avatar-clip gives" in run.err
    assert not (tmp_path / "edit.png").exists()


def test_a_generator_of_another_width_is_refused(widths, clip_dim, faces, tmp_path):
    other = save_mapper(tmp_path / "net.pth", (*widths, 8), clip_dim)
    expected = rf"takes S of {sum(widths) + 8} channels, the generator of 64 px has {sum(widths)}"
    with pytest.raises(CheckpointError, match=expected):
        edit(config(other, faces))


def test_models_that_the_mapper_has_not_seen_are_refused(official_run, faces, tmp_path):
    export_mapper(official_run, tmp_path / "net.pth")
    beside = tmp_path / "net.pth.json"
    said = json.loads(beside.read_text())
    said["made_from"]["clip"] = f"avatar-clip sha256={'0' * 64} pre=official"
    beside.write_text(json.dumps(said))
    with pytest.raises(CheckpointError, match="the mapper was trained on clip of: avatar-clip"):
        edit(config(tmp_path / "net.pth", faces))


def test_a_relevance_matrix_of_another_shape_is_refused(net, faces, tmp_path, widths, clip_dim):
    np.save(tmp_path / "fs3.npy", np.ones((5376, 512), np.float32))
    expected = rf"shape \[5376, 512\], the mapper takes \[{sum(widths)}, {clip_dim}\]"
    with pytest.raises(ShapeError, match=expected):
        prepare_edit(config(net, faces, relevance=tmp_path / "fs3.npy", threshold=0.03))


def test_a_relevance_matrix_may_be_an_npz_and_must_be_finite(tmp_path):
    np.savez(tmp_path / "rs.npz", rs=np.ones((3, 2)))
    assert read_relevance(tmp_path / "rs.npz", (3, 2)).dtype == np.float32
    np.save(tmp_path / "nan.npy", np.full((3, 2), np.nan))
    with pytest.raises(WeightsError, match="NaN or infinite"):
        read_relevance(tmp_path / "nan.npy", (3, 2))
    (tmp_path / "text.npy").write_text("fs3")
    with pytest.raises(WeightsError, match=r"expected fs3\.npy"):
        read_relevance(tmp_path / "text.npy", (3, 2))


def test_another_architecture_is_refused_as_a_mapper(faces):
    generator = BUNDLED_FOLDER / "generator.safetensors"
    with pytest.raises(WeightsError, match=r"a Delta Mapper .* found a StyleGAN2 generator"):
        prepare_edit(config(generator, faces))


def test_a_mask_without_relevance_names_the_option(net, faces):
    with pytest.raises(PipelineError, match=r"give --relevance FILE$"):
        edit(config(net, faces, top_k=5))


def test_contradictions_are_named_at_once(net, faces):
    with pytest.raises(ValueError, match=r"RUN or --mapper.*--key names a row.*needs models"):
        EditConfig(texts=(TEXT,), keys=("a",))
    with pytest.raises(ValueError, match="either RUN or --mapper"):
        config(net, faces, run=faces)


def test_missing_model_files_are_named_before_the_mapper_is_used(net, faces, monkeypatch, tmp_path):
    monkeypatch.setenv("DELTAEDIT_MODELS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"--encoder: no file .*e4e_ffhq_encode\.pt"):
        prepare_edit(config(net, faces, models=ModelOptions(models="ffhq")))


def test_an_imported_store_is_edited_with_models_that_are_named(call, encoded, tmp_path):
    """Vectors that came without models: a mapper learns from them, and edits with given ones."""
    call("store", "export", encoded, tmp_path / "features")
    options = ("--clip-pre", "official", "--generator", BUNDLED_FOLDER / "generator.safetensors")
    call("store", "import", tmp_path / "s", tmp_path / "features", *options, "--split-eval", 0.25)
    call("train", tmp_path / "s", tmp_path / "run", "--steps", 2, "--batch-size", 4)
    edit_row = ("edit", tmp_path / "run", "--key", "avatar-000003.png", "--text", TEXT)
    run = call(*edit_row, "--out", tmp_path / "edit.png", code=2)
    assert "--clip MODEL:WEIGHTS: not given" in run.err
    call(*edit_row, "--models", "avatar", "--out", tmp_path / "edit.png")
    assert json.loads((tmp_path / "edit.png.json").read_text())["clip_pre"] == "official"

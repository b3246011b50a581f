"""Options to files: what is needed, what is missing, what is loaded."""

import pytest

from flows.models import ModelOptions, choose_device, find_files, load_models
from pipeline.errors import PipelineError, WeightsError
from pipeline.models.registry import BUNDLED_FOLDER


def options(**changes):
    return ModelOptions(**{"models": "avatar", **changes})


@pytest.mark.parametrize(
    ("columns", "clip_pre", "sampled", "needed"),
    [
        (("clip",), "official", False, {"clip"}),
        (("clip",), "box7", False, {"clip", "encoder", "generator"}),
        (("clip",), "official", True, {"clip", "generator"}),
        (("s",), "official", False, {"encoder", "generator"}),
        (("w_plus", "s"), "official", True, {"generator"}),
        (("clip", "w_plus", "s"), "official", False, {"clip", "encoder", "generator"}),
    ],
)
def test_only_the_models_that_the_columns_take_are_needed(columns, clip_pre, sampled, needed):
    assert options(columns=columns, clip_pre=clip_pre).needed(sampled=sampled) == needed


def test_every_wrong_option_is_named_at_once():
    rules = r"columns: 'z' .*clip_pre: 'b' .*e4e_precision: 'auto' .*device: 'tpu'"
    with pytest.raises(ValueError, match=rules):
        options(columns=("z",), clip_pre="b", e4e_precision="auto", device="tpu")


def test_the_precision_of_e4e_is_in_the_fingerprints_of_its_columns():
    half = options(e4e_precision="bfloat16")
    found = load_models(half).fingerprints(half, "photo")
    exact = load_models(options()).fingerprints(options(), "photo")
    assert found["clip"] == exact["clip"]
    for column in ("w_plus", "s"):
        assert found[column] == exact[column].replace("precision=float32", "precision=bfloat16")
        assert found[column] != exact[column]


def test_a_set_or_files_must_be_named():
    with pytest.raises(ValueError, match="name a set"):
        ModelOptions()


def test_a_missing_file_is_named_with_its_option(tmp_path, monkeypatch):
    monkeypatch.setenv("DELTAEDIT_MODELS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"--encoder: no file .*e4e_ffhq_encode\.pt"):
        find_files(ModelOptions(models="ffhq"))


def test_a_domain_without_encoder_can_be_sampled(tmp_path, monkeypatch):
    monkeypatch.setenv("DELTAEDIT_MODELS", str(tmp_path))
    (tmp_path / "stylegan2-cat-config-f.pt").touch()
    cat = ModelOptions(models="cat", columns=("w_plus", "s"))
    assert find_files(cat, sampled=True).encoder is None
    with pytest.raises(WeightsError, match="--encoder: not given"):
        find_files(cat)


def test_own_weights_of_the_sets_clip_keep_its_configuration():
    weights = BUNDLED_FOLDER / "avatar-clip.safetensors"
    own = find_files(options(clip=f"avatar-clip:{weights}"))
    assert own == find_files(options())
    other = find_files(options(clip=f"ViT-B-32:{weights}"))
    assert other.clip_config is None


def test_a_cuda_device_that_is_not_there_is_refused():
    with pytest.raises(PipelineError, match="device cuda:99: this machine has"):
        choose_device("cuda:99")


def test_models_are_loaded_once_per_process():
    codes = options(columns=("w_plus", "s"))
    assert load_models(codes) is load_models(codes, sampled=False)
    assert load_models(codes).encoders.clip is None

import re

import pytest

from pipeline.errors import WeightsError
from pipeline.models.registry import CLIP, MODEL_SETS, ModelSet, find_models, model_set


def test_every_published_domain_is_registered_with_its_word():
    words = {name: known.neutral for name, known in MODEL_SETS.items()}
    assert words == {
        "avatar": "face",
        "ffhq": "face",
        "cat": "cat",
        "church": "church",
        "horse": "horse",
        "car": "car",
    }


def test_every_file_says_where_it_is_from_and_under_which_licence():
    files = [file for known in MODEL_SETS.values() for file in known.files()]
    assert len(files) > 12
    assert all(file.source and file.licence and file.filenames for file in files)


def test_documented_digests_are_those_in_the_addresses():
    assert set(CLIP) == {"ViT-B-32", "ViT-B-16", "ViT-L-14"}
    for file in CLIP.values():
        assert file.sha256 is not None
        assert re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.sha256 in file.source


def test_files_are_found_under_any_of_their_names(tmp_path):
    usual = tmp_path / "stylegan2-cat-config-f.pt"
    assert model_set("cat").generator_path(tmp_path) == usual
    other = tmp_path / "stylegan2-cat" / "netG.pth"
    other.parent.mkdir()
    other.touch()
    assert model_set("cat").generator_path(tmp_path) == other
    usual.touch()
    assert model_set("cat").generator_path(tmp_path) == usual


def test_the_car_set_names_its_encoder_and_the_cat_set_has_none(tmp_path):
    assert model_set("car").encoder_path(tmp_path) == tmp_path / "e4e_cars_encode.pt"
    assert model_set("cat").encoder_path(tmp_path) is None


def test_another_clip_model_overrides_the_sets_own(tmp_path):
    known = model_set("ffhq")
    assert known.clip_path(tmp_path) == tmp_path / "ViT-B-32.pt"
    assert known.clip_path(tmp_path, "ViT-L-14") == tmp_path / "ViT-L-14.pt"
    assert known.clip_path(tmp_path, "ViT-unknown") is None
    assert ModelSet().clip_path(tmp_path) is None


def test_the_bundled_set_does_not_look_in_the_users_folder(tmp_path):
    known = model_set("avatar")
    (tmp_path / "generator.safetensors").touch()
    path = known.generator_path(tmp_path)
    assert path is not None
    assert path.parent.name == "weights"
    clip = known.clip_path(tmp_path)
    assert clip is not None
    assert clip.parent == path.parent


def test_find_models_lists_each_file_once_with_whether_it_is_there(tmp_path):
    (tmp_path / "ViT-B-16.pt").touch()
    found = find_models(tmp_path)
    user_files = [model for model in found if model.name != "avatar"]
    assert [model.path.name for model in user_files if model.found] == ["ViT-B-16.pt"]
    assert len({(model.name, model.file.kind) for model in found}) == len(found)
    assert {model.name for model in found} == {*MODEL_SETS, *CLIP}


def test_an_unknown_set_is_refused_with_those_there_are():
    with pytest.raises(WeightsError, match="no model set 'dog'; registered are avatar, ffhq"):
        model_set("dog")

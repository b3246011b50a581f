from pathlib import Path

import pytest

from flows.models import ModelOptions
from flows.steps.doctor import OK, PROBLEM, WARNING, check_machine, check_run
from flows.steps.precompute import PrecomputeConfig
from pipeline.errors import WeightsError


def findings(source, store, **options):
    models = ModelOptions(**{"models": "avatar", "columns": ("w_plus", "s"), **options})
    run = PrecomputeConfig(sources=(str(source),), store=Path(store), models=models)
    return {finding.topic: finding for finding in check_run(run)}


def test_a_sound_run_has_inputs_room_and_a_time(faces, tmp_path):
    found = findings(faces, tmp_path / "s")
    assert {finding.level for finding in found.values()} == {OK}
    assert found["inputs"].text.startswith("96 to encode")
    assert "images/s" in found["time"].text
    assert not list(tmp_path.iterdir())


def test_a_store_of_other_models_is_a_problem(faces, encoded):
    store = findings(faces, encoded)["store"]
    assert store.level == PROBLEM
    assert "other models or settings" in store.text


def test_samples_need_no_files(tmp_path):
    assert findings("sampled:100", tmp_path / "s")["time"].level == OK


@pytest.mark.parametrize("source", ["nowhere", "."])
def test_a_source_without_images_is_a_problem(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert findings(source, "s")["run"].level == PROBLEM


def test_the_machine_report_names_every_known_model():
    topics = {finding.topic for finding in check_machine()}
    assert {"device", "faiss", "model avatar clip", "model ffhq encoder"} <= topics


def models_in(folder, monkeypatch, models=None):
    monkeypatch.setenv("DELTAEDIT_MODELS", str(folder))
    return {f.topic: f for f in check_machine(models) if f.topic.startswith("model ")}


def test_a_set_is_looked_for_alone_when_it_is_named(tmp_path, monkeypatch):
    found = models_in(tmp_path, monkeypatch, "ffhq")
    kinds = {"model ffhq generator", "model ffhq encoder", "model ffhq mapper"}
    assert found.keys() == kinds | {"model ffhq relevance", "model ViT-B-32 clip"}
    assert "encoder4editing" in found["model ffhq encoder"].text
    with pytest.raises(WeightsError, match="no model set 'fhq'"):
        check_machine("fhq")


def test_another_file_under_a_published_name_is_noticed(tmp_path, monkeypatch):
    (tmp_path / "ViT-B-32.pt").write_bytes(b"other weights")
    found = models_in(tmp_path, monkeypatch)["model ViT-B-32 clip"]
    assert found.level == WARNING
    assert "that of the published file 40d36571" in found.text


def test_a_pickle_of_nvidia_is_noticed_with_the_way_to_convert_it(tmp_path, monkeypatch):
    (tmp_path / "stylegan2-ffhq-config-f.pkl").touch()
    found = models_in(tmp_path, monkeypatch)["model ffhq generator"]
    assert found.level == WARNING
    assert "never run; convert it: docs/official-models.md" in found.text

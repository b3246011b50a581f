from pathlib import Path

import pytest

from flows.models import ModelOptions
from flows.steps.doctor import OK, PROBLEM, check_machine, check_run
from flows.steps.precompute import PrecomputeConfig


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

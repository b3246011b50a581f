"""A full run: every stage of every entry, nothing twice, and no entry stops another."""

import dataclasses
import json
import shutil

import pytest
import yaml

from flows.exits import DAMAGED_STORE, DONE, INCOMPLETE
from flows.models import ModelOptions
from flows.steps.full_run import EntryConfig, FullRunConfig, full_run
from flows.steps.index import IndexConfig
from flows.steps.precompute import PrecomputeConfig
from flows.steps.relevance import RelevanceRun
from flows.steps.stages import Outcome
from flows.steps.train import TrainRun
from stores.errors import ShardCorruptError


def entry(name, folder, **stages):
    store = folder / f"{name}.store"
    precompute = PrecomputeConfig(
        sources=("sampled:4",), store=store, models=ModelOptions(models="avatar")
    )
    run = TrainRun(store=store, run=folder / f"{name}.run")
    return EntryConfig(
        name=name,
        precompute=precompute,
        **{"index": IndexConfig(store=store), "train": run, **stages},
    )


def states(summary):
    return {(r.entry, r.stage): r.state for r in summary.results}


def test_a_failed_stage_stops_what_needs_it_and_nothing_else(tmp_path):
    config = FullRunConfig(entries=(entry("a", tmp_path), entry("b", tmp_path)))

    def work(name, stage, _config):
        if (name, stage) == ("a", "precompute"):
            raise ShardCorruptError("shard 3 is cut")
        if (name, stage) == ("b", "index"):
            raise ZeroDivisionError
        return Outcome(changed=True, detail="")

    summary = full_run(config, work)
    assert states(summary) == {
        ("a", "precompute"): "failed",
        ("a", "index"): "not started",
        ("a", "train"): "not started",
        ("b", "precompute"): "done",
        ("b", "index"): "failed",
        ("b", "train"): "done",
    }
    assert summary.exit_code == DAMAGED_STORE
    assert [r.detail for r in summary.missing][:2] == ["shard 3 is cut", "it needs precompute"]
    assert "ZeroDivisionError" in summary.missing[-1].detail


def test_exit_codes_say_whether_anything_is_missing(tmp_path):
    config = FullRunConfig(entries=(entry("a", tmp_path),))

    def fail(_name, _stage, _config):
        raise OSError("no network")

    assert full_run(config, lambda *_: Outcome(changed=False, detail="")).exit_code == DONE
    assert full_run(config, fail).exit_code == INCOMPLETE


def test_stages_of_one_entry_must_be_about_one_store(tmp_path):
    other = tmp_path / "other"
    with pytest.raises(ValueError, match=r"index.store is .*other, .*relevance.store is .*other"):
        entry("a", tmp_path, index=IndexConfig(store=other), relevance=RelevanceRun(store=other))


def test_two_entries_must_not_train_into_one_folder(tmp_path):
    first, second = entry("a", tmp_path), entry("b", tmp_path)
    second = dataclasses.replace(
        second, train=dataclasses.replace(second.train, run=first.train.run)
    )
    with pytest.raises(ValueError, match="entries a and b have the same run"):
        FullRunConfig(entries=(first, second))


@pytest.fixture
def night(tmp_path, faces):
    """A run file: a data set that is there, and one that is not."""
    document = {
        "defaults": {
            "precompute": {"models": "avatar", "shard-rows": 40, "split-eval": 0.25},
            "index": {"neighbours": 4},
            "train": {"steps": 20, "batch-size": 16},
            "evaluate": {"pairs": 32},
        },
        "entries": {
            "lost": {"sources": "lost", "store": "lost.store", "train": False, "relevance": False},
            "faces": {"sources": str(faces), "store": "faces.store"},
        },
    }
    path = tmp_path / "night.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.timeout(900)
def test_the_same_command_finishes_a_night_that_lacked_a_disk(night, call, faces, tmp_path):
    dry = call("run", night, "--dry-run", "--json")
    assert json.loads(dry.out)["faces"]["precompute"] == "96 inputs to do"
    assert "does not exist" in json.loads(dry.out)["lost"]["precompute"]
    assert not (tmp_path / "faces.store").exists()

    first = call("run", night, "--json", code=1)
    report = json.loads(first.out)
    found = {(line["entry"], line["stage"]): line["state"] for line in report["stages"]}
    assert found["lost", "precompute"] == "failed"
    assert found["lost", "index"] == found["lost", "report"] == "not started"
    stages = ("precompute", "index", "relevance", "train", "evaluate", "report")
    assert all(found["faces", stage] == "done" for stage in stages)
    assert report["missing"] == 3
    assert report["finish"] == f"deltaedit run {night}"
    assert (tmp_path / "faces.run" / "report.html").exists()

    shutil.copytree(faces, tmp_path / "lost")
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "faces.store").rglob("*.h5")}
    second = json.loads(call("run", night, "--json").out)
    found = {(line["entry"], line["stage"]): line["state"] for line in second["stages"]}
    assert found["lost", "precompute"] == "done"
    assert all(found["faces", stage] == "done before" for stage in stages)
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert (second["missing"], second["finish"]) == (0, None)


@pytest.mark.timeout(900)
def test_a_night_whose_source_has_grown_makes_what_is_new_and_keeps_the_finished_mapper(
    night, call, faces, tmp_path
):
    document = yaml.safe_load(night.read_text())
    source = shutil.copytree(faces, tmp_path / "grows")
    store = tmp_path / "faces.store"
    document["entries"] = {"faces": {"sources": "grows", "store": store.name}}
    night.write_text(yaml.safe_dump(document))
    call("run", night)
    mapper = (tmp_path / "faces.run" / "mapper.safetensors").read_bytes()
    call("avatars", tmp_path / "more", "--count", 8, "--seed", 77)
    for image in (tmp_path / "more").glob("*.png"):
        shutil.copy(image, source / f"new-{image.name}")

    status = json.loads(call("status", store, "--json").out)
    assert (status["rows"], status["run"]["state"]) == (96, "done")
    planned = json.loads(call("run", night, "--dry-run", "--json").out)["faces"]
    assert planned["precompute"] == "8 inputs in 1 shards to do"
    assert planned["index"] == planned["train"] == "done, but for what precompute will bring"

    again = json.loads(call("run", night, "--json", code=1).out)
    found = {line["stage"]: (line["state"], line["detail"]) for line in again["stages"]}
    assert found["precompute"][1].startswith("104 rows + 0 rejects + 0 duplicates, 8 inputs")
    assert found["index"][0] == found["relevance"][0] == "done"
    assert found["train"][0] == "failed"
    assert "give another run folder for a mapper of all rows" in found["train"][1]
    assert (tmp_path / "faces.run" / "mapper.safetensors").read_bytes() == mapper
    status = json.loads(call("status", store, "--json").out)
    assert (status["rows"], status["run"]["state"]) == (104, "done")
    assert status["run"]["inputs"] == {"planned": 8, "done": 8, "rows": 8, "rejects": 0}

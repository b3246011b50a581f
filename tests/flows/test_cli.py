"""The program's front: help, exit codes of wrong calls, and a whole day of work."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from flows.cli import COMMANDS

pytestmark = pytest.mark.timeout(900)  # a day of ten real processes, on a busy machine, too

PROGRAM = Path(sys.executable).with_name("deltaedit")
STORE_COMMANDS = tuple(
    f"store {name}" for name in ("info", "verify", "repair", "merge", "import", "export")
)
HEAVY = ("torch", "open_clip", "faiss", "h5py", "PIL", "numpy", "prefect", "dask", "matplotlib")


def run(*arguments, folder):
    """The real program, as a user's shell starts it."""
    result = subprocess.run(
        [PROGRAM, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def evaluated(code):
    """What a fresh Python prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def size_of(picture):
    with Image.open(picture) as opened:
        opened.load()
        return opened.size


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    """From images to an edit grid, in the order of a user's day."""
    folder = tmp_path_factory.mktemp("day")
    out = {}
    out["avatars"] = run("avatars", "faces", "--count", 260, "--seed", 9, "--json", folder=folder)
    out["precompute"] = run(
        *("precompute", "faces", "faces.store", "--models", "avatar", "--shard-rows", 100),
        "--json",
        folder=folder,
    )
    out["index"] = run("index", "faces.store", "--neighbours", 12, "--json", folder=folder)
    out["neighbours"] = run(
        *("neighbours", "faces.store", "--text", "face with sunglasses", "-k", 5),
        *("--sheet", "sheets/near.png", "--json"),
        folder=folder,
    )
    out["pairs"] = run(
        *("pairs", "faces.store", "--policy", "nearest", "--count", 6, "--seed", 1),
        *("--out", "pairs.tsv", "--sheet", "pairs.png", "--json"),
        folder=folder,
    )
    out["relevance"] = run("relevance", "faces.store", "--out", "rs.npz", "--json", folder=folder)
    out["train"] = run("train", "faces.store", "run", "--steps", 60, "--json", folder=folder)
    out["evaluate"] = run("evaluate", "run", "--pairs", 64, "--json", folder=folder)
    shutil.copy(folder / "faces/avatar-000007.png", folder / "me.png")
    out["edit"] = run(
        *("edit", "run", "--key", "avatar-000003.png", "--image", "me.png"),
        *("--text", "face with glasses", "--text", "face with a hat", "--top-k", 100),
        *("--out", "edit.png", "--json"),
        folder=folder,
    )
    out["report"] = run("report", "run", "--out", "page", "--json", folder=folder)
    return folder, {name: json.loads(text) for name, text in out.items()}


def test_avatars_come_with_their_attributes(day):
    folder, out = day
    lines = (folder / "faces/attributes.jsonl").read_text().splitlines()
    assert out["avatars"]["avatars"] == len(lines) == len(list((folder / "faces").glob("*.png")))
    assert json.loads(lines[3]).keys() == {"key", "attributes", "caption"}


def test_precompute_accounts_for_every_image(day):
    summary = day[1]["precompute"]
    assert (summary["inputs"], summary["shards_made"]) == (260, 3)
    assert summary["rows"] + summary["rejects"] + summary["duplicates"] == 260


def test_the_index_and_the_graph_say_what_they_are(day):
    assert day[1]["index"] == {
        "rows": 260,
        "kind": "flat",
        "recall@10": 1.0,
        "effort": 0,
        "neighbours": 12,
    }


def test_neighbours_fall_in_similarity_and_are_shown(day):
    folder, out = day
    similarities = [answer["similarity"] for answer in out["neighbours"]["neighbours"]]
    assert len(similarities) == 5
    assert similarities == sorted(similarities, reverse=True)
    assert size_of(folder / "sheets/near.png")[0] > 5 * 128


def test_pairs_are_written_with_the_settings_that_drew_them(day):
    folder, out = day
    lines = (folder / "pairs.tsv").read_text().splitlines()
    assert len(lines) == 1 + len(out["pairs"]["pairs"]) == 7
    assert all(pair["source"] != pair["target"] for pair in out["pairs"]["pairs"])
    assert json.loads((folder / "pairs.tsv.json").read_text())["config"]["pairs"]["seed"] == 1
    assert min(size_of(folder / "pairs.png")) > 128


def test_relevance_has_a_row_for_every_channel(day):
    import numpy as np

    folder, out = day
    with np.load(folder / "rs.npz") as file:
        assert file["rs"].shape == (out["relevance"]["channels"], out["relevance"]["clip_dim"])
    assert out["relevance"]["method"] == "regressed"


def test_training_leaves_a_run_that_can_be_used(day):
    folder, out = day
    assert out["train"]["steps"] == 60
    names = {path.name for path in (folder / "run").iterdir()}
    assert names >= {"mapper.safetensors", "checkpoint.safetensors", "train.json", "fit.json"}
    assert names >= {"log.jsonl", "loss.png", "tensorboard", "evaluation.json"}
    assert out["evaluate"]["raw all"]["mse"] > 0


def test_the_edit_grid_shows_original_reconstruction_and_edits(day):
    folder, out = day
    width, height = size_of(folder / "edit.png")
    assert width > 4 * 128
    assert height > 2 * 128
    assert [edit["channels"] for edit in out["edit"]["edits"]] == [100, 100]
    beside = json.loads((folder / "edit.png.json").read_text())
    assert beside["config"]["method"] == beside["edits"][0]["method"] == "deltaedit"
    assert beside["edits"][0]["neutral"] == "face"


def test_the_report_needs_no_other_file(day):
    folder, out = day
    page = (folder / out["report"]["report"]).read_text()
    assert "data:image/png;base64," in page
    assert "260 inputs = 260 rows + 0 rejects + 0 duplicates" in page
    assert "http://" not in page
    assert "https://" not in page


def test_help_imports_no_heavy_module():
    code = (
        "import sys; sys.argv = ['deltaedit', '--help']\n"
        "import flows.cli\n"
        "try: flows.cli.main()\n"
        "except SystemExit: print('code', *sys.modules)"
    )
    loaded = set(evaluated(code))
    assert "flows.cli" in loaded
    assert not loaded & set(HEAVY)


def test_without_prefect_configured_no_server_starts_and_prefect_is_not_imported(encoded, tmp_path):
    store = shutil.copytree(encoded, tmp_path / "copy.store")
    code = (
        f"import sys; sys.argv = ['deltaedit', 'index', {str(store)!r}, '--json']\n"
        "import psutil, flows.cli\n"
        "try: flows.cli.main()\n"
        "except SystemExit as end: code = end.code\n"
        "me = psutil.Process()\n"
        "print('END', code, len(me.children(recursive=True)), len(me.net_connections()))\n"
        "print(*sys.modules)"
    )
    lines = evaluated(code)
    end = lines.index("END")
    assert lines[end + 1 : end + 4] == ["0", "0", "0"]
    assert "flows.steps.index" in lines
    assert not {"prefect", "flows.index", "dask", "distributed"} & set(lines[end:])


def test_the_packages_import_neither_prefect_nor_dask():
    loaded = set(evaluated("import sys, pipeline, stores; print(*sys.modules)"))
    assert {"pipeline", "stores"} <= loaded
    assert not loaded & {"prefect", "dask", "distributed"}


@pytest.mark.parametrize("name", [*COMMANDS, *STORE_COMMANDS])
def test_every_command_has_help_with_an_example(call, name):
    text = call(*name.split(), "--help").out
    assert "Example: deltaedit " + name.split()[0] in " ".join(text.split())


def test_help_lists_every_command_in_the_order_of_a_day(call):
    text = call("--help").out
    places = [text.index(f"  {name} ") for name in COMMANDS]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("precompte",), "No such command 'precompte'"),
        (("precompute", ".", "s"), "name a set (--models avatar)"),
        (("precompute", ".", "s", "--models", "ffqh"), "no model set 'ffqh'"),
        (("precompute", ".", "s", "--models", "avatar", "--columns", "clap"), "'clap' is none of"),
        (("precompute", ".", "s", "--models", "avatar", "--device", "gpu"), "'gpu' is none of"),
        (("precompute", ".", "s", "--models", "avatar", "--batch-size", "0"), "at least 1, got 0"),
        (("precompute", "sampled:x", "s", "--models", "avatar"), "the form is sampled:COUNT"),
        (("precompute", "sampled:9?z", "s", "--models", "avatar"), "the form is sampled:COUNT"),
        (("index", "nowhere"), "nowhere is not a store"),
        (("run", "nowhere.yaml"), "'nowhere.yaml' does not exist"),
        (("deploy", "--schedule", "0 1 * * *"), "--schedule needs FILE"),
        (("train", "nowhere", "run"), "nowhere is not a store"),
        (("store", "verify", "nowhere"), "nowhere is not a store"),
        (("edit", "nowhere", "--text", "x", "--key", "k", "--out", "e.png"), "no finished run"),
        (("edit", "nowhere", "--text", "x", "--out", "e.png"), "at least one --key or --image"),
        (("evaluate", "nowhere"), "holds no finished run"),
        (("report", "."), "is neither a store nor a run"),
    ],
)
def test_a_wrong_call_ends_in_code_2_and_says_what_to_do(call, tmp_path, arguments, message):
    run = call(*arguments, folder=tmp_path, code=2)
    assert message in " ".join(run.err.split())
    assert not list(tmp_path.iterdir())


def test_dry_runs_write_nothing(call, tmp_path, faces):
    preview = json.loads(
        call(*("precompute", faces, "s", "--models", "avatar"), *DRY, folder=tmp_path).out
    )
    assert (preview["inputs"], preview["shards"]) == (96, 1)
    call("avatars", "more", "--count", 3, *DRY, folder=tmp_path)
    assert not list(tmp_path.iterdir())


DRY = ("--dry-run", "--json")


def test_a_damaged_store_ends_in_code_3(call, encoded, tmp_path):
    store = tmp_path / "damaged.store"
    shutil.copytree(encoded, store)
    shard = next((store / "shards").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    run = call("store", "verify", store, code=3)
    assert shard.name in run.out
    call("store", "verify", encoded)


def _json(run) -> dict:
    return json.loads(run.out)


def test_a_damaged_store_is_repaired_and_precompute_fills_the_gap(
    call, encoded, faces, small_shards, tmp_path
):
    store = tmp_path / "faces.store"
    shutil.copytree(encoded, store)
    before = {file.name: file.read_bytes() for file in (store / "shards").iterdir()}
    damaged = sorted(before)[2]
    (store / "shards" / damaged).write_bytes(before[damaged][:-100])
    (store / "manifest.json").write_text("{")
    said = _json(call("store", "repair", store, *DRY))
    assert (store / "shards" / damaged).exists()
    assert _json(call("store", "repair", store, "--json")) == said | {"dry_run": False}
    assert [len(keys) for keys in said["recompute"].values()] == [16]
    call("store", "verify", store)
    assert _json(call("store", "info", store, "--json"))["pending"] == 16
    done = _json(call("precompute", faces, store, *small_shards, "--split-eval", 0.25, "--json"))
    assert (done["shards_made"], done["pending"]) == (1, 0)
    assert {file.name: file.read_bytes() for file in (store / "shards").iterdir()} == before
    assert "nothing was changed" in call("store", "repair", store, "--dry-run").out


def test_stores_of_two_halves_are_merged_and_stay_usable(call, faces, encoded, tmp_path):
    names = sorted(file.name for file in faces.glob("*.png"))
    parts = [tmp_path / "a.store", tmp_path / "b.store"]
    options = ("--models", "avatar", "--batch-size", "16", "--split-eval", 0.25)
    for part, chosen in zip(parts, (names[:40], names[30:]), strict=True):
        listed = faces / f"{part.stem}.txt"
        listed.write_text("\n".join(chosen))
        call("precompute", f"@{listed}", part, *options)
    out = tmp_path / "out.store"
    merged = _json(call("store", "merge", *parts, "--into", out, "--keep", "first", "--json"))
    info = _json(call("store", "info", encoded, "--json"))
    assert (merged["inputs"], merged["repeated inputs"]) == (info["inputs"], 10)
    call("store", "verify", out)
    done = _json(call("precompute", faces, out, *options, "--json"))
    assert (done["shards_made"], done["changed"], done["vanished"]) == (0, 0, 0)

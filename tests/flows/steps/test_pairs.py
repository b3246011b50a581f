import json

import pytest

from flows.steps.directions import DIRECTIONS_BLOB
from stores.blobs import list_blobs, read_blob
from stores.reader import StoreReader
from stores.store import Store

BEARD = ("--policy", "direction", "--to", "face with a beard")


@pytest.fixture(scope="module")
def drawn(call, encoded, tmp_path_factory):
    """Pairs that follow a text, with all that can be written of them."""
    folder = tmp_path_factory.mktemp("pairs")
    files = ("--out", folder / "pairs.tsv", "--sheet", folder / "pairs.png")
    call("pairs", encoded, *BEARD, "--count", 8, *files)
    return folder


def test_the_table_gives_each_pair_with_how_well_it_follows_the_text(drawn):
    heading, *lines = (drawn / "pairs.tsv").read_text().splitlines()
    assert heading.split("\t") == ["source", "target", "similarity", "alignment"]
    assert len(lines) == 8
    assert all(0 < float(line.split("\t")[3]) <= 1 for line in lines)
    assert (drawn / "pairs.png").read_bytes().startswith(b"\x89PNG")


def test_the_record_beside_the_table_draws_the_same_pairs_again(drawn, encoded):
    from flows.steps.pairs import as_lines, draw_pairs
    from pipeline.pairs import PairConfig, TextDirection

    record = json.loads((drawn / "pairs.tsv.json").read_text())["config"]
    assert record["rows_of"] == StoreReader(encoded).manifest.digest
    direction = TextDirection(**record["pairs"].pop("direction"))
    config = PairConfig(**record["pairs"], direction=direction)
    again = draw_pairs(encoded, config, record["count"])
    assert as_lines(again) == (drawn / "pairs.tsv").read_text()


def test_a_text_direction_is_computed_once_and_kept_in_the_store(drawn, call, encoded):
    del drawn
    kept = json.loads(read_blob(Store.open(encoded), DIRECTIONS_BLOB))
    assert [(k["source"], k["target"]) for k in kept] == [("face", "face with a beard")]
    assert list_blobs(Store.open(encoded))[DIRECTIONS_BLOB].made_from.keys() == {"clip"}
    # Without its CLIP the store still knows the way, and no way that it was not told.
    no_clip = "import flows.models\ndef refuse(*_, **__): raise SystemExit(7)\n"
    no_clip += "flows.models.load_models = refuse\nimport flows.steps.origin as origin\n"
    no_clip += "origin.load_models = refuse"
    call("pairs", encoded, *BEARD, "--count", 2, before=no_clip)
    other = ("--policy", "direction", "--to", "smiling face")
    call("pairs", encoded, *other, "--count", 2, before=no_clip, code=7)


def test_a_mapper_is_trained_on_a_mixture_with_a_direction(call, encoded, tmp_path):
    mixture = ("--policy", "random:0.5,direction:0.5", *BEARD[2:])
    call("train", encoded, tmp_path / "run", *mixture, "--steps", 2, "--batch-size", 8)
    saved = json.loads((tmp_path / "run" / "train.json").read_text())["training"]["pairs"]
    assert saved["policy"] == "random:0.5,direction:0.5"
    assert saved["direction"]["target"] == "face with a beard"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--policy", "tree"), "random, nearest, band, direction"),
        (("--policy", "direction"), "--to"),
        (("--policy", "nearest", "--to", "smiling face"), "belong to --policy direction"),
        (("--policy", "random", "--min-similarity", "0.5"), "use band"),
    ],
    ids=["unknown", "no text", "a text too many", "no such bound"],
)
def test_options_that_do_not_fit_are_refused(call, encoded, options, message):
    assert message in call("pairs", encoded, *options, code=2).err

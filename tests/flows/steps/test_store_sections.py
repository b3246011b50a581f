"""What a page says about stores that lack something, and about what was left out."""

import numpy as np
import pytest

from flows.steps.report import report
from flows.steps.store_sections import store_sections
from stores.schema import Column, Schema
from stores.store import Store


def titles(store):
    return [section.title for section in store_sections(store)]


def test_a_store_of_vectors_alone_gets_a_page_without_pictures(tmp_path, caplog):
    schema = Schema((Column("clip", (4,), "float32"),))
    store = Store.open_or_create(
        tmp_path / "x.store", schema=schema, fingerprints={"clip": "x"}, split_eval=0.0
    )
    assert titles(store.path) == ["The store"]
    assert "left out of the page" in caplog.text
    assert report(store.path, tmp_path).exists()


def test_rejects_are_counted_by_reason_with_an_example_of_each(tmp_path, call, faces):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number in range(4):
        name = f"avatar-{number:06d}.png"
        (folder / name).write_bytes((faces / name).read_bytes())
    for number in range(15):
        (folder / f"bad-{number:02d}.png").write_bytes(b"no picture at all")
    (folder / "same.png").write_bytes((faces / "avatar-000000.png").read_bytes())
    call("precompute", folder, "mixed.store", "--models", "avatar", "--columns", "clip",
         "--max-reject-rate", 1, folder=tmp_path)  # fmt: skip
    left_out = next(s for s in store_sections(tmp_path / "mixed.store") if s.title == "Left out")
    assert sum(int(count) for count in left_out.figures.values()) == 16
    reasons = [line[1] for line in left_out.tables[0].lines]
    assert len(reasons) == 12
    assert set(reasons) == set(left_out.figures)
    assert "duplicate" in reasons


def test_throughput_says_where_the_time_went(encoded):
    (speed,) = (s for s in store_sections(encoded) if s.title == "Throughput")
    assert speed.figures["images"] == "96"
    assert {"seconds: clip", "seconds: e4e", "seconds: decode"} <= speed.table.keys()
    assert float(speed.figures["images per second"].replace(",", "")) > 0


@pytest.mark.parametrize("title", ["Images", "Embedding map", "Pairs"])
def test_an_encoded_store_shows_its_pictures(encoded, title):
    (section,) = (s for s in store_sections(encoded) if s.title == title)
    assert len(np.frombuffer(section.pictures[0].png, np.uint8)) > 1000

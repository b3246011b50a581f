"""Alignment of CLIP space and delta space on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from flows.steps.alignment import AlignConfig, align_source
from pipeline.errors import PipelineError, ShapeError
from pipeline.images import decode_image
from stores.errors import StoreError

REAL = Path(__file__).resolve().parents[3] / "../shared/real/alignment"
# reference/algorithms.md, section 1.7: cosine, gap, separability, recall of the published features.
PUBLISHED = {
    "celeba, CLIP space": (0.255, 0.964, 1.0, 0.009),
    "celeba, delta space": (0.163, 0.084, 0.717, 0.075),
    "cocoval, CLIP space": (0.304, 0.826, 1.0, 0.474),
    "cocoval, delta space": (0.374, 0.025, 0.567, 0.973),
}


def features(folder, name="mine", num_rows=30, kinds=("i", "t", "deltai", "deltat")):
    random = np.random.default_rng(0)
    for kind in kinds:
        rows = random.standard_normal((num_rows, 8)).astype(np.float32)
        np.save(folder / f"cspace_{name}_{kind}.npy", rows)
    return folder


@pytest.mark.skipif(not REAL.exists(), reason="../shared/real is not on this machine")
def test_the_command_gives_the_published_numbers_and_pictures(call, tmp_path):
    run = call("alignment", REAL, "--points", 40, "--out", tmp_path / "out", "--json")
    table = json.loads(run.out)
    files = [tmp_path / f"out/{name}-alignment.json" for name in ("celeba", "cocoval")]
    first, second = (json.loads(file.read_text()) for file in files)
    assert table == first | second
    assert table.keys() == PUBLISHED.keys()
    for name, numbers in PUBLISHED.items():
        assert list(table[name].values()) == pytest.approx(numbers, abs=6e-4)
    for file in files:
        pixels = decode_image(file.with_suffix(".png").read_bytes())
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_a_store_is_compared_with_captions(call, encoded, faces):
    run = call("alignment", encoded, "--captions", faces / "attributes.jsonl", "--json")
    table = json.loads(run.out)
    assert table.keys() == {"faces, CLIP space", "faces, delta space"}
    assert table["faces, delta space"]["paired_cosine"] > 0.1
    assert table["faces, delta space"]["modality_gap"] < table["faces, CLIP space"]["modality_gap"]


def test_missing_differences_are_taken_between_neighbouring_rows(tmp_path):
    found = align_source(AlignConfig(source=features(tmp_path, kinds=("i", "t"))))["mine"]
    image = np.load(tmp_path / "cspace_mine_i.npy")
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    np.testing.assert_allclose(found.spaces[1][0][4], image[5] - image[4], atol=1e-6)


def test_neighbours_with_one_caption_describe_no_change(tmp_path):
    features(tmp_path, kinds=("i", "t"))
    text = np.load(tmp_path / "cspace_mine_t.npy")
    text[6] = 2 * text[5]
    np.save(tmp_path / "cspace_mine_t.npy", text)
    found = align_source(AlignConfig(source=tmp_path))["mine"]
    assert [len(rows) for rows in found.spaces[1]] == [29, 29]
    assert np.isfinite(found.delta_space).all()


def test_rows_that_are_not_paired_are_refused(tmp_path):
    features(tmp_path)
    features(tmp_path, num_rows=29, kinds=("t",))
    with pytest.raises(ShapeError, match="text has shape"):
        align_source(AlignConfig(source=tmp_path))


def test_missing_and_damaged_features_are_named(tmp_path):
    with pytest.raises(PipelineError, match="has no cspace_NAME_i"):
        align_source(AlignConfig(source=tmp_path))
    features(tmp_path)
    (tmp_path / "cspace_mine_deltat.npy").unlink()
    with pytest.raises(PipelineError, match=r"cspace_mine_deltat\.npy cannot be read"):
        align_source(AlignConfig(source=tmp_path))


def test_captions_go_with_stores_alone(encoded, tmp_path):
    with pytest.raises(ValueError, match="a store needs --captions"):
        AlignConfig(source=encoded)
    with pytest.raises(ValueError, match=r"nothing else does.*points: at least 2"):
        AlignConfig(source=features(tmp_path), captions=tmp_path, num_points=1)


def test_captions_of_other_keys_and_other_files_are_refused(encoded, tmp_path):
    captions = tmp_path / "captions.jsonl"
    captions.write_text('{"key": "nobody.png", "caption": "a face"}\n')
    with pytest.raises(StoreError, match=r"captions of 0 of the 96 rows .* 'avatar-000000\.png'"):
        align_source(AlignConfig(source=encoded, captions=captions))
    captions.write_text('{"name": "x"}\n')
    with pytest.raises(PipelineError, match="lines of JSON with key and caption"):
        align_source(AlignConfig(source=encoded, captions=captions))

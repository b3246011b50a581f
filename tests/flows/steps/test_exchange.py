"""The published example vectors as a store: everything that needs no model works on it."""

import json
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from flows.models import ModelOptions
from flows.steps.exchange import ImportConfig, import_vectors
from pipeline.errors import ShapeError, WeightsError
from pipeline.models.registry import BUNDLED_FOLDER
from pipeline.models.s_layout import layout_of_codes
from pipeline.models.weights import load_generator
from stores.errors import FingerprintMismatchError
from stores.reader import StoreReader

REAL = Path(__file__).resolve().parents[3] / "../shared/real"
LAYOUT = layout_of_codes(6048, 18)


@pytest.fixture(scope="module")
def real(tmp_path_factory, call):
    """The 20 published rows, imported on the command line."""
    if not REAL.exists():
        pytest.skip("../shared/real is not on this machine")
    store = tmp_path_factory.mktemp("real") / "real.store"
    run = call(
        "store", "import", store, REAL, "--layout", "official", "--split-eval", 0.3, "--json"
    )
    assert json.loads(run.out)["rows"] == 20
    return store


def test_the_published_codes_have_the_published_statistics(real):
    """reference/algorithms.md, sections 1.5 and 1.6: over all 190 pairs of rows."""
    s = StoreReader(real).column("s")
    delta = np.stack([s[j] - s[i] for i, j in combinations(range(20), 2)])
    square = {
        name: float((delta[:, LAYOUT.group(name)].astype(float) ** 2).mean())
        for name in ("coarse", "medium", "fine")
    }
    assert float((delta.astype(float) ** 2).mean()) == pytest.approx(3.91, abs=5e-3)
    assert square == pytest.approx({"coarse": 3.35, "medium": 4.94, "fine": 3.39}, abs=5e-3)
    assert np.linalg.norm(delta, axis=1).mean() == pytest.approx(152, abs=0.5)
    assert np.median(s.std(axis=0, ddof=1)) == pytest.approx(1.19, abs=5e-3)
    assert np.abs(s).max() == pytest.approx(133, abs=0.5)
    widths = {name: LAYOUT.group(name).stop - LAYOUT.group(name).start for name in square}
    energy = {name: value * widths[name] for name, value in square.items()}
    shares = [round(100 * value / sum(energy.values())) for value in energy.values()]
    assert shares == [22, 43, 35]


def test_the_published_embeddings_have_the_published_statistics(real):
    """reference/algorithms.md, section 0.6: not normalised, made in half precision."""
    clip = StoreReader(real).column("clip")
    assert np.linalg.norm(clip, axis=1).mean() == pytest.approx(10.36, abs=5e-3)
    np.testing.assert_array_equal(clip.astype(np.float16).astype(np.float32), clip)


def test_what_was_imported_goes_out_again_byte_for_byte(real, call, tmp_path):
    call("store", "export", real, tmp_path / "out", "--layout", "official")
    for path in REAL.glob("*.npy"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_neighbours_pairs_and_relevance_need_no_model(real, call, tmp_path):
    call("index", real, "--neighbours", 5)
    run = call("neighbours", real, "--key", "img/000000003", "-k", 3, "--json")
    assert json.loads(run.out)["neighbours"][0]["key"] == "img/000000003"
    run = call("pairs", real, "--policy", "nearest", "--num-neighbours", 3, "--count", 5, "--json")
    clip = StoreReader(real).column("clip")
    for pair in json.loads(run.out)["pairs"]:
        rows = [clip[int(pair[name][-9:])] for name in ("source", "target")]
        cosine = np.dot(*rows) / np.prod([np.linalg.norm(row) for row in rows])
        assert pair["similarity"] == pytest.approx(cosine, abs=1e-5)
    call("relevance", real, "--out", tmp_path / "rs.npz")
    with np.load(tmp_path / "rs.npz") as file:
        assert file["rs"].shape == (6048, 512)


@pytest.mark.slow
def test_a_mapper_of_the_published_size_learns_from_the_published_rows(real, call, tmp_path):
    call("train", real, tmp_path / "run", "--recipe", "official", "--steps", 2, "--batch-size", 4)
    assert (tmp_path / "run" / "mapper.safetensors").stat().st_size > 4 * 82_760_576


def test_what_needs_models_says_how_to_name_them(real, call):
    run = call("neighbours", real, "--text", "face with glasses", code=2)
    assert "imported without models" in run.err
    assert "--models" in run.err


def test_other_settings_and_other_sources_are_refused(real, call, faces, small_shards):
    again = ("store", "import", real, REAL, "--split-eval", 0.3)
    run = call(*again, "--clip-pre", "official", code=2)
    assert "pre=box7" in run.err
    assert "pre=official" in run.err
    run = call("precompute", faces, real, *small_shards, "--split-eval", 0.3, code=2)
    assert "imported official" in run.err
    call(*again)
    assert len(StoreReader(real)) == 20


def write_codes(folder, num_rows=6, **changes):
    """Codes of the bundled world under published names."""
    folder.mkdir()
    generator, _ = load_generator(BUNDLED_FOLDER / "generator.safetensors")
    random = np.random.default_rng(0)
    w_plus = random.standard_normal((num_rows, generator.layout.num_w, 512)).astype(np.float32)
    arrays = {
        "cspace": random.standard_normal((num_rows, 16)).astype(np.float32),
        "wspace": w_plus,
        "sspace": generator.to_s(torch.from_numpy(w_plus)).numpy(),
        **changes,
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}_noise_feat.npy", array)
    return folder


def config(tmp_path, **changes):
    given = {"store": tmp_path / "s", "source": tmp_path / "in", "split_eval": 0.3}
    return ImportConfig(**given, **changes)


def avatar():
    return ModelOptions(models="avatar", clip_pre="box7")


def test_widths_of_no_published_generator_are_refused_with_those_there_are(tmp_path):
    write_codes(tmp_path / "in", sspace=np.ones((6, 6000), np.float32))
    with pytest.raises(ShapeError, match=r"S of 6000 channels beside W\+ of 10 .*6048 and 18"):
        import_vectors(config(tmp_path))
    assert not (tmp_path / "s").exists()


def test_a_named_generator_allows_any_widths_and_a_mapper_learns_from_them(tmp_path, call):
    write_codes(tmp_path / "in", num_rows=24)
    assert import_vectors(config(tmp_path, models=avatar())).rows == 24
    call("train", tmp_path / "s", tmp_path / "run", "--steps", 2, "--batch-size", 4)
    assert (tmp_path / "run" / "mapper.safetensors").is_file()


def test_codes_of_another_generator_are_refused(tmp_path):
    folder = write_codes(tmp_path / "in")
    s = np.load(folder / "sspace_noise_feat.npy")
    np.save(folder / "sspace_noise_feat.npy", s[:, ::-1].copy())
    with pytest.raises(WeightsError, match="off what the generator makes of wspace_noise"):
        import_vectors(config(tmp_path, models=avatar()))
    np.save(folder / "sspace_noise_feat.npy", s[:, :-1].copy())
    with pytest.raises(WeightsError, match="the generator of 64 px has"):
        import_vectors(config(tmp_path, models=avatar()))
    assert not (tmp_path / "s").exists()


def test_changed_files_are_not_mixed_into_a_store(tmp_path):
    folder = write_codes(tmp_path / "in")
    import_vectors(config(tmp_path, models=avatar()))
    shutil.copy(folder / "cspace_noise_feat.npy", tmp_path / "kept.npy")
    np.save(folder / "cspace_noise_feat.npy", np.load(tmp_path / "kept.npy") + 1)
    with pytest.raises(FingerprintMismatchError, match="sha256"):
        import_vectors(config(tmp_path, models=avatar()))


def test_every_wrong_setting_is_named_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"layout: 'x'.*clip_pre: 'y'.*shard_rows.*split_eval"):
        ImportConfig(
            store=tmp_path, source=tmp_path, layout="x", clip_pre="y", shard_rows=0, split_eval=1.0
        )

import json
from pathlib import Path

import numpy as np
import pytest

from stores.errors import ManifestError, SchemaMismatchError
from stores.plan import ShardPlan
from stores.reader import StoreReader
from stores.scaling import Moments, Scaling
from stores.schema import Column, Schema
from stores.sources import SourceItem
from stores.store import Store
from stores.verify import verify_store
from stores.writer import ShardWriter

REAL = Path(__file__).parents[3] / "shared" / "real" / "sspace_img_feat.npy"


def _scaling_of(rows: np.ndarray) -> Scaling:
    moments = Moments(rows.shape[1:])
    moments.add(rows)
    return moments.scaling()


def _error_of_differences(rows: np.ndarray, found: np.ndarray) -> float:
    """Relative error of the difference of two rows, by Euclidean norms, mean over all pairs."""
    one, other = np.triu_indices(len(rows), 1)
    rows, found = rows.astype("float64"), found.astype("float64")
    differences = rows[one] - rows[other]
    errors = found[one] - found[other] - differences
    return float(np.mean(np.linalg.norm(errors, axis=1) / np.linalg.norm(differences, axis=1)))


def _codes(num_rows: int = 200) -> np.ndarray:
    """Channels whose means are far beyond their deviations, as those of S codes are."""
    rng = np.random.default_rng(0)
    mean, std = rng.normal(0, 5, 300), rng.uniform(0.05, 1, 300)
    return (mean + std * rng.standard_normal((num_rows, 300))).astype("float32")


def test_differences_of_scaled_rows_have_an_error_of_two_hundredths_of_a_percent():
    rows = _codes()
    scaling = _scaling_of(rows)
    error = _error_of_differences(rows, scaling.to_float32(scaling.to_float16(rows)))
    assert error < 2.1e-4
    assert _error_of_differences(rows, rows.astype("float16").astype("float32")) > 5 * error


@pytest.mark.skipif(not REAL.exists(), reason="the official rows are not in this checkout")
def test_differences_of_real_s_codes_keep_their_precision():
    rows = np.load(REAL)
    scaling = _scaling_of(rows)
    error = _error_of_differences(rows, scaling.to_float32(scaling.to_float16(rows)))
    assert error < 2.1e-4
    raw = _error_of_differences(rows, rows.astype("float16"))
    assert raw == pytest.approx(1.8e-3, rel=0.02), "the statistic of the published figures"


@pytest.mark.parametrize(("deviations", "bound"), [(0, 2.1e-4), (0.5, 2.4e-4), (1, 3e-4)])
def test_numbers_measured_on_other_rows_cost_what_the_format_says(deviations, bound):
    """The numbers come from the generator's own samples, the rows from images."""
    rows = _codes()
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    scaling = _scaling_of((rows - mean) * 1.5 + mean + deviations * std)
    error = _error_of_differences(rows, scaling.to_float32(scaling.to_float16(rows)))
    assert 0.8 * bound < error < bound


def test_moments_of_blocks_are_those_of_all_rows():
    rows = _codes() + 1000
    moments = Moments((300,))
    for start in range(0, len(rows), 33):
        moments.add(rows[start : start + 33])
    moments.add(rows[:0])
    found = moments.scaling()
    np.testing.assert_allclose(np.frombuffer(found.mean, "<f4"), rows.mean(0, "f8"), rtol=1e-6)
    np.testing.assert_allclose(np.frombuffer(found.scale, "<f4"), rows.std(0, dtype="f8"), 1e-5)


def test_a_channel_that_never_varied_takes_later_values():
    rows = _codes()
    rows[:, 7] = 3.0
    scaling = _scaling_of(rows)
    rows[0, 7] = 4.0
    found = scaling.to_float32(scaling.to_float16(rows))
    np.testing.assert_allclose(found[:, 7], rows[:, 7], atol=1e-3)
    constant = _scaling_of(np.full((5, 2), 3.0, "float32"))
    assert constant.to_float32(constant.to_float16(np.full((1, 2), 3.5))).tolist() == [[3.5, 3.5]]


def test_a_scaling_survives_json_and_a_changed_one_is_refused():
    scaling = _scaling_of(_codes())
    value = json.loads(json.dumps(scaling.to_json()))
    assert Scaling.from_json(value) == scaling
    for name in ("mean", "scale"):
        letter = "B" if value[name][5] == "A" else "A"
        changed = value[name][:5] + letter + value[name][6:]
        with pytest.raises(ManifestError, match="have not the digest"):
            Scaling.from_json(value | {name: changed})
        with pytest.raises(ManifestError, match="not base64"):
            Scaling.from_json(value | {name: "?" + value[name][1:]})


def test_only_float16_columns_are_scaled_and_by_every_channel():
    scaling = _scaling_of(_codes())
    with pytest.raises(SchemaMismatchError, match="only float16 is kept scaled"):
        Column("s", (300,), "float32", scaling)
    with pytest.raises(SchemaMismatchError, match="1204 bytes each; got 1200 and 1200"):
        Column("s", (301,), "float16", scaling)


@pytest.mark.parametrize("shard_format", ["hdf5", "webdataset"])
def test_a_scaled_store_takes_and_gives_float32(tmp_path, shard_format):
    rows = _codes(60)
    schema = Schema(
        (Column("clip", (4,), "float32"), Column("s", (300,), "float16", _scaling_of(rows)))
    )
    clip = np.arange(240, dtype="float32").reshape(60, 4)
    store = Store.create(
        tmp_path / "a", schema=schema, fingerprints={"s": "x"}, shard_format=shard_format
    )
    for number in range(3):
        place = slice(number * 20, number * 20 + 20)
        keys = [f"{i:03}.png" for i in range(60)][place]
        writer = ShardWriter(store, ShardPlan(number, tuple(SourceItem(key) for key in keys)))
        writer.add(keys, {"clip": clip[place], "s": rows[place]})
        writer.commit()
    store.consolidate()
    assert verify_store(tmp_path / "a", full=True) == []
    for reader in (StoreReader(tmp_path / "a"), StoreReader(tmp_path / "a", max_mapped_shards=1)):
        wanted = [59, 0, 21, 21]
        found = reader.rows(wanted, ["s", "clip"])
        assert found["s"].dtype == np.float32
        np.testing.assert_allclose(found["s"], rows[wanted], atol=3e-3)
        np.testing.assert_array_equal(found["s"], reader.column("s")[wanted])
        np.testing.assert_array_equal(found["clip"], clip[wanted])
    assert reader.rows([], ["s"])["s"].shape == (0, 300)
    assert _error_of_differences(rows, reader.column("s")) < 2.1e-4
    (tmp_path / "a" / "manifest.json").unlink()
    assert Store.open(tmp_path / "a").header == store.header


def test_a_value_beyond_float16_makes_a_reject_and_not_an_infinity(tmp_path):
    rows = _codes(20)
    schema = Schema((Column("s", (300,), "float16", _scaling_of(rows)),))
    store = Store.create(tmp_path / "a", schema=schema, fingerprints={})
    rows[3, 5] = 1e9
    keys = [f"{i:02}" for i in range(20)]
    writer = ShardWriter(store, ShardPlan(0, tuple(SourceItem(key) for key in keys)))
    writer.add(keys, {"s": rows})
    assert (writer.commit().rows, [r.key for r in store.read_rejects(0)]) == (19, ["03"])
    assert "too far from the mean for float16" in store.read_rejects(0)[0].detail
    assert np.isfinite(StoreReader(tmp_path / "a").column("s")).all()


def test_the_numbers_of_a_scaling_belong_to_the_store(tmp_path):
    rows = _codes()
    ours = Schema((Column("s", (300,), "float16", _scaling_of(rows)),))
    theirs = Schema((Column("s", (300,), "float16", _scaling_of(rows * 2)),))
    Store.create(tmp_path / "a", schema=ours, fingerprints={})
    assert Store.open(tmp_path / "a", schema=theirs).header.schema == ours
    assert ours != theirs
    for other in (Column("s", (300,), "float32"), Column("s", (300,), "float16")):
        with pytest.raises(SchemaMismatchError, match=r"s \[300\] float16 \(scaled\)"):
            Store.open(tmp_path / "a", schema=Schema((other,)))

"""Rows of sampled sources, and what a run's configuration refuses."""

from pathlib import Path

import numpy as np
import pytest

from flows.models import ModelOptions
from flows.steps.precompute import PrecomputeConfig, precompute
from stores.errors import SourceError
from stores.reader import StoreReader

MODELS = ModelOptions(models="avatar", precision="float32")


def config(store, source="sampled:12?seed=3&truncation=0.7", **changes):
    return PrecomputeConfig(sources=(source,), store=store, models=MODELS, **changes)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    store = tmp_path_factory.mktemp("sampled") / "twelve"
    precompute(config(store, batch_size=12))
    return StoreReader(store)


def test_sampled_rows_do_not_depend_on_batches_or_shards(sampled, tmp_path):
    precompute(config(tmp_path / "s", batch_size=2, shard_rows=5))
    reader = StoreReader(tmp_path / "s")
    assert sorted(reader.keys) == sorted(sampled.keys)
    rows = [sampled.index_of(key) for key in reader.keys]
    for name in ("w_plus", "s"):
        ours, theirs = reader.column(name), sampled.column(name)[rows]
        # Matrix products of other sizes round differently in the last bits.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
    # So do renders, of which a few pixels then fall on the other side of an 8-bit level.
    ours, theirs = reader.column("clip"), sampled.column("clip")[rows]
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    assert ((ours * theirs).sum(axis=1) / lengths).min() > 0.9999


def test_more_samples_of_a_seed_keep_the_first_ones(sampled, tmp_path):
    precompute(config(tmp_path / "s", "sampled:13?seed=3&truncation=0.7"))
    reader = StoreReader(tmp_path / "s")
    row = reader.rows([reader.index_of("z/3/11")], ["s"])["s"]
    same = sampled.rows([sampled.index_of("z/3/11")], ["s"])["s"]
    np.testing.assert_allclose(row, same, rtol=0, atol=1e-5 * np.abs(same).max())


def test_the_fingerprint_of_samples_names_truncation_and_generator(sampled):
    assert "truncation=0.7" in sampled.fingerprints["clip"]
    assert "rendered by stylegan2 sha256=" in sampled.fingerprints["clip"]


def test_samples_and_photographs_do_not_share_a_store():
    with pytest.raises(ValueError, match="stands alone"):
        PrecomputeConfig(sources=("sampled:2", "faces"), store=Path("s"), models=MODELS)


def test_every_value_out_of_range_is_named_at_once():
    with pytest.raises(ValueError, match=r"shard_rows .* split_eval .* max_reject_rate"):
        config(Path("s"), shard_rows=0, split_eval=1.0, max_reject_rate=2.0)


def test_a_misspelt_sample_source_is_refused_before_any_work():
    with pytest.raises(SourceError, match="unknown option sead"):
        config(Path("s"), "sampled:10?sead=1")


def test_a_decoder_of_jpegs_is_one_of_two_and_not_for_samples():
    with pytest.raises(ValueError, match="jpeg_decoder is one of libjpeg, nvjpeg, got 'jpg'"):
        config(Path("s"), "faces", jpeg_decoder="jpg")
    with pytest.raises(ValueError, match="draws its images and decodes none"):
        config(Path("s"), jpeg_decoder="nvjpeg")

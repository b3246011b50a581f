from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import PairError, ShapeError
from pipeline.pairs.deltas import pair_conditions
from pipeline.pairs.index import neighbour_graph
from pipeline.pairs.sampling import PairConfig
from pipeline.training.data import PairBatches, RowBlock, load_rows

GOLDEN = Path(__file__).resolve().parents[3] / "../shared/golden/delta_mapper.npz"


@pytest.fixture
def block(rows, split, widths):
    return load_rows(rows, split[0], s_dim=sum(widths))


def test_loaded_rows_are_those_asked_for_with_unit_embeddings(block, rows, split):
    clip = rows.columns["clip"][split[0]]
    assert np.array_equal(block.s, rows.columns["s"][split[0]])
    assert np.allclose(block.units, clip / np.linalg.norm(clip, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.skipif(not GOLDEN.exists(), reason="../shared/golden is not on this machine")
def test_gathered_pairs_equal_those_of_the_published_training_set():
    with np.load(GOLDEN) as golden:
        first, second = golden["pair_first"] % len(golden["pair_s"]), golden["pair_second"]
        clip, s = golden["pair_c"], golden["pair_s"]
        expected = [golden[f"pair_out_{name}"] for name in ("s1", "cond", "delta_s")]
    units = clip / np.linalg.norm(clip, axis=1, keepdims=True)
    batches = PairBatches(RowBlock(units, s), PairConfig(), batch_size=6)
    batch = batches._gather_into_buffers(first.astype(np.int64), second.astype(np.int64))
    assert np.array_equal(batch.s.numpy(), expected[0])
    assert np.abs(batch.delta_s.numpy() - expected[2]).max() < 1e-6
    # The last pair is clamped: its entries carry rounding noise.
    assert np.abs(batch.condition.numpy() - expected[1])[:5].max() < 1e-6


def test_batches_come_out_the_same_in_any_order(block):
    forwards = PairBatches(block, PairConfig(), batch_size=8)
    backwards = PairBatches(block, PairConfig(), batch_size=8)
    numbers = [0, 31, 32, 33, 100]
    expected = {number: forwards.pairs(number) for number in numbers}
    for number in reversed(numbers):
        assert np.array_equal(backwards.pairs(number), expected[number])
    assert not np.array_equal(expected[0], expected[32])


@pytest.mark.parametrize("policy", ["random", "nearest", "band"])
def test_a_batch_holds_differences_and_conditions_of_its_pairs(block, policy):
    config = PairConfig(policy=policy, min_similarity=-1.0 if policy == "random" else 0.3)
    batches = PairBatches(block, config, batch_size=16)
    batch = batches.batch(3)
    sources, targets = batches.pairs(3)
    assert np.array_equal(batch.s.numpy(), block.s[sources])
    assert np.allclose(batch.delta_s.numpy(), block.s[targets] - block.s[sources])
    expected = pair_conditions(block.units[sources], block.units[targets]).numpy()
    assert np.allclose(batch.condition.numpy(), expected, atol=1e-6)


def test_torch_and_numpy_gather_the_same_pairs(block):
    batches = PairBatches(block, PairConfig(), batch_size=32)
    batches._resident_s, batches._resident_units = (
        batches.batch(0).s.new_tensor(values) for values in (block.s, block.units)
    )
    sources, targets = batches.pairs(5)
    ours = batches._gather_into_buffers(sources, targets)
    theirs = batches._gather_on_device(sources, targets)
    for one, other in zip(ours, theirs, strict=True):
        assert np.allclose(one.numpy(), other.numpy(), atol=1e-6)


def test_nearest_uses_the_given_graph(block):
    graph = neighbour_graph(block.units, 3)
    config = PairConfig(policy="nearest", num_neighbours=3)
    given = PairBatches(block, config, batch_size=8, neighbours=graph).batch(0)
    built = PairBatches(block, config, batch_size=8).batch(0)
    assert np.array_equal(given.delta_s.numpy(), built.delta_s.numpy())


def test_z_scored_codes_have_mean_0_and_std_1_and_constant_channels_become_0(block):
    block.s[:, 5] = 7.5
    scaling = block.scaling()
    assert scaling.std[5] == 0
    block.rescale(scaling)
    varying = np.arange(block.s.shape[1]) != 5
    assert np.abs(block.s.mean(axis=0)).max() < 1e-5
    assert np.allclose(block.s.std(axis=0)[varying], 1, atol=1e-4)
    assert (block.s[:, 5] == 0).all()


def test_a_layer_signature_of_its_size_stays_in_scaled_codes(block):
    block.rescale(block.scaling().signed(2.0, np.random.default_rng(0)))
    pattern = block.s.mean(axis=0)
    assert pattern.std() == pytest.approx(2.0, rel=0.3)
    assert np.allclose(block.s.std(axis=0), 1, atol=1e-4)


def test_codes_of_another_width_and_single_rows_are_refused(rows, split):
    with pytest.raises(ShapeError, match="column s"):
        load_rows(rows, split[0], s_dim=6048)
    with pytest.raises(PairError, match="1 rows"):
        load_rows(rows, split[0][:1], s_dim=68)

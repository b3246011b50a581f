from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import PairError, ShapeError
from pipeline.pairs.deltas import pair_conditions
from pipeline.pairs.graph import neighbour_graph
from pipeline.pairs.sampling import PairConfig
from pipeline.training.data import PairBatches, Share
from pipeline.training.gather import DeviceRows, HostGather
from pipeline.training.holding import choose_residency, hold_rows
from pipeline.training.rows import RowBlock, load_rows, measure_scaling

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
    batch = HostGather(RowBlock(units, s), 6)(first.astype(np.int64), second.astype(np.int64))
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
    sources, targets = PairBatches(block, PairConfig(), batch_size=32).pairs(5)
    ours = HostGather(block, 32)(sources, targets)
    theirs = DeviceRows(block, torch.device("cpu"))(sources, targets)
    for one, other in zip(ours, theirs, strict=True):
        assert np.allclose(one.numpy(), other.numpy(), atol=1e-6)


def test_the_naive_condition_is_the_target_itself(block):
    batches = PairBatches(block, PairConfig(), batch_size=16, condition="target")
    sources, targets = batches.pairs(2)
    expected = np.concatenate([block.units[sources], block.units[targets]], axis=1)
    ours = batches.batch(2)
    theirs = DeviceRows(block, torch.device("cpu"), "target")(sources, targets)
    assert np.array_equal(ours.condition.numpy(), expected)
    assert np.array_equal(theirs.condition.numpy(), expected)
    assert np.allclose(ours.delta_s.numpy(), block.s[targets] - block.s[sources])


def test_nearest_uses_the_given_graph(block):
    graph = neighbour_graph(block.units, 3)
    config = PairConfig(policy="nearest", num_neighbours=3)
    given = PairBatches(block, config, batch_size=8, neighbours=graph).batch(0)
    built = PairBatches(block, config, batch_size=8).batch(0)
    assert np.array_equal(given.delta_s.numpy(), built.delta_s.numpy())


def test_z_scored_codes_have_mean_0_and_std_1_and_constant_channels_become_0(block):
    block.s[:, 5] = 7.5
    scaling = measure_scaling(np.arange(len(block)), block.s.__getitem__)
    assert scaling.std[5] == 0
    scaling.apply(block.s)
    varying = np.arange(block.s.shape[1]) != 5
    assert np.abs(block.s.mean(axis=0)).max() < 1e-5
    assert np.allclose(block.s.std(axis=0)[varying], 1, atol=1e-4)
    assert (block.s[:, 5] == 0).all()


def test_a_layer_signature_of_its_size_stays_in_scaled_codes(block):
    scaling = measure_scaling(np.arange(len(block)), block.s.__getitem__)
    scaling.signed(2.0, np.random.default_rng(0)).apply(block.s)
    pattern = block.s.mean(axis=0)
    assert pattern.std() == pytest.approx(2.0, rel=0.3)
    assert np.allclose(block.s.std(axis=0), 1, atol=1e-4)


def test_a_mean_far_from_0_costs_the_std_no_digits():
    codes = np.random.default_rng(0).standard_normal((5000, 3)).astype(np.float32) + 1000
    scaling = measure_scaling(np.arange(5000), codes.__getitem__)
    assert np.allclose(scaling.std, codes.std(axis=0, dtype=np.float64), rtol=1e-6)
    assert np.allclose(scaling.centre, codes.mean(axis=0, dtype=np.float64), rtol=1e-6)


def held_batches(rows, split, widths, residency, *, z_score, batch_size=16, **options):
    held, scaling = hold_rows(
        rows,
        split[0],
        s_dim=sum(widths),
        residency=residency,
        z_score=z_score,
        sign=lambda found: found.signed(2.0, np.random.default_rng(0)),
    )
    config = options.pop("config", PairConfig())
    return PairBatches(held, config, batch_size=batch_size, **options), scaling


def copied(batch):
    return [tensor.clone().numpy() for tensor in batch]


@pytest.mark.parametrize("z_score", [True, False])
@pytest.mark.parametrize("policy", ["random", "nearest", "band"])
def test_streamed_batches_are_those_of_rows_in_memory_bit_for_bit(
    rows, split, widths, policy, z_score
):
    config = PairConfig(policy=policy, min_similarity=-1.0 if policy == "random" else 0.3)
    sides = [
        held_batches(rows, split, widths, residency, z_score=z_score, config=config)
        for residency in ("float32", "stream")
    ]
    assert all(map(np.array_equal, sides[0][1], sides[1][1]))
    for number in (0, 1, 31, 32, 33, 64, 200, 3):
        for ours, theirs in zip(*(copied(b.batch(number)) for b, _ in sides), strict=True):
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("z_score", [True, False])
def test_rows_held_as_float16_differ_by_its_rounding(rows, split, widths, z_score):
    whole, scaling = held_batches(rows, split, widths, "float32", z_score=z_score)
    half, _ = held_batches(rows, split, widths, "float16", z_score=z_score)
    unit = 1.0 if z_score else scaling.std
    for number in range(20):
        ours, theirs = copied(half.batch(number)), copied(whole.batch(number))
        assert np.abs((ours[0] - theirs[0]) / unit).max() < 4 * 2**-11
        error = np.linalg.norm(ours[2] - theirs[2]) / np.linalg.norm(theirs[2])
        assert 0 < error < 5e-4
        assert np.array_equal(ours[1], theirs[1])


@pytest.mark.parametrize("batch_size", [1, 64, 150])
def test_batches_larger_than_what_a_thread_reads_are_put_together(rows, split, widths, batch_size):
    sides = [
        held_batches(rows, split, widths, residency, z_score=True, batch_size=batch_size)[0]
        for residency in ("float32", "stream")
    ]
    for number in (5, 6, 7, 2, 90):
        for ours, theirs in zip(*(copied(side.batch(number)) for side in sides), strict=True):
            assert np.array_equal(ours, theirs)


def test_a_row_that_cannot_be_read_ends_the_run_with_its_reason(rows, split, widths):
    class Failing:
        def __init__(self):
            self.fails = False

        def rows(self, indices, columns):
            if self.fails:
                raise OSError("shard 3 is gone")
            return rows.rows(indices, columns)

    source = Failing()
    batches, _ = held_batches(source, split, widths, "stream", z_score=True)
    batches.batch(0)
    source.fails = True
    with pytest.raises(OSError, match="shard 3 is gone"):
        batches.batch(1000)


@pytest.mark.gpu
@pytest.mark.parametrize("residency", ["float32", "float16", "stream"])
def test_batches_on_a_gpu_are_those_of_the_cpu(rows, split, widths, residency):
    cpu, gpu = (
        held_batches(rows, split, widths, residency, z_score=True, device=device)[0]
        for device in ("cpu", "cuda")
    )
    # Kept until the end: memory that batches are copied from must not be written too early.
    ours = [gpu.batch(number) for number in range(40)]
    for number, batch in enumerate(ours):
        assert all(tensor.is_cuda for tensor in batch)
        for one, other in zip(batch, cpu.batch(number), strict=True):
            assert np.allclose(one.cpu().numpy(), other.numpy(), atol=1e-5)


def test_the_parts_of_a_batch_make_the_batch(rows, split, widths):
    whole, _ = held_batches(rows, split, widths, "float32", z_score=True)
    for number in (0, 7, 40):
        parts = []
        for part in range(4):
            share = Share(part, 4)
            mine, _ = held_batches(rows, split, widths, "float32", z_score=True, share=share)
            parts.append(copied(mine.batch(number)))
        for pieces, expected in zip(zip(*parts, strict=True), whole.batch(number), strict=True):
            assert np.array_equal(np.concatenate(pieces), expected.numpy())


def test_a_batch_that_cannot_be_shared_evenly_is_refused(block):
    with pytest.raises(PairError, match="divides by 3"):
        PairBatches(block, PairConfig(), batch_size=16, share=Share(0, 3))


def test_the_way_to_hold_rows_follows_from_the_memory_there_is():
    def choose(budget):
        return choose_residency(258_000, s_dim=6048, clip_dim=512, budget_bytes=budget)

    assert choose(8 * 2**30) == "float32"
    assert choose(4 * 2**30) == "float16"
    assert choose(3 * 2**30) == "stream"


def test_codes_of_another_width_and_single_rows_are_refused(rows, split):
    with pytest.raises(ShapeError, match="column s"):
        load_rows(rows, split[0], s_dim=6048)
    with pytest.raises(PairError, match="1 rows"):
        load_rows(rows, split[0][:1], s_dim=68)

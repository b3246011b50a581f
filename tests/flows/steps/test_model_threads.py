import logging
import threading
import time

import numpy as np
import pytest
import torch

from flows.steps.model_threads import CPU_BATCH, ModelThreads
from pipeline.errors import PipelineError

CPU = torch.device("cpu")


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def batches(count, size=4):
    return [(number, list(range(number * size, (number + 1) * size))) for number in range(count)]


def doubled(inputs):
    return {"twice": np.array(inputs) * 2}


class SmallDevice(torch.nn.Linear):
    """A model whose device has memory for `room` rows; counts what it took."""

    def __init__(self, room):
        super().__init__(3, 2)
        self.room, self.taken = room, []

    def forward(self, x):
        if len(x) > self.room:
            raise torch.OutOfMemoryError(f"tried to allocate {len(x)} rows")
        self.taken.append(len(x))
        return super().forward(x)

    def encode(self, inputs):
        with torch.no_grad():
            return {"y": self(torch.tensor(inputs, dtype=torch.float32)).numpy()}


@pytest.mark.usefixtures("three_threads")
def test_batches_come_back_in_order_whichever_is_done_first():
    def slow_at_first(inputs):
        time.sleep(0.05 if inputs[0] == 0 else 0)
        return doubled(inputs)

    done = [(b, rows()) for b, rows in ModelThreads(CPU, 4).map(slow_at_first, batches(9))]
    assert [number for number, _ in done] == list(range(9))
    twice = np.concatenate([rows["twice"] for _, rows in done])
    assert twice.tolist() == list(range(0, 72, 2))


@pytest.mark.usefixtures("three_threads")
def test_a_bounded_number_of_batches_is_ahead():
    taken = 0

    def counted():
        nonlocal taken
        for batch in batches(30):
            taken += 1
            yield batch

    for given, (_, rows) in enumerate(ModelThreads(CPU, 4).map(doubled, counted())):
        assert taken - given <= 3 + 2
        rows()


@pytest.mark.usefixtures("three_threads")
def test_each_thread_has_one_processor_and_others_keep_theirs():
    seen = {}

    def encode(inputs):
        seen[threading.get_ident()] = torch.get_num_threads()
        torch.ones(300, 300) @ torch.ones(300, 300)
        return doubled(inputs)

    for _, rows in ModelThreads(CPU, 4).map(encode, batches(12)):
        rows()
    assert set(seen.values()) == {1}
    assert torch.get_num_threads() == 3
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [3]


def test_an_error_of_the_models_reaches_the_caller_and_ends_the_threads():
    def broken(inputs):
        raise ZeroDivisionError(str(inputs))

    _, rows = next(ModelThreads(CPU, 4).map(broken, batches(9)))
    with pytest.raises(ZeroDivisionError):
        rows()
    assert not [t for t in threading.enumerate() if t.name.startswith("models")]


def test_a_batch_without_inputs_gives_no_columns():
    (((_, rows)),) = list(ModelThreads(CPU, 4).map(doubled, [("empty", [])]))
    assert rows() == {}


def test_where_memory_is_short_batches_are_halved_and_the_run_goes_on(caplog):
    model = SmallDevice(room=3)
    inputs = np.random.default_rng(1).normal(size=(16, 3)).tolist()
    threads = ModelThreads(CPU, 16)
    with caplog.at_level(logging.WARNING, logger="deltaedit"):
        rows = threads.in_parts(model.encode, inputs)["y"]
    assert threads.part_size == 2
    assert model.taken == [2] * 8
    assert "no memory for 4 images at once; going on with 2" in caplog.text
    model.room = 16
    np.testing.assert_allclose(rows, model.encode(inputs)["y"], rtol=1e-6)
    model.taken.clear()
    threads.in_parts(model.encode, inputs[:4])
    assert model.taken == [2, 2]  # later batches start with what fits


def test_no_room_for_one_image_is_an_error_that_says_what_to_do():
    with pytest.raises(PipelineError, match="not enough memory for one image"):
        ModelThreads(CPU, 4).in_parts(SmallDevice(room=0).encode, [[0.0] * 3] * 4)


def test_batches_on_a_cpu_stay_small():
    assert ModelThreads(CPU, 256).batch_size == CPU_BATCH
    assert ModelThreads(CPU, 3).batch_size == 3
    assert ModelThreads(torch.device("cuda"), 256).batch_size == 256


class Processors(threading.BoundedSemaphore):
    """Counts who holds one."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number

    @property
    def held(self):
        return self.number - self._value


@pytest.mark.usefixtures("three_threads")
def test_no_more_threads_compute_than_there_are_processors():
    processors = Processors(2)
    seen = []

    def watching(inputs):
        seen.append(processors.held)
        time.sleep(0.01)
        return doubled(inputs)

    done = [rows() for _, rows in ModelThreads(CPU, 4, processors).map(watching, batches(9))]
    assert len(done) == 9
    assert set(seen) == {1, 2}
    assert processors.held == 0


def test_on_cuda_feeding_the_device_needs_no_processor():
    processors = Processors(1)
    on_cuda = ModelThreads(torch.device("cuda"), 4, processors)
    held = on_cuda.in_parts(lambda _: {"held": np.array([processors.held])}, [0])
    assert held["held"].tolist() == [0]

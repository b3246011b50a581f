"""Random lives of a store against a model of it: a mapping of files to what they should give."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from stores.errors import ManifestError
from stores.reader import StoreReader
from stores.repair import repair_store
from stores.store import Store
from stores.verify import verify_store

DIE_AT_EVENT = """
count = 0
def die(event, arguments):
    global count
    # What changes a folder or begins to write a file; each comes just before it happens.
    if event in ("os.rename", "os.remove", "os.mkdir", "open") and path in str(arguments[0]):
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
from stores.errors import ManifestError
from stores.repair import repair_store
"""
HARMFUL = {"missing", "size", "digest", "structure", "values", "account", "duplicate_key"}


class Life(RuleBasedStateMachine):
    """Files come, runs are killed or end, shards suffer, repairs are killed or end."""

    def __init__(self, run: ModuleType, start: Callable) -> None:
        super().__init__()
        self.run, self.start = run, start
        self.folder = Path(tempfile.mkdtemp(prefix="life-"))
        self.path = self.folder / "t.store"
        self.contents: dict[str, str] = {}
        self.committed: set[str] = set()
        self.num_files = 0
        self.is_harmed = self.is_mark_cut = self.is_byte_flipped = False

    def teardown(self) -> None:
        """However it went: a repair and a run give every row, and the accounts add up."""
        try:
            if self.path.exists() and self.contents:
                self._repair()
                self._run()
        finally:
            shutil.rmtree(self.folder)

    @initialize(num=st.integers(4, 9))
    def begin(self, num: int) -> None:
        self.grow(num)

    @rule(num=st.integers(1, 4))
    def grow(self, num: int) -> None:
        source = self.folder / "in"
        source.mkdir(exist_ok=True)
        for _ in range(num):
            # Spread over the keys there are, as new files are.
            name = f"{(self.num_files * 37) % 100:02}-{self.num_files}.png"
            self.contents[name] = f"{'bad' if self.num_files % 5 == 4 else 'good'} {name}"
            (source / name).write_text(self.contents[name])
            self.num_files += 1

    @precondition(lambda self: not self.is_harmed)
    @rule()
    def _run(self) -> None:
        self.run.main(str(self.folder / "in"), str(self.path), 3)
        self._check_complete()

    @precondition(lambda self: not self.is_harmed)
    @rule(kill_at=st.integers(1, 90))
    def crash(self, kill_at: int) -> None:
        code = DIE_AT_EVENT + "run.main(source, path, 3)"
        names = {"source": str(self.folder / "in"), "path": str(self.path), "kill_at": kill_at}
        self._in_process(code, names)

    # Commit marks and bytes do not suffer at once: where no digest is left, or none was written
    # before the run was killed, wrong values cannot be told from right ones.
    @precondition(lambda self: self._marked_shards() and not self.is_mark_cut)
    @rule(which=st.integers(0, 20), place=st.floats(0, 0.999))
    def flip_byte(self, which: int, place: float) -> None:
        self.is_byte_flipped = True
        shard = self._take(which, self._marked_shards())
        whole = bytearray(shard.read_bytes())
        whole[int(len(whole) * place)] ^= 0x20
        shard.write_bytes(whole)

    @precondition(lambda self: self._shards())
    @rule(which=st.integers(0, 20))
    def delete_shard(self, which: int) -> None:
        self._take(which, self._shards()).unlink()

    @precondition(lambda self: self._shards() and not self.is_byte_flipped)
    @rule(which=st.integers(0, 20), length=st.integers(0, 200))
    def cut_commit_mark(self, which: int, length: int) -> None:
        marks = sorted((self.path / "entries").glob("*.json"))
        mark = marks[which % len(marks)] if marks else None
        if mark is not None:
            mark.write_bytes(mark.read_bytes()[:length])
            self.is_harmed = self.is_mark_cut = True

    @precondition(lambda self: self._shards())
    @rule(length=st.integers(0, 4096))
    def cut_manifest(self, length: int) -> None:
        manifest = self.path / "manifest.json"
        if manifest.exists():
            manifest.write_bytes(manifest.read_bytes()[: -length or None])
            self.is_harmed = True

    @precondition(lambda self: self._shards())
    @rule(kill_at=st.integers(1, 40))
    def crash_in_repair(self, kill_at: int) -> None:
        code = DIE_AT_EVENT + "try: repair_store(path)\nexcept ManifestError: pass"
        self._in_process(code, {"path": str(self.path), "kill_at": kill_at})
        self.is_harmed = True

    @precondition(lambda self: self.path.exists())
    @rule()
    def _repair(self) -> None:
        self.is_harmed = self.is_mark_cut = self.is_byte_flipped = False
        try:
            repair_store(self.path)
        except ManifestError:
            # Neither a shard nor a manifest can be read: there is nothing to lose.
            assert not self.committed
            shutil.rmtree(self.path)
            return
        kinds = {problem.kind for problem in verify_store(self.path, full=True)}
        assert not kinds & HARMFUL, verify_store(self.path, full=True)

    @precondition(lambda self: self.path.exists() and not self.is_harmed)
    @invariant()
    def what_was_committed_is_there_and_right(self) -> None:
        if not (self.path / "manifest.json").exists():
            return
        reader = StoreReader(self.path)
        self._check_rows(reader)
        assert self.committed <= set(reader.keys)
        self.committed = set(reader.keys)

    def _shards(self) -> list[Path]:
        return sorted((self.path / "shards").glob("[!.]*.h5")) if self.path.exists() else []

    def _marked_shards(self) -> list[Path]:
        marks = self.path / "entries"
        return [shard for shard in self._shards() if (marks / f"{shard.stem}.json").exists()]

    def _take(self, which: int, shards: list[Path]) -> Path:
        """A shard that is about to be spoilt; its rows may be lost from now on."""
        shard = shards[which % len(shards)]
        self.is_harmed = True
        listed = self.path / "inputs" / f"{shard.stem}.jsonl"
        text = listed.read_text() if listed.exists() else ""
        self.committed = {key for key in self.committed if f'"{key}"' not in text}
        return shard

    def _in_process(self, code: str, names: dict) -> None:
        process = self.start(code, **names)
        process.join()
        assert process.exitcode in {0, -9}

    def _check_rows(self, reader: StoreReader) -> None:
        rows = reader.rows(np.arange(len(reader)), ["s", "clip"])
        for place, key in enumerate(reader.keys):
            expected = self.run.row_of(key, self.contents[key].encode())
            assert (rows["s"][place] == expected["s"]).all()
            assert (rows["clip"][place] == expected["clip"]).all()

    def _check_complete(self) -> None:
        store = Store.open(self.path)
        bad = {key for key, content in self.contents.items() if content.startswith("bad")}
        counts = store.manifest.counts
        assert set(StoreReader(self.path).keys) == self.contents.keys() - bad
        assert {reject.key for reject in store.rejects()} == bad
        assert (counts.inputs, counts.rejects) == (len(self.contents), len(bad))
        assert (counts.duplicates, counts.pending) == (0, 0)
        kinds = {problem.kind for problem in verify_store(self.path, full=True)}
        assert kinds <= {"leftover"}


def _live(run: ModuleType, start: Callable, num_lives: int, num_steps: int) -> None:
    run_state_machine_as_test(
        lambda: Life(run, start),
        settings=settings(
            max_examples=num_lives,
            stateful_step_count=num_steps,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],  # to shrink a failure takes minutes; its steps are printed
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_random_lives_of_a_store_agree_with_the_model(run, start):
    _live(run, start, 15, 8)


@pytest.mark.slow
def test_many_long_random_lives_of_a_store_agree_with_the_model(run, start):
    _live(run, start, 150, 25)

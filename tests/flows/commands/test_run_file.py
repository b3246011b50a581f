"""Run files: the commands' options, everything wrong at once, paths from the file's folder."""

import click
import pytest

from flows.commands.run_file import read_run_file


@pytest.fixture
def read(tmp_path):
    """Read a run file of that text."""

    def read_text(text):
        path = tmp_path / "nightly.yaml"
        path.write_text(text)
        return read_run_file(path)

    return read_text


def refused(read, text):
    with pytest.raises(click.UsageError) as caught:
        read(text)
    return str(caught.value)


def test_options_have_the_names_and_defaults_of_the_command_line(read, tmp_path):
    config = read(
        """
        defaults:
          precompute: {models: avatar, shard-rows: 7}
          train: {steps: 40, batch_size: 16}
        entries:
          faces:
            sources: [faces, "@more.txt"]
            store: faces.store
            precompute: {columns: [clip, s], retry-rejects: true}
            index: {neighbours: 5}
            train: {policy: nearest, seed: 3}
            evaluate: {pairs: 9}
        """
    )
    (entry,) = config.entries
    assert entry.precompute.sources == (str(tmp_path / "faces"), f"@{tmp_path / 'more.txt'}")
    assert entry.precompute.store == tmp_path / "faces.store"
    assert entry.precompute.models.columns == ("clip", "s")
    assert (entry.precompute.shard_rows, entry.precompute.retry_rejects) == (7, True)
    assert entry.precompute.batch_size == 64
    assert entry.index.neighbours == 5
    assert entry.train.run == tmp_path / "faces.run"
    assert (entry.train.training.steps, entry.train.training.batch_size) == (40, 16)
    assert (entry.train.training.pairs.policy, entry.train.training.pairs.seed) == ("nearest", 3)
    assert entry.train.resume
    assert (entry.evaluate.num_pairs, entry.evaluate.out) == (9, tmp_path / "faces.run")
    assert entry.report.target == tmp_path / "faces.run"


def test_a_cluster_file_is_found_beside_the_run_file(read, tmp_path):
    (tmp_path / "scheduler.json").write_text("{}")
    config = read(
        """
        entries:
          faces:
            sources: faces
            store: faces.store
            precompute: {models: avatar, cluster: scheduler.json}
        """
    )
    assert config.entries[0].precompute.cluster == str(tmp_path / "scheduler.json")


def test_a_section_that_is_false_is_left_out_and_its_report_is_about_the_store(read, tmp_path):
    config = read(
        """
        entries:
          noise:
            sources: sampled:40?seed=3
            store: noise.store
            precompute: {models: avatar}
            relevance: false
            train: false
        """
    )
    (entry,) = config.entries
    assert entry.precompute.sources == ("sampled:40?seed=3",)
    assert [stage for stage, _config in entry.stages()] == ["precompute", "index", "report"]
    assert entry.report.target == tmp_path / "noise.store"


def test_everything_that_is_wrong_is_said_at_once_with_its_place(read):
    message = refused(
        read,
        """
        default: {}
        defaults:
          precompute: {models: avatar, shard-row: 5}
        entries:
          a:
            sources: faces
            store: a.store
            precompute: {batch-size: 0}
            index: {neighbours: -1}
            train: {recipe: slow, steps: 1.5, resume: true}
            indx: {}
          b: {store: b.store, precompute: {retry-rejects: perhaps}}
          c: 3
        """,
    )
    for expected in (
        "file.default: no such key; did you mean defaults?",
        "defaults.precompute.shard-row: no such key; did you mean shard-rows?",
        "entries.a.precompute.batch-size: batch_size must be at least 1, got 0",
        "entries.a.index.neighbours: Invalid value for '--neighbours': -1",
        "entries.a.train.recipe: Invalid value for '--recipe': 'slow'",
        "entries.a.train.steps: Invalid value for '--steps': '1.5' is not a valid integer",
        "entries.a.train.resume: no such key",
        "entries.a.indx: no such key; did you mean index?",
        "entries.b.sources: must be given",
        "entries.b.precompute.retry-rejects: must be true or false, is 'perhaps'",
        "entries.c: must be a mapping of keys to values, is 3",
    ):
        assert expected in message
    assert message.count("shard-row:") == 1


def test_nothing_hides_behind_another_mistake_of_its_section_and_each_key_is_named(read):
    message = refused(
        read,
        """
        defaults:
          train: {stops: 3, batch-size: 0}
        entries:
          a:
            sources: faces
            store: a.store
            precompute:
              {models: avatar, columns: [clop, s], batch-size: 0, split-eval: 2, device: gpu,
               cluster: "local:0"}
            index: {neighbours: 5, recall: 3, memory-budget: 0}
            relevance: {ridge: 0, num-images: 0}
            train: {steps: 0, mse-weight: -1, policy: nearst, min-similarity: 4, patience: 0}
            evaluate: {prompts: gone.txt, threshold: 0.1, top-k: 3, images: 0}
          b: {sources: faces, store: b.store, precompute: {shard-rows: 0, workers: 0}, train: false}
        """,
    )
    lines = message.splitlines()[1:]
    for place, expected in (
        ("defaults.train.stops", "no such key; did you mean steps?"),
        ("defaults.train.batch-size", "batch_size is 0"),
        ("entries.a.precompute.columns", "'clop' is none of"),
        ("entries.a.precompute.batch-size", "batch_size must be at least 1, got 0"),
        ("entries.a.precompute.split-eval", "split_eval must be in [0, 1), got 2.0"),
        ("entries.a.precompute.device", "'gpu' is none of auto, cpu, cuda"),
        ("entries.a.precompute.cluster", "cluster: "),
        ("entries.a.index.recall", "recall is 3.0"),
        ("entries.a.index.memory-budget", ""),
        ("entries.a.relevance.ridge", "ridge is 0.0"),
        ("entries.a.relevance.num-images", "num_images is 0"),
        ("entries.a.train.steps", "steps is 0"),
        ("entries.a.train.mse-weight", "0 or more, and one of them positive"),
        ("entries.a.train.policy", "nearst"),
        ("entries.a.train.min-similarity", "similarity bounds are 4.0 and 1.0"),
        ("entries.a.train.patience", "patience is 0"),
        ("entries.a.evaluate.prompts", "gone.txt"),
        ("entries.a.evaluate.threshold", "exclude each other"),
        ("entries.a.evaluate.images", "0 is not in the range"),
        ("entries.b.precompute.shard-rows", "shard_rows must be at least 1, got 0"),
        ("entries.b.precompute.workers", "num_workers must be at least 1, got 0"),
        ("entries.b.precompute", "models: name a set"),
    ):
        said = [line for line in lines if line.startswith(f"  {place}: ")]
        assert len(said) == 1, (place, message)
        assert expected in said[0]


def test_a_mistake_in_one_entry_does_not_hide_that_two_others_share_a_run(read):
    message = refused(
        read,
        """
        defaults: {precompute: {models: avatar}}
        entries:
          a: {sources: x, store: s}
          b: {sources: y, store: s}
          c: {sources: [z, 3], store: [], indx: {}}
        """,
    )
    assert "entries a and b have the same run" in message
    assert "entries.c.sources: must be a text, is 3" in message
    assert "entries.c.store: must be given" in message
    assert "entries.c.indx: no such key" in message


def test_every_key_that_stands_twice_is_named_with_its_line(read):
    message = refused(
        read,
        """
        entries:
          a: {sources: x, sources: y, store: s, precompute: {models: avatar, models: ffhq}}
          a: {}
        """,
    )
    for key, line in (("a", 3), ("sources", 3), ("models", 3)):
        assert f"line {line}: the key {key} stands twice" in message


def test_a_store_may_be_on_an_object_store_and_its_run_on_a_disk(read, tmp_path):
    config = read(
        """
        defaults: {precompute: {models: avatar}}
        entries:
          a: {sources: "s3://bucket/a-{0..9}.tar", store: "s3://bucket/a.store", run: a.run}
          b: {sources: x, store: "s3://bucket/b.store", train: false, report: {out: b}}
        """
    )
    first, second = config.entries
    assert str(first.precompute.store) == "s3://bucket/a.store"
    assert first.precompute.store == first.index.store == first.train.store
    assert (first.train.run, first.report.out) == (tmp_path / "a.run", tmp_path / "a.run")
    assert (str(second.report.target), second.report.out) == ("s3://bucket/b.store", tmp_path / "b")


def test_folders_that_an_object_store_cannot_give_are_asked_for(read):
    message = refused(
        read,
        """
        defaults: {precompute: {models: avatar}}
        entries:
          a: {sources: x, store: "s3://bucket/a.store"}
          b: {sources: x, store: "s3://bucket/b.store", train: false}
        """,
    )
    assert "entries.a.run: must be given" in message
    assert "entries.b.report.out: must be given" in message


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "nightly.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(click.UsageError, match="is not a run file"):
        read_run_file(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "entries: name at least one"),
        ("entries: [", "is not a run file"),
        ("entries: {a: {}, a: {}}", "the key a stands twice"),
        (
            """
            defaults: {precompute: {models: avatar}}
            entries: {a: {sources: x, store: s}, b: {sources: y, store: s}}
            """,
            "entries a and b have the same run",
        ),
    ],
)
def test_a_file_that_says_nothing_or_two_things_is_refused(read, text, message):
    assert message in refused(read, text)

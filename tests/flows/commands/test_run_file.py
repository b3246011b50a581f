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
        "entries.a.precompute: batch_size must be at least 1, got 0",
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

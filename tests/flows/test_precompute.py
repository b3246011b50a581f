"""The recorded flow: the same work as the plain function, with its artifacts readable back."""

import json
import logging
import os

import pytest

from flows.exits import IncompleteError
from flows.models import ModelOptions
from flows.steps.precompute import PrecomputeConfig
from stores.reader import StoreReader

pytestmark = pytest.mark.usefixtures("recorded_here")


@pytest.fixture
def config(tmp_path):
    return PrecomputeConfig(
        sources=("sampled:6?seed=4",),
        store=tmp_path / "six.store",
        models=ModelOptions(models="avatar", columns=("w_plus", "s")),
        shard_rows=4,
    )


def test_the_flow_fills_the_store_and_leaves_artifacts(config):
    from prefect.artifacts import Artifact

    from flows.precompute import precompute

    summary = precompute(config)
    assert (summary.rows, summary.shards_made) == (6, 2)
    assert len(StoreReader(config.store)) == 6
    found = {kind: Artifact.get(f"six-precompute-{kind}") for kind in ("table", "link", "progress")}
    values = {line["name"]: line["value"] for line in json.loads(found["table"].data)}
    assert values["rows"] == "6"
    assert values["store"] == str(config.store)
    assert config.store.as_uri() in found["link"].data
    assert found["progress"].data == 100
    assert Artifact.get("six-precompute-picture").data.startswith("data:image/png;base64,")


def test_a_mapping_is_as_good_as_the_configuration_and_unknown_keys_are_all_named(config):
    from prefect.exceptions import ParameterTypeError

    from flows.precompute import precompute

    wrong = {"sources": ["x"], "store": "y", "models": {"clpi": 1}, "shard_row": 4}
    with pytest.raises(ParameterTypeError) as caught:
        precompute(wrong)
    assert "config.models.clpi" in str(caught.value)
    assert "config.shard_row" in str(caught.value)
    models = {"models": "avatar", "columns": ["w_plus", "s"]}
    given = {"sources": list(config.sources), "store": str(config.store), "models": models}
    assert precompute(given).rows == 6


def test_a_run_with_too_many_rejects_fails_and_gives_its_summary(tmp_path):
    from flows.precompute import precompute

    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(IncompleteError, match="1 of 1 inputs were rejected") as caught:
        precompute(
            PrecomputeConfig(
                sources=(str(tmp_path / "images"),),
                store=tmp_path / "broken.store",
                models=ModelOptions(models="avatar", columns=("clip",)),
            )
        )
    assert caught.value.result.rejects == 1


def test_the_projects_logger_is_as_it_was_after_a_run(config):
    from flows.precompute import precompute

    log = logging.getLogger("deltaedit")
    before = (list(log.handlers), log.propagate, log.level)
    precompute(config)
    assert (list(log.handlers), log.propagate, log.level) == before


def test_telemetry_is_off():
    from prefect.settings import get_current_settings

    assert os.environ["DO_NOT_TRACK"] == "1"
    assert get_current_settings().server.analytics_enabled is False

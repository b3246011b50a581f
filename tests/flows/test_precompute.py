"""The recorded flow: the same work as the plain function, with its artifact readable back."""

import pytest

from flows.models import ModelOptions
from flows.steps.precompute import PrecomputeConfig
from stores.reader import StoreReader


@pytest.fixture
def config(tmp_path):
    return PrecomputeConfig(
        sources=("sampled:6?seed=4",),
        store=tmp_path / "s",
        models=ModelOptions(models="avatar", columns=("w_plus", "s")),
        shard_rows=4,
    )


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_fills_the_store_and_leaves_a_table(config):
    import json

    from prefect.artifacts import Artifact

    from flows.precompute import precompute

    summary = precompute(config)
    assert (summary.rows, summary.shards_made) == (6, 2)
    assert len(StoreReader(config.store)) == 6
    artifact = Artifact.get("precompute")
    assert artifact is not None
    values = {line["name"]: line["value"] for line in json.loads(artifact.data)}
    assert values["rows"] == "6"
    assert values["store"] == str(config.store)


@pytest.mark.usefixtures("prefect_server")
def test_telemetry_is_off():
    import os

    from prefect.settings import get_current_settings

    assert os.environ["DO_NOT_TRACK"] == "1"
    assert get_current_settings().server.analytics_enabled is False

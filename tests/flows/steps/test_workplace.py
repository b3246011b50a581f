"""The job that makes shards wherever it is called."""

import pickle
from dataclasses import replace

import pytest

from flows.models import ModelOptions, load_models
from flows.steps.precompute import PrecomputeConfig, open_store, scan
from flows.steps.workplace import EncodeJob, describe_models
from pipeline.errors import PipelineError
from stores.errors import FingerprintMismatchError, StoreError
from stores.plan import plan_shards

MODELS = ModelOptions(models="avatar", columns=("clip",))


@pytest.fixture
def work(faces, tmp_path):
    """A job, and the first two shards of what it has to do."""
    config = PrecomputeConfig(sources=(str(faces),), store=tmp_path / "s", models=MODELS)
    store = open_store(config, describe_models(config, load_models(MODELS)))
    shards = plan_shards(scan(config), store, 8).shards[:2]
    return EncodeJob(config=config, store=store), shards


def test_committed_shards_are_told_of_and_not_made_again(work):
    job, shards = work
    first = list(job(shards[:1]))
    assert first[0]["stages"]["clip"] > 0
    again, new = list(job(shards))
    assert (again["inputs"], again["rows"]) == (8, 8)
    assert "models" not in again["stages"]
    assert new["stages"]["clip"] > 0
    assert all("models" not in record["stages"] for record in job(shards))


def test_the_job_travels_and_loads_models_once_per_process(work):
    job, shards = work
    copy = pickle.loads(pickle.dumps(job))  # noqa: S301 - what Dask does with it
    assert len(pickle.dumps(job)) < 10_000
    assert load_models(copy.config.models) is load_models(job.config.models)
    assert [record["rows"] for record in copy(shards)] == [8, 8]


def test_a_process_with_other_models_refuses_to_add_to_the_store(work):
    job, shards = work
    other = replace(job.config, models=replace(MODELS, clip_pre="box7"))
    with pytest.raises(FingerprintMismatchError, match=r"would encode with .*pre=box7"):
        list(replace(job, config=other)(shards))


def test_a_machine_that_does_not_see_the_store_says_so(work, tmp_path):
    job, shards = work
    (tmp_path / "s").rename(tmp_path / "moved")
    with pytest.raises(StoreError, match="does not see the store"):
        list(job(shards))


def test_nvjpeg_is_refused_where_the_models_are_on_a_processor(work):
    job, _ = work
    on_gpu = replace(job.config, jpeg_decoder="nvjpeg", models=replace(MODELS, device="cpu"))
    with pytest.raises(PipelineError, match=r"nvjpeg: the models are on cpu.*use --jpeg-decoder"):
        replace(job, config=on_gpu).describe()


def test_what_decodes_is_in_the_fingerprints_and_only_where_it_is_not_the_usual(work):
    job, _ = work
    models = load_models(MODELS)
    usual = describe_models(job.config, models).fingerprints
    other = describe_models(replace(job.config, jpeg_decoder="nvjpeg"), models).fingerprints
    assert usual["clip"].endswith("images=photo")
    assert other["clip"] == usual["clip"] + "(nvjpeg)"

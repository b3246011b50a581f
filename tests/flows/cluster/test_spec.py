"""What `--cluster` may name."""

from pathlib import Path

import pytest

from flows.cluster.spec import ClassSpec, LocalSpec, RunningSpec, parse_cluster
from flows.models import ModelOptions
from flows.steps.precompute import PrecomputeConfig


def written(folder: Path, text: str) -> str:
    file = folder / "cluster.yaml"
    file.write_text(text)
    return str(file)


def test_processes_addresses_and_scheduler_files_are_told_apart(tmp_path):
    file = tmp_path / "scheduler.json"
    file.write_text("{}")
    assert parse_cluster("local:8") == LocalSpec(num_workers=8)
    assert parse_cluster("tcp://head:8786") == RunningSpec(address="tcp://head:8786")
    assert parse_cluster("tls://head:8786") == RunningSpec(address="tls://head:8786")
    assert parse_cluster(str(file)) == RunningSpec(scheduler_file=file)


@pytest.mark.parametrize(
    "text", ["local:", "local:0", "local:two", "local:-1", "slurm", "", "a.txt"]
)
def test_what_has_none_of_the_forms_is_refused(text):
    with pytest.raises(ValueError, match="cluster: "):
        parse_cluster(text)


def test_a_missing_file_is_named():
    with pytest.raises(ValueError, match=r"there is no file 'gone\.yaml'"):
        parse_cluster("gone.yaml")


def test_a_yaml_file_names_a_class_its_arguments_and_the_number_of_workers(tmp_path):
    text = """
class: dask_jobqueue.SLURMCluster
arguments: {queue: gpu, cores: 8, memory: 64GB}
adapt: {minimum: 1, maximum: 20}
worker_timeout_s: 7200
"""
    assert parse_cluster(written(tmp_path, text)) == ClassSpec(
        class_name="dask_jobqueue.SLURMCluster",
        arguments={"queue": "gpu", "cores": 8, "memory": "64GB"},
        adapt={"minimum": 1, "maximum": 20},
        worker_timeout_s=7200.0,
    )


def test_all_faults_of_a_file_are_named_at_once(tmp_path):
    text = """
class: nobody_has_this.Cluster
argument: {queue: gpu}
arguments: gpu
workers: 0
adapt: {maximum: many}
worker_timeout_s: soon
"""
    with pytest.raises(ValueError, match="unknown key 'argument'") as refusal:
        parse_cluster(written(tmp_path, text))
    message = str(refusal.value)
    assert "package nobody_has_this is not installed" in message
    assert "arguments must be a mapping" in message
    assert "workers must be a whole number" in message
    assert "exclude each other" in message
    assert "adapt needs whole numbers" in message
    assert "worker_timeout_s must be a positive number" in message


def test_a_missing_extra_is_named_with_how_to_install_it(tmp_path):
    # dask-cuda needs a GPU driver and is no dependency of ours.
    text = written(tmp_path, "class: dask_cuda.LocalCUDACluster\n")
    with pytest.raises(ValueError, match="pip install dask-cuda"):
        parse_cluster(text)


@pytest.mark.parametrize("text", ["- a\n- b", "", "a: [", "workers: 2"])
def test_a_file_that_names_no_class_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match=r"cluster\.yaml"):
        parse_cluster(written(tmp_path, text))


def test_a_run_with_a_wrong_cluster_is_refused_with_everything_else_that_is_wrong():
    with pytest.raises(ValueError, match=r"shard_rows must be .*; cluster: 'nowhere' is none of"):
        PrecomputeConfig(
            sources=("faces",),
            store=Path("s"),
            models=ModelOptions(models="avatar"),
            shard_rows=0,
            cluster="nowhere",
        )

"""Clusters that are started for a run: their workers, their GPUs, their job scripts."""

import dask.config
import pytest

from flows.cluster.connect import ClusterError, connect, start_class, worker_environments
from flows.cluster.spec import ClassSpec, LocalSpec, RunningSpec, parse_cluster
from flows.exits import WrongCallError

SLURM = """
class: dask_jobqueue.SLURMCluster
arguments:
  queue: gpu
  account: faces
  cores: 8
  processes: 1
  memory: 64GB
  walltime: "04:00:00"
  job_extra_directives: ["--gres=gpu:1", "--requeue"]
  job_script_prologue: ["export OMP_NUM_THREADS=8"]
  worker_extra_args: ["--lifetime", "235m", "--lifetime-stagger", "2m"]
workers: 4
"""
PBS = """
class: dask_jobqueue.PBSCluster
arguments: {queue: gpu, cores: 4, processes: 1, memory: 32GB, resource_spec: "select=1:ngpus=1"}
workers: 2
"""


def test_each_local_worker_sees_one_gpu_and_more_workers_share_them(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7f")
    assert worker_environments(3, "auto") == [
        {"CUDA_VISIBLE_DEVICES": "4"},
        {"CUDA_VISIBLE_DEVICES": "GPU-7f"},
        {"CUDA_VISIBLE_DEVICES": "4"},
    ]
    assert worker_environments(2, "cpu") == [{}, {}]


def test_without_gpus_local_workers_are_alike(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert worker_environments(2, "auto") == [{}, {}]


def test_one_certain_gpu_for_all_local_workers_is_refused():
    with pytest.raises(WrongCallError, match="use --device cuda"):
        worker_environments(2, "cuda:3")


def test_the_gpus_of_the_machine_are_counted_where_nobody_chose(monkeypatch):
    import torch

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    count = torch.cuda.device_count()
    seen = [e.get("CUDA_VISIBLE_DEVICES") for e in worker_environments(2, "auto")]
    assert seen == ([str(n % count) for n in range(2)] if count else [None, None])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            SLURM,
            [
                "#SBATCH -p gpu",
                "#SBATCH -A faces",
                "#SBATCH --cpus-per-task=8",
                "#SBATCH --mem=60G",
                "#SBATCH -t 04:00:00",
                "#SBATCH --gres=gpu:1",
                "#SBATCH --requeue",
                "export OMP_NUM_THREADS=8",
                "--nthreads 8",
                "--lifetime 235m --lifetime-stagger 2m",
            ],
        ),
        (PBS, ["#PBS -q gpu", "#PBS -l select=1:ngpus=1", "#PBS -l walltime=00:30:00"]),
    ],
)
def test_the_job_script_asks_the_batch_system_for_what_the_file_says(tmp_path, text, expected):
    import importlib

    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    spec = parse_cluster(str(file))
    assert isinstance(spec, ClassSpec)
    module, _, name = spec.class_name.rpartition(".")
    with getattr(importlib.import_module(module), name)(**spec.arguments) as cluster:
        script = cluster.job_script()
    assert [line for line in expected if line not in script] == []
    assert "distributed.cli.dask_worker tcp://" in script


def test_a_batch_cluster_is_refused_at_once_where_jobs_cannot_be_submitted(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(SLURM)
    spec = parse_cluster(str(file))
    assert isinstance(spec, ClassSpec)
    with pytest.raises(WrongCallError, match="'sbatch', which is not on this machine"):
        start_class(spec)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flows.models.Nothing", "cannot be imported"),
        ("distributed.SpecCluster", "refuses sise=3"),
    ],
)
def test_a_class_that_is_not_there_or_refuses_its_arguments_is_a_wrong_call(name, message):
    with pytest.raises(WrongCallError, match=message):
        start_class(ClassSpec(class_name=name, arguments={"sise": 3}))


def test_a_cluster_whose_workers_never_come_is_given_up_and_says_what_to_look_at():
    spec = ClassSpec(
        class_name="distributed.LocalCluster",
        arguments={"n_workers": 0, "dashboard_address": None},
        worker_timeout_s=0.3,
    )
    refusal = pytest.raises(ClusterError, match=r"0 of at least 1 workers .* worker_timeout_s")
    with refusal, connect(spec):
        pass


def test_an_address_where_nobody_answers_is_named():
    refusal = pytest.raises(
        ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"
    )
    quick = dask.config.set({"distributed.comm.timeouts.connect": "0.5s"})
    with quick, refusal, connect(RunningSpec(address="tcp://127.0.0.1:9")):
        pass


@pytest.mark.slow
def test_an_adaptive_cluster_starts_workers_when_there_is_work_and_is_closed_after_it():
    spec = ClassSpec(
        class_name="distributed.LocalCluster",
        arguments={"n_workers": 0, "threads_per_worker": 1, "dashboard_address": None},
        adapt={"minimum": 1, "maximum": 2},
        worker_timeout_s=60.0,
    )
    with connect(spec) as connection:
        assert connection.client.submit(abs, -3).result() == 3
        address = connection.client.scheduler.address
    refusal = pytest.raises(ClusterError, match="no Dask scheduler answers")
    quick = dask.config.set({"distributed.comm.timeouts.connect": "0.5s"})
    with quick, refusal, connect(RunningSpec(address=address)):
        pass


@pytest.mark.slow
def test_local_workers_have_one_thread_each_and_a_share_of_the_memory():
    with connect(LocalSpec(num_workers=2), device="cpu") as connection:
        workers = connection.client.scheduler_info(n_workers=-1)["workers"].values()
        assert [worker["nthreads"] for worker in workers] == [1, 1]
        assert len({worker["memory_limit"] for worker in workers}) == 1
        assert connection.threads is not None
        assert connection.threads >= 1

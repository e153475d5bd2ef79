"""Replicas of a job file: their commands and environments are those of Vertex AI."""

import functools
import json
import socket
import sys

import pytest
from refusals import check_refusal
from specs import CONTAINER, JOB, PACKAGE, POOL, changed

from trainer.cloud.emulator.replicas import free_ports, num_replicas, plan, without_packages
from trainer.cloud.jobs import job_spec
from trainer.environment import Environment
from trainer.errors import ConfigError

L4 = {"machineType": "g2-standard-24", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 2}
SEVERAL = {"workerPoolSpecs": [POOL, POOL | {"replicaCount": 2}, {}, POOL]}
OUTPUT = {"baseOutputDirectory": {"outputUriPrefix": "gs://bkt/run/"}}


def planned(content, **settings):
    job = job_spec.parse(content, is_local=True)
    return plan(job, ports=range(1001, 1001 + num_replicas(job)), job_id="7", **settings)


def test_a_job_of_one_replica_has_vertex_ais_environment():
    (replica,) = planned(JOB | OUTPUT)
    assert replica.name == "workerpool0-0" and replica.is_chief
    assert replica.command == (sys.executable, "-m", "trainer.task", "--recipe=digits")
    assert replica.environment == {
        "AIP_MODEL_DIR": "gs://bkt/run/model/",
        "AIP_CHECKPOINT_DIR": "gs://bkt/run/checkpoints/",
        "AIP_TENSORBOARD_LOG_DIR": "gs://bkt/run/logs/",
        "CLOUD_ML_JOB_ID": "7",
        "CLOUD_ML_PROJECT_ID": "0",
        "CLOUD_ML_REGION": "us-central1",
        "CLUSTER_SPEC": json.dumps(
            {
                "cluster": {"workerpool0": ["127.0.0.1:1001"]},
                "environment": "cloud",
                "task": {"type": "workerpool0", "index": 0, "trial": "1"},
                "job": '{"python_module": ""}',
            }
        ),
    }
    assert Environment.read(replica.environment).cluster is None


def test_without_an_output_folder_no_folder_is_set():
    assert not [name for name in planned(JOB)[0].environment if name.startswith("AIP_")]


def test_several_replicas_get_the_cluster_of_vertex_ai():
    replicas = planned(SEVERAL)
    assert [replica.name for replica in replicas] == [
        "workerpool0-0",
        "workerpool1-0",
        "workerpool1-1",
        "workerpool3-0",
    ]
    assert [replica.is_chief for replica in replicas] == [True, False, False, False]
    chief, workers = ["127.0.0.1:1001"], ["127.0.0.1:1002", "127.0.0.1:1003"]
    tasks = [("workerpool0", "chief", 0), ("workerpool1", "worker", 0), ("workerpool1", "worker", 1)]
    for replica, (pool, role, index) in zip(replicas, [*tasks, ("workerpool3", "evaluator", 0)], strict=True):
        assert json.loads(replica.environment["CLUSTER_SPEC"]) == {
            "cluster": {"workerpool0": chief, "workerpool1": workers, "workerpool3": ["127.0.0.1:1004"]},
            "environment": "cloud",
            "task": {"type": pool, "index": index, "trial": "1"},
            "job": '{"python_module": ""}',
        }
        assert json.loads(replica.environment["TF_CONFIG"]) == {
            "cluster": {"chief": chief, "worker": workers},
            "task": {"type": role, "index": index, "trial": "1", "cloud": "7"},
            "environment": "cloud",
            "job": {},
        }


def test_the_environment_of_a_replica_can_be_read():
    clusters = [Environment.read(replica.environment).cluster for replica in planned(SEVERAL | OUTPUT)]
    assert [(cluster.role, cluster.index, cluster.num_workers) for cluster in clusters] == [
        ("chief", 0, 3),
        ("worker", 0, 3),
        ("worker", 1, 3),
        ("evaluator", 0, 3),
    ]
    assert Environment.read(planned(JOB | OUTPUT)[0].environment).job_dir == "gs://bkt/run"


def test_a_local_output_folder_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (replica,) = planned(JOB | {"baseOutputDirectory": {"outputUriPrefix": "runs/x/"}})
    assert replica.environment["AIP_CHECKPOINT_DIR"] == f"{tmp_path}/runs/x/checkpoints/"


def test_the_root_can_be_the_output_folder():
    (replica,) = planned(JOB | {"baseOutputDirectory": {"outputUriPrefix": "/"}})
    assert replica.environment["AIP_CHECKPOINT_DIR"] == "/checkpoints/"


def test_variables_of_the_file_override_the_others():
    env = [{"name": "A", "value": ""}, {"name": "CLOUD_ML_REGION", "value": "europe-west4"}]
    (replica,) = planned(changed(JOB, workerPoolSpecs__0__containerSpec__env=env))
    assert replica.environment["A"] == "" and replica.environment["CLOUD_ML_REGION"] == "europe-west4"


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ([], ["--a"], ["trainer.task", "--a"]),
        (["python", "-m", "trainer.task"], ["--a"], ["trainer.task", "--a"]),
        (["python3", "-m", "mine.train", "--a"], ["--b"], ["mine.train", "--a", "--b"]),
        (["/usr/bin/python3.11", "-u"], ["-m", "mine.train"], ["mine.train"]),
    ],
)
def test_containers_run_the_module_that_they_name(command, args, expected):
    container = changed(CONTAINER, args=args, command=command)
    (replica,) = planned(changed(JOB, workerPoolSpecs__0__containerSpec=container))
    assert replica.command == (sys.executable, "-m", *expected)


def test_packages_run_the_module_that_they_name():
    content = {"workerPoolSpecs": [changed(POOL, containerSpec=..., pythonPackageSpec=PACKAGE | {"args": ["--a"]})] * 1}
    (replica,) = planned(content)
    assert replica.package_uris == ("gs://bkt/p.tar.gz",) and replica.command[1:] == ("-m", "trainer.task", "--a")
    several = planned({"workerPoolSpecs": content["workerPoolSpecs"] * 2})
    assert json.loads(several[0].environment["CLUSTER_SPEC"])["job"] == '{"python_module": "trainer.task"}'
    here = without_packages(job_spec.parse(content))
    assert plan(here, ports=[1], job_id="7")[0].package_uris == ()


@pytest.mark.parametrize(
    ("machine", "container", "gpus", "added"),
    [
        (L4, {}, [], ["--num_virtual_devices=2"]),
        (L4, {}, ["0", "1"], []),
        (L4 | {"acceleratorCount": 1}, {}, [], []),
        (L4, {"args": ["--num_virtual_devices=4"]}, [], []),
        (L4, {"args": ["--strategy=one_device"]}, [], []),
        (L4, {"args": ["--num-virtual-devices", "4"]}, [], []),
        (L4, {"command": ["python", "-m", "mine.train"]}, [], []),
        (L4, {"args": ["--strategy", "one_device"]}, [], []),
        (L4, {"args": ["--job_dir=runs/strategy=one_device"]}, [], ["--num_virtual_devices=2"]),
        (L4, {"command": ["python", "-m", "trainer"], "args": ["train", "--seed=3"]}, [], ["--num_virtual_devices=2"]),
    ],
)
def test_virtual_devices_replace_missing_accelerators(machine, container, gpus, added):
    container = CONTAINER | container
    content = changed(JOB, workerPoolSpecs__0__machineSpec=machine, workerPoolSpecs__0__containerSpec=container)
    (replica,) = planned(content, gpus=gpus)
    assert replica.command[3:] == (*container["args"], *added)
    assert replica.environment.get("CUDA_VISIBLE_DEVICES", "").split(",") == (gpus or [""])


@pytest.mark.parametrize(
    ("gpus", "shown", "added"),
    [("4567", ["4,5", "6,7"], ()), ("456", ["-1", "-1"], ("--num_virtual_devices=2",))],
)
def test_several_replicas_share_the_gpus_or_use_none(gpus, shown, added):
    replicas = planned({"workerPoolSpecs": [POOL | {"machineSpec": L4}] * 2}, gpus=gpus)
    assert [replica.environment["CUDA_VISIBLE_DEVICES"] for replica in replicas] == shown
    assert {replica.command[4:] for replica in replicas} == {added}


def test_free_ports_differ_and_are_free():
    ports = free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))


@pytest.mark.parametrize("path", ["runs/x", "/runs/x"])
def test_only_local_runs_accept_local_paths(path):
    output = {"baseOutputDirectory": {"outputUriPrefix": path}}
    packages = changed(POOL, containerSpec=..., pythonPackageSpec=PACKAGE | {"packageUris": [path]})
    for content in (JOB | output, {"workerPoolSpecs": [packages]}):
        assert job_spec.parse(content, is_local=True)
        check_refusal(functools.partial(job_spec.parse, content), ConfigError, path)

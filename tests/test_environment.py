"""Environment variables of Vertex AI: every form is read, and contradictions are refused."""

import json

import pytest
from refusals import check_refusal

from trainer.environment import Environment
from trainer.errors import ConfigError, quote
from trainer.storage import without_mount

FOUR = {"chief": ["a:2222"], "worker": ["b:2222", "c:2222", "d:2222"]}
POOLS = {"workerpool0": ["a:2222"], "workerpool1": ["b:2222", "c:2222", "d:2222"]}


def tf_config(cluster=FOUR, type="chief", index=0, **others):
    return json.dumps(
        {"cluster": cluster, "task": {"type": type, "index": index, "trial": "1", "cloud": "x"}, **others}
    )


def cluster_spec(cluster=POOLS, type="workerpool0", index=0, **others):
    return json.dumps({"cluster": cluster, "task": {"type": type, "index": index}, "environment": "cloud", **others})


def cluster_of(**variables):
    return Environment.read(variables).cluster


def test_the_environment_of_a_laptop_is_empty():
    assert Environment.read({"PATH": "/bin", "AIP_MODEL_DIR": "", "TF_CONFIG": " "}) == Environment()
    assert Environment().job_dir is None and Environment().metric_file is None


def test_the_process_environment_is_read_by_default(monkeypatch):
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "7")
    assert Environment.read().trial_id == "7"


def test_the_output_folders_of_a_job_are_read():
    environment = Environment.read(
        {
            "AIP_MODEL_DIR": "gs://bkt/run/model/",
            "AIP_CHECKPOINT_DIR": "gs://bkt/run/checkpoints/",
            "AIP_TENSORBOARD_LOG_DIR": "gs://bkt/run/logs/",
        }
    )
    assert environment == Environment(
        model_dir="gs://bkt/run/model",
        checkpoint_dir="gs://bkt/run/checkpoints",
        tensorboard_log_dir="gs://bkt/run/logs",
    )
    assert environment.job_dir == "gs://bkt/run"


def test_a_trial_has_its_own_folder_and_metric_file():
    trial = Environment.read({"CLOUD_ML_TRIAL_ID": "7", "AIP_CHECKPOINT_DIR": "gs://bkt/x/7/checkpoints/"})
    assert (trial.trial_id, trial.job_dir) == ("7", "gs://bkt/x/7")
    assert trial.metric_file == "/tmp/hypertune/output.metrics"
    trial = Environment.read({"CLOUD_ML_TRIAL_ID": "7", "CLOUD_ML_HP_METRIC_FILE": "/var/m"})
    assert trial.metric_file == "/var/m"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/gcs/bucket/a/b", "gs://bucket/a/b"),
        ("/gcs/bucket", "gs://bucket"),
        ("/gcs/", "/gcs/"),
        ("/gcsfuse/bucket", "/gcsfuse/bucket"),
        ("gs://bucket/gcs/a", "gs://bucket/gcs/a"),
        ("runs/digits", "runs/digits"),
    ],
)
def test_a_mounted_bucket_is_read_as_a_bucket(path, expected):
    assert without_mount(path) == expected


@pytest.mark.parametrize(
    ("folders", "job_dir"),
    [
        ({"AIP_MODEL_DIR": "/gcs/bkt/run/model/"}, "gs://bkt/run"),
        ({"AIP_TENSORBOARD_LOG_DIR": "/runs/x/logs"}, "/runs/x"),
        ({"AIP_MODEL_DIR": "gs://bkt/model/"}, "gs://bkt"),
        ({"AIP_MODEL_DIR": "gs://model/"}, None),
        ({"AIP_MODEL_DIR": "gs://bkt/elsewhere/"}, None),
        ({"AIP_MODEL_DIR": "gs://bkt/elsewhere/", "AIP_CHECKPOINT_DIR": "gs://bkt/run/checkpoints/"}, "gs://bkt/run"),
        ({"AIP_MODEL_DIR": "gs://bkt/run/model/", "AIP_CHECKPOINT_DIR": "gs://bkt/run/checkpoints"}, "gs://bkt/run"),
    ],
)
def test_the_run_directory_is_the_parent_of_the_folders(folders, job_dir):
    assert Environment.read(folders).job_dir == job_dir


def test_folders_of_two_runs_are_refused_as_run_directory():
    environment = Environment.read(
        {"AIP_MODEL_DIR": "gs://bkt/one/model/", "AIP_CHECKPOINT_DIR": "gs://bkt/two/checkpoints/"}
    )
    check_refusal(
        lambda: environment.job_dir, ConfigError, "AIP_CHECKPOINT_DIR", "gs://bkt/two", "AIP_MODEL_DIR", "gs://bkt/one"
    )


@pytest.mark.parametrize("variable", ["AIP_MODEL_DIR", "AIP_CHECKPOINT_DIR", "AIP_TENSORBOARD_LOG_DIR"])
@pytest.mark.parametrize("folder", ["gs:///", "C:\\logs", "s3://bucket/logs"])
def test_a_folder_that_is_no_path_is_refused(variable, folder):
    check_refusal(lambda: Environment.read({variable: folder}), ConfigError, variable, quote(folder))


@pytest.mark.parametrize(
    ("type", "index", "position"), [("chief", 0, 0), ("worker", 0, 1), ("worker", "2", 3), ("evaluator", 0, None)]
)
@pytest.mark.parametrize("source", ["TF_CONFIG", "CLUSTER_SPEC", "both"])
def test_both_variables_give_the_same_cluster(source, type, index, position):
    pool = {"chief": "workerpool0", "worker": "workerpool1", "evaluator": "workerpool3"}[type]
    pools = POOLS | {"workerpool2": [], "workerpool3": ["e:2222"]}
    variables = {"TF_CONFIG": tf_config(type=type, index=index), "CLUSTER_SPEC": cluster_spec(pools, pool, index)}
    cluster = cluster_of(**(variables if source == "both" else {source: variables[source]}))
    assert cluster.addresses == ("a:2222", "b:2222", "c:2222", "d:2222") and cluster.num_workers == 4
    assert (cluster.role, cluster.index, cluster.worker_index) == (type, int(index), position)
    assert cluster.is_chief == (type == "chief") and cluster.is_evaluator == (type == "evaluator")
    assert cluster.tf_config == {"cluster": FOUR, "task": {"type": type, "index": int(index)}}


@pytest.mark.parametrize(
    "job", [{}, '{"python_module":""}', '{"python_module":"", "open_ports": [3333]}', {"open_ports": [1]}, "[", None]
)
def test_the_job_key_of_the_cluster_is_ignored(job):
    assert cluster_of(CLUSTER_SPEC=cluster_spec(job=job, open_ports=[3333])).num_workers == 4
    assert cluster_of(TF_CONFIG=tf_config(job=job, rpc_layer="grpc")).num_workers == 4


def test_the_chief_may_be_called_master():
    for type, role in (("master", "chief"), ("chief", "chief"), ("worker", "worker")):
        cluster = cluster_of(TF_CONFIG=tf_config({"master": ["a:1"], "worker": ["b:1"], "ps": []}, type))
        assert cluster.role == role
        assert cluster.tf_config["cluster"] == {"chief": ["a:1"], "worker": ["b:1"]}


@pytest.mark.parametrize(("index", "role", "new_index"), [(0, "chief", 0), (1, "worker", 0), (2, "worker", 1)])
def test_without_a_chief_the_first_worker_is_the_chief(index, role, new_index):
    cluster = cluster_of(TF_CONFIG=tf_config({"worker": ["a:1", "b:1", "c:1"]}, "worker", index))
    assert (cluster.role, cluster.index, cluster.worker_index) == (role, new_index, index)
    assert cluster.tf_config["cluster"] == {"chief": ["a:1"], "worker": ["b:1", "c:1"]}


@pytest.mark.parametrize(
    "variables",
    [
        {"TF_CONFIG": "{}"},
        {"TF_CONFIG": '{"cluster": {}, "task": {"type": "chief", "index": 0}}'},
        {"TF_CONFIG": '{"cluster": null}'},
        {"TF_CONFIG": tf_config({"chief": ["a:1"]})},
        {"TF_CONFIG": tf_config({"worker": ["a:1"]}, "worker")},
        {"CLUSTER_SPEC": cluster_spec({"workerpool0": ["a:1"]})},
        {"CLUSTER_SPEC": cluster_spec({"workerpool0": ["a:1"], "workerpool3": ["e:1"]})},
        {"TF_CONFIG": tf_config({"chief": ["a:1"]}), "CLUSTER_SPEC": cluster_spec({"workerpool0": ["a:1"]})},
    ],
    ids=lambda variables: " ".join(f"{name}={text:.45}" for name, text in variables.items()),
)
def test_a_machine_that_trains_alone_has_no_cluster(variables):
    assert cluster_of(**variables) is None


def test_the_evaluator_of_a_single_machine_is_recognized():
    pools = {"workerpool0": ["a:1"], "workerpool3": ["e:1"]}
    cluster = cluster_of(CLUSTER_SPEC=cluster_spec(pools, "workerpool3"))
    assert cluster.is_evaluator and cluster.num_workers == 1
    assert cluster.tf_config == {"cluster": {"chief": ["a:1"]}, "task": {"type": "evaluator", "index": 0}}


def test_an_empty_tf_config_defers_to_the_pools():
    assert cluster_of(TF_CONFIG="{}", CLUSTER_SPEC=cluster_spec()).num_workers == 4


REFUSED = [
    ({"TF_CONFIG": "{cluster"}, ("TF_CONFIG", "JSON")),
    ({"CLUSTER_SPEC": "x"}, ("CLUSTER_SPEC", "JSON")),
    ({"TF_CONFIG": "[1]"}, ("TF_CONFIG", "[1]", "cluster")),
    ({"TF_CONFIG": '{"cluster": ["a:1"]}'}, ("TF_CONFIG", 'cluster=["a:1"]')),
    ({"TF_CONFIG": tf_config({"workerpool0": ["a:1"]})}, ("TF_CONFIG", "'workerpool0'", "chief")),
    ({"TF_CONFIG": tf_config({"chief": "a:1"})}, ("TF_CONFIG", 'chief="a:1"', "list")),
    ({"TF_CONFIG": tf_config({"chief": ["a"]})}, ("TF_CONFIG", 'chief[0]="a"', "HOST:PORT")),
    ({"TF_CONFIG": tf_config({"chief": ["a:65536"]})}, ("TF_CONFIG", "a:65536", "65535")),
    ({"TF_CONFIG": tf_config({"chief": ["a:1"], "worker": ["b:99999"]})}, ("TF_CONFIG", "b:99999", "65535")),
    ({"CLUSTER_SPEC": cluster_spec({"workerpool0": ["a:0"]})}, ("CLUSTER_SPEC", "a:0", "65535")),
    ({"TF_CONFIG": tf_config({"chief": ["a:1", "b:1"]})}, ("TF_CONFIG", "a:1, b:1")),
    ({"TF_CONFIG": tf_config({"chief": ["a:1"], "master": ["b:1"]})}, ("TF_CONFIG", "a:1, b:1")),
    (
        {"CLUSTER_SPEC": cluster_spec({"workerpool1": ["a:1", "b:1"]}, "workerpool1")},
        ("CLUSTER_SPEC", "workerpool0"),
    ),
    ({"TF_CONFIG": tf_config({"evaluator": ["e:1"]})}, ("TF_CONFIG", "chief")),
    ({"TF_CONFIG": tf_config({"chief": ["a:1"], "worker": ["b:1", "a:1"]})}, ("TF_CONFIG", "a:1")),
    ({"TF_CONFIG": json.dumps({"cluster": FOUR})}, ("TF_CONFIG", "task")),
    (
        {"CLUSTER_SPEC": json.dumps({"cluster": POOLS, "task": {"index": 0}})},
        ("CLUSTER_SPEC", "task.type"),
    ),
    ({"TF_CONFIG": tf_config(index=-1)}, ("TF_CONFIG", "index", "-1")),
    ({"TF_CONFIG": tf_config(index=True)}, ("TF_CONFIG", "index=true")),
    ({"TF_CONFIG": tf_config(index="9" * 5000)}, ("TF_CONFIG", "index", "999")),
    ({"TF_CONFIG": tf_config(index="²")}, ("TF_CONFIG", "index")),
    ({"TF_CONFIG": tf_config(index="one")}, ("TF_CONFIG", 'index="one"')),
    ({"TF_CONFIG": tf_config(type="worker", index=3)}, ("TF_CONFIG", "worker 3", "index")),
    ({"TF_CONFIG": tf_config({"chief": ["a:1"]}, "worker")}, ("TF_CONFIG", "'worker'", "task")),
    ({"TF_CONFIG": tf_config(type="ps")}, ("TF_CONFIG", "'ps'", "task")),
    ({"TF_CONFIG": tf_config(type=["chief"])}, ("TF_CONFIG", '["chief"]', "task.type")),
    (
        {"TF_CONFIG": tf_config({"chief": ["a:1"]}), "CLUSTER_SPEC": cluster_spec()},
        ("TF_CONFIG", "CLUSTER_SPEC", "1", "4"),
    ),
    (
        {"TF_CONFIG": tf_config(type="worker", index=1), "CLUSTER_SPEC": cluster_spec()},
        ("TF_CONFIG", "worker 1", "CLUSTER_SPEC", "chief 0"),
    ),
    (
        {"TF_CONFIG": tf_config(type="worker", index=1), "CLUSTER_SPEC": cluster_spec(type="workerpool1", index=2)},
        ("TF_CONFIG", "worker 1", "CLUSTER_SPEC", "worker 2"),
    ),
    (
        {"TF_CONFIG": tf_config(), "CLUSTER_SPEC": cluster_spec(POOLS | {"workerpool3": ["e:1"]}, "workerpool3")},
        ("TF_CONFIG", "chief 0", "CLUSTER_SPEC", "evaluator 0"),
    ),
]


@pytest.mark.parametrize(("variables", "mentions"), REFUSED, ids=[" ".join(mentions) for _, mentions in REFUSED])
def test_a_contradictory_cluster_is_refused(variables, mentions):
    check_refusal(lambda: Environment.read(variables), ConfigError, *mentions)


def test_reduction_servers_do_not_belong_to_the_cluster():
    alone, served = (
        cluster_of(TF_CONFIG=tf_config(FOUR | tf_servers), CLUSTER_SPEC=cluster_spec(POOLS | pool_servers))
        for tf_servers, pool_servers in (({}, {}), ({"ps": ["p:1", "q:1"]}, {"workerpool2": ["p:1", "q:1"]}))
    )
    assert alone == served

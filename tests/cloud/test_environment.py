"""What Vertex AI says in environment variables is understood in every form, and what makes no sense is one sentence."""

import json

import pytest

from trainer.cloud.environment import Environment, without_mount
from trainer.errors import ConfigError

FOUR = {"chief": ["a:2222"], "worker": ["b:2222", "c:2222", "d:2222"]}
POOLS = {"workerpool0": ["a:2222"], "workerpool1": ["b:2222", "c:2222", "d:2222"]}


def tf_config(cluster=FOUR, type="chief", index=0, **more):
    return json.dumps({"cluster": cluster, "task": {"type": type, "index": index, "trial": "1", "cloud": "x"}, **more})


def cluster_spec(cluster=POOLS, type="workerpool0", index=0, **more):
    return json.dumps({"cluster": cluster, "task": {"type": type, "index": index}, "environment": "cloud", **more})


def cluster_of(**variables):
    return Environment.read(variables).cluster


def test_on_a_laptop_there_is_nothing():
    assert Environment.read({"PATH": "/bin", "AIP_MODEL_DIR": "", "TF_CONFIG": " "}) == Environment()
    assert Environment().job_dir is None and Environment().metric_file is None


def test_the_process_environment_is_read_by_default(monkeypatch):
    monkeypatch.setenv("CLOUD_ML_JOB_ID", "123")
    assert Environment.read().job_id == "123"


def test_every_variable_of_a_job_is_read():
    found = Environment.read(
        {
            "AIP_MODEL_DIR": "gs://b/run/model/",
            "AIP_CHECKPOINT_DIR": "gs://b/run/checkpoints/",
            "AIP_TENSORBOARD_LOG_DIR": "gs://b/run/logs/",
            "CLOUD_ML_JOB_ID": "4711",
            "CLOUD_ML_PROJECT_ID": "123456",
            "CLOUD_ML_REGION": "us-central1",
            "AIP_TENSORBOARD_RESOURCE_NAME": "projects/p/locations/l/tensorboards/1",
            "AIP_TF_PROFILER_PORT": "6009",
            "AIP_HTTP_HANDLER_PORT": "8080",
            "AIP_DATA_FORMAT": "jsonl",
            "AIP_TRAINING_DATA_URI": "gs://b/train-*",
            "AIP_VALIDATION_DATA_URI": "gs://b/validation-*",
            "AIP_TEST_DATA_URI": "gs://b/test-*",
        }
    )
    assert found == Environment(
        model_dir="gs://b/run/model",
        checkpoint_dir="gs://b/run/checkpoints",
        tensorboard_log_dir="gs://b/run/logs",
        job_id="4711",
        project_number="123456",
        region="us-central1",
        tensorboard_resource_name="projects/p/locations/l/tensorboards/1",
        tf_profiler_port="6009",
        http_handler_port="8080",
        data_format="jsonl",
        training_data_uri="gs://b/train-*",
        validation_data_uri="gs://b/validation-*",
        test_data_uri="gs://b/test-*",
    )
    assert found.job_dir == "gs://b/run"


def test_a_trial_has_a_folder_and_a_metric_file_of_its_own():
    trial = Environment.read({"CLOUD_ML_TRIAL_ID": "7", "AIP_CHECKPOINT_DIR": "gs://b/x/7/checkpoints/"})
    assert (trial.trial_id, trial.job_dir) == ("7", "gs://b/x/7")
    assert trial.metric_file == "/tmp/hypertune/output.metrics"
    given = Environment.read({"CLOUD_ML_TRIAL_ID": "7", "CLOUD_ML_HP_METRIC_FILE": "/var/m"})
    assert given.metric_file == "/var/m"


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/gcs/bucket/a/b", "gs://bucket/a/b"),
        ("/gcs/bucket", "gs://bucket"),
        ("/gcs/", "/gcs/"),
        ("/gcsfuse/bucket", "/gcsfuse/bucket"),
        ("gs://bucket/gcs/a", "gs://bucket/gcs/a"),
        ("runs/digits", "runs/digits"),
    ],
)
def test_a_mounted_bucket_is_read_as_a_bucket(path, meant):
    assert without_mount(path) == meant


@pytest.mark.parametrize(
    ("folders", "job_dir"),
    [
        ({"AIP_MODEL_DIR": "/gcs/b/run/model/"}, "gs://b/run"),
        ({"AIP_TENSORBOARD_LOG_DIR": "/runs/x/logs"}, "/runs/x"),
        ({"AIP_MODEL_DIR": "gs://b/model/"}, "gs://b"),
        ({"AIP_MODEL_DIR": "gs://model/"}, None),
        ({"AIP_MODEL_DIR": "gs://b/elsewhere/"}, None),
        ({"AIP_MODEL_DIR": "gs://b/elsewhere/", "AIP_CHECKPOINT_DIR": "gs://b/run/checkpoints/"}, "gs://b/run"),
        ({"AIP_MODEL_DIR": "gs://b/run/model/", "AIP_CHECKPOINT_DIR": "gs://b/run/checkpoints"}, "gs://b/run"),
    ],
)
def test_the_run_directory_is_what_the_folders_lie_in(folders, job_dir):
    assert Environment.read(folders).job_dir == job_dir


def test_folders_of_two_runs_are_refused_where_one_is_needed():
    found = Environment.read({"AIP_MODEL_DIR": "gs://b/one/model/", "AIP_CHECKPOINT_DIR": "gs://b/two/checkpoints/"})
    with pytest.raises(ConfigError) as caught:
        _ = found.job_dir
    assert str(caught.value) == (
        "the run directory is unclear (AIP_CHECKPOINT_DIR is in gs://b/two, AIP_MODEL_DIR is in gs://b/one); "
        "give it as --job_dir."
    )


def test_a_folder_in_no_bucket_is_refused():
    with pytest.raises(ConfigError) as caught:
        Environment.read({"AIP_MODEL_DIR": "gs:///"})
    assert str(caught.value) == "AIP_MODEL_DIR=gs:/// names no bucket; write gs://BUCKET/NAME."


@pytest.mark.parametrize(
    ("type", "index", "position"), [("chief", 0, 0), ("worker", 0, 1), ("worker", "2", 3), ("evaluator", 0, None)]
)
@pytest.mark.parametrize("source", ["TF_CONFIG", "CLUSTER_SPEC", "both"])
def test_both_variables_give_the_same_cluster(source, type, index, position):
    pool = {"chief": "workerpool0", "worker": "workerpool1", "evaluator": "workerpool3"}[type]
    pools = POOLS | {"workerpool2": [], "workerpool3": ["e:2222"]}
    given = {"TF_CONFIG": tf_config(type=type, index=index), "CLUSTER_SPEC": cluster_spec(pools, pool, index)}
    cluster = cluster_of(**(given if source == "both" else {source: given[source]}))
    assert cluster.addresses == ("a:2222", "b:2222", "c:2222", "d:2222") and cluster.num_workers == 4
    assert (cluster.role, cluster.index, cluster.worker_index) == (type, int(index), position)
    assert cluster.is_chief == (type == "chief") and cluster.is_evaluator == (type == "evaluator")
    assert cluster.tf_config == {"cluster": FOUR, "task": {"type": type, "index": int(index)}}


@pytest.mark.parametrize(
    "job", [{}, '{"python_module":""}', '{"python_module":"", "open_ports": [3333]}', {"open_ports": [1]}, "[", None]
)
def test_what_is_said_of_the_job_itself_does_not_matter(job):
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


def test_an_evaluator_of_one_machine_knows_what_it_is():
    pools = {"workerpool0": ["a:1"], "workerpool3": ["e:1"]}
    cluster = cluster_of(CLUSTER_SPEC=cluster_spec(pools, "workerpool3"))
    assert cluster.is_evaluator and cluster.num_workers == 1
    assert cluster.tf_config == {"cluster": {"chief": ["a:1"]}, "task": {"type": "evaluator", "index": 0}}


def test_a_tf_config_that_lists_nobody_leaves_it_to_the_pools():
    assert cluster_of(TF_CONFIG="{}", CLUSTER_SPEC=cluster_spec()).num_workers == 4


MISTAKES = [
    (
        {"TF_CONFIG": "{cluster"},
        "TF_CONFIG is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); "
        "correct it, or unset it to train alone.",
    ),
    (
        {"CLUSTER_SPEC": "x"},
        "CLUSTER_SPEC is not JSON (Expecting value: line 1 column 1 (char 0)); correct it, or unset it to train alone.",
    ),
    ({"TF_CONFIG": "[1]"}, 'TF_CONFIG=[1] must be a JSON object, as in {"cluster": {...}, "task": {...}}.'),
    (
        {"TF_CONFIG": '{"cluster": ["a:1"]}'},
        'TF_CONFIG={"cluster": ["a:1"]} must be a JSON object, as in {"cluster": {...}, "task": {...}}.',
    ),
    (
        {"TF_CONFIG": tf_config({"workerpool0": ["a:1"]})},
        "TF_CONFIG lists 'workerpool0', which is no role; roles are chief, master, worker, ps, evaluator.",
    ),
    ({"TF_CONFIG": tf_config({"chief": "a:1"})}, "TF_CONFIG gives chief='a:1'; it must be a list of HOST:PORT."),
    ({"TF_CONFIG": tf_config({"chief": ["a"]})}, "TF_CONFIG gives chief=['a']; it must be a list of HOST:PORT."),
    (
        {"TF_CONFIG": tf_config(FOUR | {"ps": ["p:1", "q:1"]})},
        "TF_CONFIG lists parameter or reduction servers (ps: p:1, q:1), which this trainer cannot use; leave that pool "
        "empty.",
    ),
    (
        {"CLUSTER_SPEC": cluster_spec(POOLS | {"workerpool2": ["p:1"]})},
        "CLUSTER_SPEC lists parameter or reduction servers (workerpool2: p:1), which this trainer cannot use; leave "
        "that pool empty.",
    ),
    (
        {"TF_CONFIG": tf_config({"chief": ["a:1", "b:1"]})},
        "TF_CONFIG lists 2 chiefs (a:1, b:1); keep one.",
    ),
    (
        {"TF_CONFIG": tf_config({"chief": ["a:1"], "master": ["b:1"]})},
        "TF_CONFIG lists 2 chiefs (a:1, b:1); keep one.",
    ),
    (
        {"CLUSTER_SPEC": cluster_spec({"workerpool1": ["a:1", "b:1"]}, "workerpool1")},
        "CLUSTER_SPEC lists no workerpool0, which holds the chief; give the first pool one machine.",
    ),
    ({"TF_CONFIG": tf_config({"evaluator": ["e:1"]})}, "TF_CONFIG lists no machine that trains; give it a chief."),
    (
        {"TF_CONFIG": tf_config({"chief": ["a:1"], "worker": ["b:1", "a:1"]})},
        "TF_CONFIG lists a:1 twice; give each machine an address of its own.",
    ),
    (
        {"TF_CONFIG": json.dumps({"cluster": FOUR})},
        'TF_CONFIG has task=null; it must say which machine this is, as in {"type": "chief", "index": 0}.',
    ),
    (
        {"CLUSTER_SPEC": json.dumps({"cluster": POOLS, "task": {"index": 0}})},
        'CLUSTER_SPEC has task={"index": 0}; it must say which machine this is, as in {"type": "workerpool0", '
        '"index": 0}.',
    ),
    ({"TF_CONFIG": tf_config(index=-1)}, "TF_CONFIG has task index -1; it must be a whole number from 0."),
    ({"TF_CONFIG": tf_config(index=True)}, "TF_CONFIG has task index True; it must be a whole number from 0."),
    ({"TF_CONFIG": tf_config(index="one")}, "TF_CONFIG has task index 'one'; it must be a whole number from 0."),
    (
        {"TF_CONFIG": tf_config(type="worker", index=3)},
        "TF_CONFIG makes this machine worker 3, and lists 3 of them, counted from 0; correct the index.",
    ),
    (
        {"TF_CONFIG": tf_config({"chief": ["a:1"]}, "worker")},
        "TF_CONFIG makes this machine 'worker', which its cluster does not list; correct the task.",
    ),
    (
        {"TF_CONFIG": tf_config(type="ps")},
        "TF_CONFIG makes this machine 'ps', which its cluster does not list; correct the task.",
    ),
    (
        {"TF_CONFIG": tf_config(type=["chief"])},
        "TF_CONFIG makes this machine ['chief'], which its cluster does not list; correct the task.",
    ),
    (
        {"TF_CONFIG": tf_config({"chief": ["a:1"]}), "CLUSTER_SPEC": cluster_spec()},
        "TF_CONFIG and CLUSTER_SPEC disagree on how many machines train (1 and 4); unset the one that is wrong.",
    ),
    (
        {"TF_CONFIG": tf_config(type="worker", index=1), "CLUSTER_SPEC": cluster_spec()},
        "TF_CONFIG makes this machine worker 1 and CLUSTER_SPEC chief 0; unset the one that is wrong.",
    ),
    (
        {"TF_CONFIG": tf_config(type="worker", index=1), "CLUSTER_SPEC": cluster_spec(type="workerpool1", index=2)},
        "TF_CONFIG makes this machine worker 1 and CLUSTER_SPEC worker 2; unset the one that is wrong.",
    ),
    (
        {"TF_CONFIG": tf_config(), "CLUSTER_SPEC": cluster_spec(POOLS | {"workerpool3": ["e:1"]}, "workerpool3")},
        "TF_CONFIG makes this machine chief 0 and CLUSTER_SPEC evaluator 0; unset the one that is wrong.",
    ),
]


@pytest.mark.parametrize(("variables", "sentence"), MISTAKES, ids=[sentence[:60] for _, sentence in MISTAKES])
def test_a_cluster_that_makes_no_sense_is_one_sentence(variables, sentence):
    with pytest.raises(ConfigError) as caught:
        Environment.read(variables)
    assert str(caught.value) == sentence

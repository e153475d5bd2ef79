"""Rules of Vertex AI and tables of its machines: what is accepted, with and without a warning."""

import json

import pytest
import yaml
from specs import JOB, POOL, changed

from trainer.cli import submit
from trainer.cloud.jobs import machines

RIGHT = JOB | {"baseOutputDirectory": {"outputUriPrefix": "gs://bkt/run"}}
GPU = {"machineType": "g2-standard-8", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 1}
T4 = {"machineType": "n1-standard-8", "acceleratorType": "NVIDIA_TESLA_T4", "acceleratorCount": 1}
A4X = {"machineType": "a4x-highgpu-4g", "acceleratorType": "NVIDIA_GB200", "acceleratorCount": 4}
ANY = {"reservationAffinity": {"reservationAffinityType": "ANY_RESERVATION"}}


@pytest.fixture
def warnings(tmp_path, capsys):
    """Returns the warnings of a dry run, which must send the whole content of the file."""

    def run(content):
        (tmp_path / "job.json").write_text(json.dumps(content))
        assert submit.main(["submit", f"--config={tmp_path}/job.json", "--dry_run"]) == 0
        printed = capsys.readouterr()
        sent = json.loads(printed.out)["body"]
        assert content in (sent["jobSpec"], {key: value for key, value in sent.items() if key != "displayName"})
        entries = [json.loads(line) for line in printed.err.splitlines()]
        return [entry["message"] for entry in entries if entry["severity"] == "WARNING"]

    return run


@pytest.mark.parametrize("flag", ["--dry_run=1", "--dry-run=t", "--dry_run=True", "--render", "--render=1"])
def test_a_warning_is_not_part_of_the_printed_job(flag, tmp_path, capsys):
    content = changed(RIGHT, workerPoolSpecs__0__machineSpec=GPU | {"machineType": "g9-standard-8"})
    (tmp_path / "job.json").write_text(json.dumps(content))
    argv = ["submit", f"--config={tmp_path}/job.json", "--project=my-project", "--region=us-central1", flag]
    assert submit.main(argv) == 0
    printed = capsys.readouterr()
    job = yaml.safe_load(printed.out)  # JSON is YAML
    assert job.get("body", {"jobSpec": job})["jobSpec"] == content
    assert "g9-standard-8" in json.loads(printed.err)["message"]


@pytest.mark.parametrize(
    ("machine", "fields", "mentions"),
    [
        *(
            (GPU | {"machineType": name}, {}, (name,))
            for name in ("g2-standard-999", "g9-standard-8", "n1", "n1-standard-2", "a3-edgegpu-8g", "c3-standard-8")
        ),
        ({"machineType": "n2d-standard-8"}, {}, ("n2d-standard-8",)),
        (
            {"machineType": "a2-highgpu-8g", "acceleratorType": "NVIDIA_TESLA_A100", "acceleratorCount": 1}
            | {"gpuPartitionSize": "1g.5gb"},
            {},
            ("a2-highgpu-8g",),
        ),
        (GPU, {"scheduling": {"strategy": "SPOT", "maxWaitDuration": "60s"}}, ("maxWaitDuration", "60s", "SPOT")),
        (GPU, {"scheduling": {"maxWaitDuration": "60s"}}, ("maxWaitDuration", "60s", "STANDARD")),
        (T4, {"scheduling": {"strategy": "FLEX_START"}}, ("FLEX_START", "NVIDIA_TESLA_T4")),
        (GPU | ANY, {"scheduling": {"strategy": "SPOT"}}, ("SPOT", "ANY_RESERVATION")),
        (A4X, {}, ("a4x-highgpu-4g", "reservation")),
        (GPU | ANY, {"persistentResourceId": "mine"}, ("mine", "ANY_RESERVATION")),
    ],
)
def test_what_google_does_not_document_is_a_warning(warnings, machine, fields, mentions):
    (warning,) = warnings(changed(RIGHT, workerPoolSpecs__0__machineSpec=machine) | fields)
    assert all(mention in warning for mention in mentions)


DOCUMENTED = [
    *(
        (f"g2-standard-{size}", "NVIDIA_L4", [count])
        for size, count in {4: 1, 16: 1, 24: 2, 32: 1, 48: 4, 96: 8}.items()
    ),
    *((f"g4-standard-{size}", "NVIDIA_RTX_PRO_6000", [count]) for size, count in {48: 1, 192: 4, 384: 8}.items()),
    ("a2-highgpu-2g", "NVIDIA_TESLA_A100", [2]),
    ("a2-megagpu-16g", "NVIDIA_TESLA_A100", [16]),
    ("a2-ultragpu-4g", "NVIDIA_A100_80GB", [4]),
    ("a3-highgpu-1g", "NVIDIA_H100_80GB", [1]),
    ("a3-megagpu-8g", "NVIDIA_H100_MEGA_80GB", [8]),
    ("a3-ultragpu-8g", "NVIDIA_H200_141GB", [8]),
    ("a4-highgpu-8g", "NVIDIA_B200", [8]),
    ("a4x-highgpu-4g", "NVIDIA_GB200", [4]),
    *(
        (f"n1-{family}", f"NVIDIA_TESLA_{kind}", counts)
        for kind in ("T4", "P4")
        for family, counts in [("highmem-2", [1, 2, 4]), ("highcpu-16", [1, 2, 4]), ("standard-32", [2, 4])]
    ),
    *(
        (f"n1-{family}", f"NVIDIA_TESLA_{kind}", [4])
        for kind in ("T4", "P4")
        for family in ("highcpu-64", "highmem-96")
    ),
    ("n1-standard-8", "NVIDIA_TESLA_V100", [1, 2, 4, 8]),
    ("n1-highmem-16", "NVIDIA_TESLA_V100", [2, 4, 8]),
    ("n1-highcpu-32", "NVIDIA_TESLA_V100", [4, 8]),
    ("n1-standard-64", "NVIDIA_TESLA_V100", [8]),
    *((name, None, [0]) for name in ("e2-highcpu-32", "n4-standard-80", "n2-highmem-2", "c2-standard-30")),
    *((name, None, [0]) for name in ("m1-ultramem-160", "m1-megamem-96", "n1-highcpu-96")),
]
"""Machines, accelerators, and all allowed numbers of them in Google's table of the numbers of GPUs."""


@pytest.mark.parametrize(("name", "accelerator", "counts"), DOCUMENTED)
def test_only_the_documented_numbers_of_gpus_are_accepted(name, accelerator, counts):
    possible = (1, 2, 4, 8, 16) if accelerator else (0,)
    assert [count for count in possible if machines.check_machine(name, accelerator, count) is None] == counts


@pytest.mark.parametrize("name", ["cloud-tpu", "ct5lp-hightpu-4t", "ct6e-standard-8t", "tpu7x-standard-4t"])
def test_tpus_of_another_program_pass(name):
    accelerator = "TPU_V3" if name == "cloud-tpu" else None
    assert machines.check_machine(name, accelerator, 8 if accelerator else 0) is None


@pytest.mark.parametrize(
    "machine",
    [
        GPU,
        GPU | {"machineType": "g2-standard-96", "acceleratorCount": 8},
        {"machineType": "n2-standard-8", "acceleratorType": "ACCELERATOR_TYPE_UNSPECIFIED"},
    ],
)
def test_machines_of_the_tables_are_accepted_without_a_warning(warnings, machine):
    pool = changed(POOL, machineSpec=machine, containerSpec__args=["--global_batch_size=96"])
    assert not warnings(RIGHT | {"workerPoolSpecs": [pool], "scheduling": {"timeout": "604800s"}})


@pytest.mark.parametrize("wait", ["0s", "172800s"])
def test_flex_start_may_wait(warnings, wait):
    pool = changed(POOL, machineSpec=GPU)
    scheduling = {"strategy": "FLEX_START", "timeout": "604800s", "maxWaitDuration": wait}
    assert not warnings(RIGHT | {"workerPoolSpecs": [pool], "scheduling": scheduling})


def test_labels_may_be_as_long_as_the_api_allows(warnings):
    assert not warnings({"jobSpec": RIGHT, "labels": {"t" * 64: "x" * 64, "größe": ""}})

"""`submit --regions` with a local substitute for Vertex AI: which errors lead to the next region."""

import functools
import json

import pytest
from local_vertex import use
from specs import TUNING, changed
from submissions import RIGHT, check_error

from trainer.cli import submit
from trainer.cloud.vertex import follow, sdk
from trainer.testing.vertex_service import NO_RESPONSE

pytest.importorskip("yaml")

REGIONS = ("us-central1", "us-east1", "europe-west4")
SEED = {"parameterId": "seed", "integerValueSpec": {"minValue": 1, "maxValue": 9}}
TUNED = changed(TUNING, trialJobSpec=RIGHT, studySpec__parameters=[SEED])
TENSORBOARD = "projects/my-project/locations/us-east1/tensorboards/7"


def submit_to(folder, capsys, content, *flags):
    """Submits a job to three regions; returns the exit code, the messages and standard error."""
    path = folder / "job.json"
    path.write_text(json.dumps(content))
    argv = ["submit", f"--config={path}", "--project=my-project", f"--regions={','.join(REGIONS)}", *flags]
    code = submit.main(argv)
    printed = capsys.readouterr()
    return code, [json.loads(line)["message"] for line in printed.out.splitlines()], printed.err


@pytest.fixture
def send(tmp_path, capsys):
    return functools.partial(submit_to, tmp_path, capsys)


def tried(service):
    """Regions of the requests that create jobs."""
    return [path.split("/")[5] for method, path, _ in service.requests if method == "POST" and ":" not in path]


def created(service):
    """Regions of the jobs."""
    return [name.split("/")[3] for name in service.jobs]


def test_an_exhausted_quota_leads_to_the_next_region(service, send, monkeypatch):
    monkeypatch.setattr(sdk, "_RETRY_SECS", 10.0)
    service.fail(429, "The following quota metrics exceed quota limits: l4", times=2)
    code, messages, error = send(RIGHT)
    assert (code, error) == (0, "") and tried(service) == list(REGIONS) and created(service) == [REGIONS[2]]
    assert [all(region in line for region in REGIONS[n : n + 2]) for n, line in enumerate(messages[:2])] == [True] * 2
    assert any(f"describe {name}" in messages[-1] for name in service.jobs)


def test_the_last_region_reports_its_error(service, send):
    service.fail(429, "no quota", times=99)
    code, _, error = send(RIGHT)
    assert code == 1 and not service.jobs
    check_error(error, "no quota", REGIONS[2])


@pytest.mark.parametrize("response", [400, 403, 404, 500, 503, NO_RESPONSE])
def test_any_other_error_ends_the_command(service, send, response):
    service.fail(response)
    code, _, error = send(RIGHT)
    assert code == 1 and tried(service) == [REGIONS[0]]
    check_error(error)


@pytest.mark.parametrize(
    ("content", "flags", "without_machines", "regions", "code"),
    [
        (RIGHT, ["--wait"], REGIONS[:2], REGIONS, 0),
        (RIGHT, ["--wait"], REGIONS, REGIONS, 1),
        (RIGHT, [], REGIONS[:2], REGIONS[:1], 0),
        (TUNED, ["--wait"], REGIONS[:1], REGIONS[:2], 0),
    ],
)
def test_a_job_that_never_got_machines_moves_if_the_command_waits(
    service, send, content, flags, without_machines, regions, code
):
    service.regions_without_machines = set(without_machines)
    received, messages, error = send(content, *flags)
    assert received == code and created(service) == list(regions)
    if code:
        check_error(error, REGIONS[2], "Resources are insufficient")
    elif flags:
        assert "SUCCEEDED" in messages[-1]


def test_a_job_that_ran_does_not_move(service, send):
    def run(spec):
        raise RuntimeError("Resources are insufficient in region: us-central1")

    service.run = run
    assert send(RIGHT, "--wait")[0] == 1 and created(service) == [REGIONS[0]]


def test_ctrl_c_while_waiting_does_not_move_the_job(service, send, monkeypatch):
    def sleep(secs):
        raise KeyboardInterrupt

    service.run = lambda spec: service.await_state(next(iter(service.jobs)), "CANCELLED")
    monkeypatch.setattr(follow, "_sleep", sleep)
    assert send(RIGHT, "--wait")[0] == 130 and created(service) == [REGIONS[0]]


@pytest.mark.parametrize(
    "content",
    [
        RIGHT | {"tensorboard": TENSORBOARD, "serviceAccount": "a@b.iam.gserviceaccount.com"},
        changed(RIGHT, workerPoolSpecs__0__containerSpec__env=[{"name": "T", "value": TENSORBOARD}]),
    ],
)
def test_a_resource_of_one_region_is_refused(service, send, content):
    code, _, error = send(content)
    assert code == 2 and not service.requests
    check_error(error, TENSORBOARD, REGIONS[0], REGIONS[2])


@pytest.mark.parametrize("content", [RIGHT, TUNED])
def test_a_persistent_resource_is_refused_because_it_is_in_one_region(service, send, content):
    code, _, error = send(content, "--persistent_resource=mine")
    assert code == 2 and not service.requests
    check_error(error, "persistentResourceId", "'mine'", "--regions")


def test_one_region_in_the_list_is_like_region(service, tmp_path, capsys, monkeypatch):
    use(service, monkeypatch)
    (tmp_path / "job.json").write_text(
        json.dumps(RIGHT | {"tensorboard": TENSORBOARD, "serviceAccount": "a@b.iam.gserviceaccount.com"})
    )
    argv = ["submit", f"--config={tmp_path}/job.json", "--project=my-project", "--regions=us-east1"]
    assert submit.main(argv) == 0 and created(service) == ["us-east1"]


PRICES = """\
region,name,strategy,price_per_hour,currency,date
us-central1,n1-standard-4,,0.5,USD,2026-01-31
us-east1,n1-standard-4,STANDARD,1,USD,2026-02-01
"""


def test_the_cost_per_hour_is_printed_for_each_region(service, send, tmp_path):
    (tmp_path / "prices.csv").write_text(PRICES)
    service.fail(429, times=2)
    code, messages, _ = send(changed(TUNED, parallelTrialCount=2), f"--price_table={tmp_path}/prices.csv")
    costs = [line for line in messages if "per hour" in line]
    assert code == 0 and ["1.00 USD" in costs[0], "2.00 USD" in costs[1], "n1-standard-4" in costs[2]] == [True] * 3

"""Trackers: what they receive, that a resumed run continues theirs, and that their errors do not end training."""

import json
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from refusals import check_refusal
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.plugins.hparams import plugin_data_pb2

from trainer.callbacks import EventLog, Tracking, trackers
from trainer.callbacks.tracking import run_name
from trainer.config import TrainConfig
from trainer.errors import ConfigError
from trainer.image_io import save_grid

MONITOR = "metric/frechet"
END_SECS = "trainer.callbacks.tracking._END_SECS"


class FakeTracker:
    """Records its calls; fails in the call with a name."""

    def __init__(self, failing=None, begin_id="new"):
        self.calls, self.failing, self.begin_id = [], failing, begin_id

    def _call(self, name, *values):
        self.calls.append((name, *values))
        if name == self.failing:
            raise RuntimeError("the network is down")

    def begin(self, run_id, name, parameters):
        self._call("begin", run_id, parameters)
        return run_id or self.begin_id

    def log(self, scalars, step):
        self._call("log", step, scalars)

    def image(self, path, step):
        self._call("image", step)

    def end(self, summary, *, is_complete):
        self._call("end", summary, is_complete)


def train(folder, tracker, first=0, last=4, num_steps=4, error=None, is_preempted=False, has_begun=None):
    """Acts as a run of which a session goes from a step to another one, with one tracker or several by name."""
    (folder / "samples").mkdir(exist_ok=True, parents=True)
    settings = {"seed": 3, "penalties": ["r1"], "epochs": None}
    files = {"ids": folder / "trackers.json", "samples": folder / "samples", "metrics": folder / "metrics.jsonl"}
    clients = tracker if isinstance(tracker, dict) else {"fake": tracker}
    tracking = Tracking(clients, **files, name="run", settings=settings, monitor=MONITOR)
    tracking.set_model(SimpleNamespace(step=first, preempted=is_preempted))
    tracking.set_params({"num_steps": num_steps})
    try:
        with tracking:
            tracking.on_train_begin({})
            assert has_begun is None or has_begun.wait(10)
            for step in range(first + 1, last + 1):
                tracking.model.step = step
                logs = {"loss": 1.0 / step, "text": "x", "bad": float("nan")} | (
                    {MONITOR: abs(step - 3.0) + 1} if step > 1 else {}
                )
                with (folder / "metrics.jsonl").open("a") as file:
                    file.write(json.dumps({"step": step, **logs}) + "\n")
                if step == 2:
                    save_grid(folder / "samples/step-00000002.png", np.zeros((4, 4, 3), np.uint8))
                tracking.on_train_batch_end(0, logs)
            if error is not None:
                raise error
    except KeyboardInterrupt:
        pass


def test_a_resumed_run_continues_its_tracker_run_and_ends_with_the_best_of_all(tmp_path):
    first, second = FakeTracker(begin_id="abc"), FakeTracker()
    train(tmp_path, first, last=3, error=KeyboardInterrupt())
    train(tmp_path, second, first=3)
    assert first.calls[0] == ("begin", None, {"seed": 3, "penalties": '["r1"]'})
    assert second.calls[0][:2] == ("begin", "abc")
    steps = [call[1] for call in first.calls + second.calls if call[0] == "log"]
    assert steps == [1, 2, 3, 4] and first.calls[1][2] == {"loss": 1.0}
    assert [call for call in first.calls if call[0] == "image"] == [("image", 2)]
    assert first.calls[-1][2] is False
    assert second.calls[-1] == ("end", {"best/frechet": 1.0, "best/step": 3.0}, True)


@pytest.mark.parametrize("failing", ["begin", "log", "image", "end"])
def test_a_tracker_that_fails_is_reported_once_and_no_longer_called(tmp_path, failing, trainer_log):
    tracker = FakeTracker(failing)
    train(tmp_path, tracker)
    assert len(trainer_log.messages) == 1 and "fake" in trainer_log.text and "network" in trainer_log.text
    assert [call[0] for call in tracker.calls].count(failing) == 1 and tracker.calls[-1][0] == failing


def test_training_does_not_wait_for_a_slow_tracker(tmp_path, monkeypatch, trainer_log):
    monkeypatch.setattr(END_SECS, 0.1)
    tracker = FakeTracker()
    tracker.log = lambda scalars, step: time.sleep(2)
    begin = time.monotonic()
    train(tmp_path, tracker)
    assert time.monotonic() - begin < 1.5 and len(trainer_log.messages) == 1


@pytest.mark.parametrize("is_preempted", [False, True])
def test_all_trackers_share_the_time_at_the_end(is_preempted, tmp_path, monkeypatch, trainer_log):
    monkeypatch.setattr("trainer.callbacks.tracking._PREEMPTED_END_SECS" if is_preempted else END_SECS, 0.5)
    stuck = threading.Event()
    clients = {name: FakeTracker() for name in "abc"}
    for client in clients.values():
        client.begin = lambda *_: stuck.wait(20)
    begin = time.monotonic()
    train(tmp_path, clients, is_preempted=is_preempted)
    assert 0.5 <= time.monotonic() - begin < 1.0 and len(trainer_log.messages) == 3
    stuck.set()


@pytest.mark.parametrize("is_stuck", [False, True])
def test_a_full_queue_is_waited_for_at_the_end(is_stuck, tmp_path, monkeypatch, trainer_log):
    monkeypatch.setattr(END_SECS, 0.5)
    monkeypatch.setattr("trainer.callbacks.tracking._MAX_PENDING", 5)  # three steps, an image, and the end
    stuck, has_begun = threading.Event(), threading.Event()
    tracker = FakeTracker()
    tracker.begin = lambda *_: (has_begun.set(), stuck.wait(20 if is_stuck else 0.2))
    train(tmp_path, tracker, last=3, has_begun=has_begun)
    assert len(trainer_log.messages) == is_stuck
    assert [call[0] for call in tracker.calls] == ([] if is_stuck else ["log", "log", "image", "log", "end"])
    stuck.set()


@pytest.mark.parametrize("content", [b"\xff", b"[]", b'{"fake": 7}', b'{"fake": "a b\\u0000"}'])
def test_damaged_ids_begin_a_new_run_with_a_warning(tmp_path, content, trainer_log):
    (tmp_path / "trackers.json").write_bytes(content)
    tracker = FakeTracker()
    train(tmp_path, tracker)
    assert tracker.calls[0][1] is None and "trackers.json" in trainer_log.text


def test_an_unknown_or_missing_tracker_is_refused(monkeypatch):
    check_refusal(lambda: TrainConfig(track=("wandbb",)), ConfigError, "track='wandbb'", "mlflow")
    monkeypatch.setattr(trackers, "_is_installed", lambda module: False)
    for name, extra in (("wandb", "wandb"), ("mlflow", "mlflow"), ("vertex", "vertex")):
        check_refusal(lambda name=name: trackers.check_trackers([name]), ConfigError, f"track={name}", f"[{extra}]")


@pytest.mark.parametrize(
    ("job_dir", "name"),
    [("runs/a", "a"), ("gs://bucket/runs/b/", "b"), ("gs://bucket/runs/tuning/7", "tuning-7"), ("7", "7"), ("/7", "7")],
)
def test_a_run_is_named_after_its_directory_and_a_trial_also_after_its_study(job_dir, name):
    assert run_name(job_dir) == name


def test_wandb_without_a_key_is_refused_unless_it_is_offline(tmp_path, monkeypatch, capfd):
    pytest.importorskip("wandb", reason="wandb is not installed")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    check_refusal(lambda: trackers.check_trackers(["wandb"]), ConfigError, "WANDB_MODE=offline")
    monkeypatch.setenv("WANDB_MODE", "offline")
    trackers.check_trackers(["wandb"])
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    trackers.check_trackers(["wandb"])
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore")
def test_mlflow_gets_parameters_metrics_grids_and_the_summary_in_one_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    train(tmp_path / "run", trackers.MlflowTracker(), last=3, error=KeyboardInterrupt())
    train(tmp_path / "run", trackers.MlflowTracker(), first=3)
    client = mlflow.tracking.MlflowClient()
    experiment = client.get_experiment_by_name("gan-trainer")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["seed"] == "3" and run.info.status == "FINISHED"
    assert run.data.metrics["best/step"] == 3 and run.data.metrics["best/frechet"] == 1
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")] == [1, 2, 3, 4]
    assert [file.path for file in client.list_artifacts(run.info.run_id, "samples")] == ["samples/step-00000002.png"]


@pytest.mark.filterwarnings("ignore")
def test_mlflow_uses_the_variables_of_its_users(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(None)  # other tests may have set it
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "faces")
    train(tmp_path / "new", trackers.MlflowTracker())
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("faces").experiment_id
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    train(tmp_path / "by ID", trackers.MlflowTracker())
    own = client.create_run(experiment, run_name="mine")
    client.log_param(own.info.run_id, "seed", "7")
    monkeypatch.setenv("MLFLOW_RUN_ID", own.info.run_id)
    train(tmp_path / "existing", trackers.MlflowTracker())
    runs = {run.info.run_id: run for run in client.search_runs([experiment])}
    assert len(runs) == 3 and client.get_experiment_by_name("gan-trainer") is None
    run = runs[own.info.run_id]
    assert run.info.run_name == "mine" and run.info.status == "FINISHED"
    assert run.data.params == {"seed": "7", "penalties": '["r1"]'} and run.data.metrics["best/step"] == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_one_offline_run_per_session_with_the_same_id(tmp_path, monkeypatch, trainer_log):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(tmp_path / "run", trackers.WandbTracker(tmp_path), last=3, error=KeyboardInterrupt())
    run_id = json.loads((tmp_path / "run/trackers.json").read_text())["fake"]
    train(tmp_path / "run", trackers.WandbTracker(tmp_path), first=3)
    files = list((tmp_path / "wandb").glob("*/*.wandb"))
    assert files and all(run_id in file.name for file in files)
    assert [record for record in trainer_log.records if record.levelname == "WARNING"] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_uses_the_variables_of_its_users(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    values = {"PROJECT": "faces", "ENTITY": "team", "RUN_GROUP": "sweep", "NAME": "mine", "RUN_ID": "abc"}
    for name, value in values.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    wandb.teardown()  # it reads its variables once
    tracker = trackers.WandbTracker(tmp_path)
    train(tmp_path / "run", tracker)
    wandb.teardown()
    run = tracker._run
    assert [run.project, run.entity, run.group, run.name, run.id] == list(values.values())
    assert list((tmp_path / "elsewhere/wandb").glob("*/*.wandb")) and not (tmp_path / "wandb").exists()


def test_vertex_gets_parameters_curves_and_the_summary(tmp_path, monkeypatch):
    aiplatform = pytest.importorskip("google.cloud.aiplatform", reason="the extra vertex is not installed")
    calls = []

    class FakeExperimentRun:
        def __init__(self, name, experiment, created=False):
            calls.append(("create" if created else "open", name))

        @classmethod
        def create(cls, name, experiment):
            return cls(name, experiment, created=True)

        def __getattr__(self, method):
            return lambda *values, **named: calls.append((method, *values, *named.values()))

    experiment = SimpleNamespace(get_or_create=lambda name: SimpleNamespace(backing_tensorboard_resource_name="tb"))
    monkeypatch.setattr(aiplatform, "Experiment", experiment)
    monkeypatch.setattr(aiplatform, "ExperimentRun", FakeExperimentRun)
    train(tmp_path, trackers.VertexTracker(), last=3, error=KeyboardInterrupt())
    train(tmp_path, trackers.VertexTracker(), first=3)
    (created, name), (opened, same_name) = (call for call in calls if call[0] in ("create", "open"))
    assert (created, opened) == ("create", "open") and name == same_name
    assert [call[-1] for call in calls if call[0] == "log_time_series_metrics"] == [1, 2, 3, 4]
    assert ("log_params", {"seed": 3, "penalties": '["r1"]'}) in calls
    assert [call for call in calls if call[0] == "log_metrics"][-1][1]["best/step"] == 3
    assert [call[1].name for call in calls if call[0] == "update_state"] == ["CANCELLED", "COMPLETE"]


@pytest.mark.parametrize("is_preempted", [False, True])
def test_a_run_that_a_callback_stopped_is_complete_for_its_tracker(tmp_path, is_preempted):
    tracker = FakeTracker()
    train(tmp_path, tracker, last=2, is_preempted=is_preempted)
    assert tracker.calls[-1][0] == "end" and tracker.calls[-1][2] is not is_preempted


@pytest.mark.parametrize(("step", "is_preempted"), [(4, False), (4, True), (2, False), (2, True)])
def test_a_trial_writes_its_settings_for_the_hparams_of_tensorboard(tmp_path, step, is_preempted):
    log = EventLog(tmp_path, {"latent_dim": 8, "loss": "hinge", "balance_classes": True}, MONITOR)
    log.set_model(SimpleNamespace(step=step, preempted=is_preempted))
    log.set_params({"num_steps": 4})
    log.on_train_begin({})
    log.on_train_batch_end(0, {MONITOR: 2.0})
    log.on_train_end()
    (file,) = tmp_path.iterdir()
    values = {value.tag: value for event in LegacyEventFileLoader(str(file)).Load() for value in event.summary.value}
    assert MONITOR in values

    def content(tag):
        return plugin_data_pb2.HParamsPluginData.FromString(values[tag].metadata.plugin_data.content)

    hparams = content("_hparams_/session_start_info").session_start_info.hparams
    assert hparams["latent_dim"].number_value == 8 and hparams["loss"].string_value == "hinge"
    assert hparams["balance_classes"].bool_value is True
    (metric,) = content("_hparams_/experiment").experiment.metric_infos
    assert metric.name.tag == MONITOR
    if is_preempted and step < 4:
        assert "_hparams_/session_end_info" not in values
    else:
        assert content("_hparams_/session_end_info").session_end_info.status == 1

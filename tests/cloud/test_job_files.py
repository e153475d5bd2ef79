"""Job files on disk, such as those of this repository."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
from absl import flags as absl_flags
from refusals import check_refusal

from trainer import __version__
from trainer.cloud.jobs import job_spec, variables
from trainer.cloud.jobs.job_spec import JobSpec, TuningSpec
from trainer.config import flags, recipes
from trainer.config.train_config import TrainConfig
from trainer.errors import ConfigError, StorageError

ROOT = Path(__file__).parents[2]
FILES = ("config.yaml", "scripts/multi_worker.yaml", "scripts/python_package.yaml", "scripts/tuning.yaml")
ALL_FILES = [path for path in (ROOT / "config.yaml", *ROOT.glob("scripts/*.yaml")) if "PoolSpecs" in path.read_text()]
VERTEX_SAMPLE = """
studySpec:
  metrics: [{metricId: frechet, goal: MINIMIZE}]
  parameters:
  - {parameterId: generator_learning_rate, scaleType: UNIT_LOG_SCALE, doubleValueSpec: {minValue: 1e-5, maxValue: 1e-3}}
  - parameterId: loss
    categoricalValueSpec: {values: [hinge, wasserstein]}
    conditionalParameterSpecs:
    - parentCategoricalValues: {values: [wasserstein]}
      parameterSpec: {parameterId: penalty_weight, doubleValueSpec: {minValue: 1, maxValue: 20}}
  measurementSelectionType: BEST_MEASUREMENT
maxTrialCount: 20
parallelTrialCount: 2
trialJobSpec:
  workerPoolSpecs:
  - {replicaCount: 1, machineSpec: {machineType: n1-standard-4}, containerSpec: {imageUri: image}}
"""


@pytest.fixture
def yaml():
    return pytest.importorskip("yaml")


@pytest.fixture
def written(yaml, tmp_path):
    """Writes a file and reads it as a job file."""

    def read(text):
        path = tmp_path / "job.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return job_spec.read(path)

    return read


def config_of(args, num_devices):
    """Returns the config of a trainer with these flags, for 5,000 images of 64×64."""
    values = absl_flags.FlagValues()
    flags.define_config(values)
    assert values(["trainer", *args])[1:] == []
    settings = flags.parsed_settings(values)
    facts = {"image_shape": (64, 64, 3), "num_images": 5000, "has_gpu": True, "device_memory_gib": 22.0}
    context = recipes.RecipeContext(**facts, num_devices=num_devices, settings=settings)
    return recipes.get(settings.pop("recipe"), context).override(**settings)


@pytest.mark.parametrize("file", FILES)
def test_the_files_of_this_repository_are_valid(yaml, file):
    job = job_spec.read(ROOT / file)
    trial = job.trial if isinstance(job, TuningSpec) else job
    assert trial.base_output_uri.startswith("gs://BUCKET/runs/")
    machines = sum(pool.replica_count * max(1, pool.accelerator_count) for pool in trial.pools)
    for pool in trial.pools:
        assert config_of(pool.program.args, machines).global_batch_size % machines == 0


@pytest.mark.parametrize("file", FILES)
def test_the_sdk_takes_the_files_of_this_repository(yaml, file):
    types = pytest.importorskip("google.cloud.aiplatform_v1", minversion="2.7").types
    json_format = pytest.importorskip("google.protobuf.json_format")
    job = job_spec.read(ROOT / file)
    message = types.HyperparameterTuningJob if isinstance(job, TuningSpec) else types.CustomJobSpec
    json_format.ParseDict(job.raw, message.pb(message()))
    json_format.ParseDict(yaml.safe_load((ROOT / file).read_text()), message.pb(message()))


def test_the_parameters_of_the_tuning_file_are_settings(yaml):
    job = job_spec.read(ROOT / "scripts/tuning.yaml")
    (metric,) = job.study.metrics
    assert (metric.metric_id, metric.goal) == ("frechet", "MINIMIZE")
    assert (job.study.measurement_selection, job.study.early_stopping) == ("BEST_MEASUREMENT", "median")
    varied = {one.parameter_id: one for one in job.study.all_parameters()}
    assert varied.keys() <= {spec.name for spec in dataclasses.fields(TrainConfig)}
    assert [name for name, one in varied.items() if one.scale == "log"] == [
        "generator_learning_rate",
        "discriminator_learning_rate",
    ]
    (child,) = varied["loss"].children
    assert (child.parameter.parameter_id, child.parent_values) == ("penalty_weight", ("relativistic",))


def test_config_yaml_has_two_accelerators_on_spot(yaml):
    job = job_spec.read(ROOT / "config.yaml")
    (chief,) = job.pools
    assert (chief.replica_count, chief.accelerator_count) == (1, 2)
    assert (job.raw["scheduling"]["strategy"], job.scheduling.restart_job_on_worker_restart) == ("SPOT", True)


def test_all_machines_of_a_job_run_the_same_program(yaml):
    chief, workers = job_spec.read(ROOT / "scripts/multi_worker.yaml").pools
    assert (chief.role, workers.role) == ("chief", "worker") and chief.program == workers.program


@pytest.mark.parametrize("path", ALL_FILES, ids=lambda path: path.name)
def test_a_job_in_another_region_uses_nothing_of_the_default_one(yaml, path):
    content = variables.expand(yaml.safe_load(path.read_text()), {"REGION": "europe-west4"})
    assert "europe-west4-docker.pkg.dev" in json.dumps(content) and "us-central1" not in json.dumps(content)


def test_the_python_package_is_named_as_built(yaml):
    (chief,) = job_spec.read(ROOT / "scripts/python_package.yaml").pools
    assert chief.program.package_uris == (f"gs://BUCKET/packages/gan_trainer-{__version__}.tar.gz",)


def test_numbers_in_scientific_notation_are_numbers(written):
    job = written(VERTEX_SAMPLE)
    assert isinstance(job, TuningSpec) and job.study.parameters[0].bounds == (1e-5, 1e-3)


def test_a_file_may_be_json(written):
    pool = '{"replicaCount": 1, "machineSpec": {"machineType": "n1"}, "containerSpec": {"imageUri": "image"}}'
    assert isinstance(written('{"workerPoolSpecs": [' + pool + "]}"), JobSpec)


def test_a_file_that_is_missing_is_refused(yaml, tmp_path):
    check_refusal(lambda: job_spec.read(tmp_path / "missing.yaml"), StorageError, f"{tmp_path}/missing.yaml")


def test_a_mistake_names_the_file(written, tmp_path):
    check_refusal(lambda: written("network: x"), ConfigError, f"{tmp_path}/job.yaml", "workerPoolSpecs")


def test_without_pyyaml_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    check_refusal(lambda: job_spec.read("config.yaml"), ConfigError, "PyYAML", "pip install 'gan-trainer[vertex]'")

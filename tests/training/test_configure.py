"""From a recipe and flags to settings: a new run chooses them by data and devices, and a resumed run keeps them."""

import ctypes
import json

import numpy as np
import pytest
import tensorflow as tf
from bucket_runs import run
from refusals import check_command_refusal, check_refusal

from trainer import task
from trainer.config import TrainConfig, recipes
from trainer.data.tfrecord_writer import write_prepared
from trainer.environment import Environment
from trainer.errors import CheckpointError, ConfigError
from trainer.storage import locate
from trainer.training import configure as configuring, processors
from trainer.training.complete_config import resolve
from trainer.training.configure import configure, create_context
from trainer.training.distributed.cluster import parse_cluster
from trainer.training.run_state import shared_fingerprint

TEXTS = {"name": "photos", "source": "", "license": "", "attribution": ""}
TINY = {"generator_filters": [8, 8, 8], "discriminator_filters": [8, 8, 8], "blocks_per_stage": 1}


def write(folder, side=32, num_images=40, channels=3):
    images = np.random.default_rng(0).integers(0, 256, (num_images, side, side, channels), np.uint8)
    write_prepared(folder, images, np.arange(num_images) % 5, list("abcde"), **TEXTS)
    return str(folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A prepared set of 40 images of 32×32 in five classes."""
    return write(tmp_path_factory.mktemp("photos"))


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Returns a function that sets the GPUs of this machine; at first there is none."""

    def change(num_gpus=0, memory_gib=None):
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU"] * num_gpus)
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": (8, 9)})
        monkeypatch.setattr(configuring, "gpu_memory_gib", lambda: memory_gib)

    change()
    return change


def cluster(index):
    """Returns the environment of the chief (0) or the worker (1) of a job with three machines."""
    kind, number = ("chief", 0) if index == 0 else ("worker", index - 1)
    content = {"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "task": {"type": kind, "index": number}}
    return Environment(cluster=parse_cluster(json.dumps(content), None))


@pytest.fixture
def stored(photos, tmp_path):
    """Returns a function that writes a run on photos with or without a checkpoint, and returns its run directory."""

    def store(has_checkpoint=True, **settings):
        directory = tmp_path / "run"
        directory.mkdir(exist_ok=True)
        if has_checkpoint:
            (directory / "checkpoints/step-00000001").mkdir(parents=True)
        flags = {"dataset": photos, "job_dir": str(directory), **settings}
        (directory / "config.json").write_text(configure("photos", flags, Environment()).to_json())
        return str(directory)

    return store


@pytest.mark.parametrize(
    ("gpus", "settings", "expected"),
    [
        ((0, None), {}, (False, 1, "small")),
        ((0, None), {"num_virtual_devices": 2}, (False, 2, "small")),
        ((0, None), {"size": "large"}, (False, 1, "large")),
        ((1, 22.0), {}, (True, 1, "medium")),
        ((4, 79.0), {}, (True, 4, "large")),
        ((4, 79.0), {"strategy": "one_device"}, (True, 1, "large")),
        ((2, None), {}, (True, 2, "medium")),
        ((1, 7.5), {"size": "medium"}, (True, 1, "medium")),
    ],
)
def test_the_context_states_the_devices(photos, machine, gpus, settings, expected):
    machine(*gpus)
    context = create_context({"dataset": photos, **settings}, Environment())
    assert (context.has_gpu, context.num_devices, context.size) == expected
    assert (context.image_shape, context.num_images, context.num_classes) == ((32, 32, 3), 40, 5)
    assert create_context({"dataset": photos, **settings}, cluster(0)).num_devices == 3 * expected[1]


@pytest.mark.parametrize(
    ("settings", "num_images", "side"),
    [
        ({"classes": ("a", "b")}, 16, 32),
        ({"classes": ("a",), "padding": 2}, 8, 36),
        ({"balance_classes": True}, 40, 32),
    ],
)
def test_the_context_states_the_images_that_settings_select(photos, settings, num_images, side):
    context = create_context({"dataset": photos, **settings}, Environment())
    assert (context.num_images, context.image_shape[0]) == (num_images, side)


def test_a_mounted_bucket_is_that_bucket(bucket, tmp_path):
    write(tmp_path / "photos", num_images=12)
    files = [path.name for path in (tmp_path / "photos").iterdir()]
    locate(f"{bucket}/photos").upload(tmp_path / "photos", files)
    mounted = f"{bucket}/photos".replace("gs://", "/gcs/")
    context = create_context({"dataset": mounted}, Environment())
    assert context.num_images == 12
    assert configure("photos", {"dataset": mounted}, Environment()).dataset == f"{bucket}/photos"


def test_all_machines_of_a_job_choose_the_same(photos, machine):
    machine(2, 22.0)
    configs = [configure("photos", {"dataset": photos}, cluster(index)) for index in (0, 1, 2)]
    assert len({shared_fingerprint(config) for config in configs}) == 1 and configs[0].global_batch_size % 6 == 0
    machine(2, 79.0)
    other = configure("photos", {"dataset": photos}, cluster(1))
    assert shared_fingerprint(other) != shared_fingerprint(configs[0])  # which the machines notice before they train
    forced = configure("photos", {"dataset": photos, "size": "medium"}, cluster(1))
    assert shared_fingerprint(forced) == shared_fingerprint(configs[0])


def test_a_resumed_run_keeps_its_settings_on_any_device(photos, stored, machine, trainer_log):
    directory = stored(steps=3000, generator_learning_rate=1e-5)
    before = configure("photos", {"dataset": photos, "job_dir": directory}, Environment())
    assert (before.size, before.steps, before.generator_learning_rate) == ("small", 3000, 1e-5)
    machine(8, 79.0)
    assert configure("photos", {"dataset": photos, "job_dir": directory}, Environment()) == before
    assert directory in trainer_log.text


def test_a_run_in_a_bucket_keeps_its_settings_on_any_device(photos, bucket, machine):
    settings = {"dataset": photos, "job_dir": f"{bucket}/run", "global_batch_size": 36}
    before = configure("photos", settings, Environment())
    (locate(bucket) / "run/config.json").write_bytes(before.to_json().encode())
    machine(1, 79.0)
    assert configure("photos", settings, Environment()) == before
    assert configure("photos", settings, cluster(1)) == before  # the other machines of the job read it, too


def test_a_resumed_run_keeps_its_settings_when_its_data_grows(photos, stored, tmp_path):
    directory = stored()
    (tmp_path / "run/config.json").write_text(
        (tmp_path / "run/config.json").read_text().replace(photos, grown := write(tmp_path / "grown", num_images=80))
    )
    before = configure("photos", {"dataset": photos, "job_dir": f"{tmp_path}/new"}, Environment())
    after = configure("photos", {"dataset": grown, "job_dir": directory}, Environment())
    assert after.override(dataset=photos, job_dir=before.job_dir) == before


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        ({"steps": 9}, {"steps": 9}),
        ({"epochs": 5.0}, {"steps": 5, "epochs": 5.0}),
        ({"sample_every_epochs": 7.0}, {"sample_every_steps": 7, "sample_every_epochs": 7.0}),
        ({"evaluate_every_steps": 3}, {"evaluate_every_steps": 3}),
        ({"global_batch_size": 8}, {"global_batch_size": 8}),  # which the run directory then refuses, as for any recipe
        ({"max_to_keep": 9}, {"max_to_keep": 9}),
        ({"allow_config_change": True, "penalty_weight": 3.0}, {"allow_config_change": True, "penalty_weight": 3.0}),
    ],
)
def test_a_flag_changes_only_its_setting_when_a_run_resumes(photos, stored, flags, changes):
    directory = stored(steps=3000)
    before = configure("photos", {"dataset": photos, "job_dir": directory}, Environment())
    after = configure("photos", {"dataset": photos, "job_dir": directory, **flags}, Environment())
    assert after.to_dict() == before.to_dict() | changes


def test_a_run_without_a_checkpoint_keeps_its_settings_only_if_the_command_changes_none(photos, stored, machine):
    directory = stored(has_checkpoint=False)
    settings = {"dataset": photos, "job_dir": directory}
    before = configure("photos", settings, Environment())
    machine(1, 79.0)
    assert configure("photos", settings, Environment()) == before
    settings |= {"size": "large"}
    after = configure("photos", settings, Environment())
    assert after == configure("photos", settings | {"job_dir": f"{directory}-new"}, Environment()).override(
        job_dir=directory
    )
    assert after.architecture_options != before.architecture_options


def test_settings_that_hold_for_one_command_are_not_kept(photos, stored):
    directory = stored(allow_config_change=True, resume="never", export_model=False)
    resumed = configure("photos", {"dataset": photos, "job_dir": directory}, Environment())
    assert (resumed.allow_config_change, resumed.resume, resumed.export_model) == (False, "auto", True)


def test_a_run_of_another_recipe_is_not_continued(photos, stored):
    directory = stored()
    config = configure("vanilla", {"dataset": photos, "job_dir": directory, "global_batch_size": 8}, Environment())
    assert (config.architecture, config.recipe, config.size) == ("mlp", "vanilla", "auto")


def test_a_damaged_config_is_refused(photos, stored, tmp_path):
    directory = stored()
    (tmp_path / "run/config.json").write_text("{")
    act = lambda: configure("photos", {"dataset": photos, "job_dir": directory}, Environment())  # noqa: E731
    check_refusal(act, CheckpointError, "config.json")


@pytest.mark.parametrize(
    ("settings", "mentions"),
    [
        ({"dataset": "no/such/folder"}, ("dataset", "no/such/folder")),
        ({"dataset": "digits", "padding": 1}, ("photos", "30x30", "--image_size")),
        ({"dataset": "digits", "classes": ("cat",)}, ("classes", "cat")),
        ({"dataset": "digits", "global_batch_size": 5001}, ("global_batch_size=5001", "5000")),
        ({"dataset": "digits", "global_batch_size": 5, "num_virtual_devices": 2}, ("global_batch_size=5", "2")),
        ({"dataset": "digits", "model": "cyclegan", "dataset_b": "mnist"}, ("architecture=r3gan", "cyclegan")),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused(settings, mentions):
    check_refusal(lambda: configure("photos", settings, Environment()), ConfigError, *mentions)


@pytest.mark.parametrize("spelling", ["{}", "{}/", "{}/.", "link"])
@pytest.mark.parametrize("dataset", ["{}", "inverted:{}"])
def test_the_folder_of_a_dataset_is_no_run_directory(photos, tmp_path, monkeypatch, spelling, dataset):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    (tmp_path / "link").symlink_to(photos)
    folder = tmp_path / "photos"
    settings = {"dataset": dataset.format(folder), "job_dir": spelling.format(folder), "global_batch_size": 8}
    check_refusal(lambda: configure("vanilla", settings, Environment()), ConfigError, "job_dir", "dataset")
    configure("vanilla", settings | {"job_dir": str(folder / "run")}, Environment())


CHANGES_WITHOUT_EFFECT = {
    "penalty": ("vanilla", {"penalty_weight": 5.0}, "penalties"),
    "lazy penalty": ("vanilla", {"penalty_every_steps": 16}, "penalties"),
    "penalty that is turned off": ("r3gan_digits", {"penalties": (), "penalty_weight_end": 5.0}, "penalties"),
    "penalty of a context": ("photos", {"penalties": (), "penalty_weight": 5.0}, "penalties"),
    "augmentation": ("vanilla", {"augment_probability": 0.5}, "augment"),
    "adaptive augmentation": ("vanilla", {"augment_probability": None}, "augment"),
    "end of the augmentation": ("photos", {"augment": None, "augment_probability_end": 0.5}, "augment"),
    "end of an adaptive probability": ("stylegan2_ada", {"augment_probability_end": 0.5}, "augment_probability"),
    "decay": ("vanilla", {"learning_rate_end": 0.1}, "learning_rate_decay"),
    "start of the decay": ("vanilla", {"learning_rate_decay_begin": 0.1}, "learning_rate_decay"),
    "beta": ("vanilla", {"optimizer": "rmsprop", "beta_1": 0.2}, "optimizer=adam"),
    "schedule of beta": ("gan_rmsprop", {"beta_2_end": 0.9}, "optimizer=adam"),
    "moving average": ("vanilla", {"ema_schedule": "cosine"}, "ema_half_life_images"),
    "schedules": ("vanilla", {"schedule_images": 100}, "schedule"),
    "evaluations": ("vanilla", {"metrics": "none", "evaluate_every_steps": 5}, "metrics"),
    "samples of evaluations": ("vanilla", {"metrics": "none", "num_metric_samples": 99}, "metrics"),
    "weights of another suite": ("vanilla", {"metrics": "photos", "inception_weights": "a.pb"}, "metrics=inception"),
    "virtual devices": ("vanilla", {"strategy": "one_device", "num_virtual_devices": 3}, "strategy"),
}


@pytest.mark.parametrize("name", CHANGES_WITHOUT_EFFECT)
def test_a_setting_without_effect_is_refused(photos, name, tmp_path):
    recipe, settings, need = CHANGES_WITHOUT_EFFECT[name]
    data = {"dataset": photos, "job_dir": f"{tmp_path}/run", "global_batch_size": 8}
    setting = [*settings][-1]
    mentions = f"{setting}={settings[setting]}", need
    check_refusal(lambda: configure(recipe, settings | data, Environment()), ConfigError, *mentions)


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("r3gan_digits", {"penalties": ()}),  # the recipe's penalty_weight then has no effect
        ("r3gan_digits", {"penalties": (), "penalty_weight": 1.0}),
        ("vanilla", {"penalty_weight": 10.0, "augment_probability": 1.0, "learning_rate_end": 0.0}),
        ("vanilla", {"penalties": ("r1",), "penalty_weight": 5.0}),
        ("vanilla", {"augment": "ada", "augment_probability": None}),
        ("stylegan2_ada", {"augment_probability": 0.0, "augment_probability_end": 0.5}),
        ("photos", {"augment": None, "penalties": (), "learning_rate_decay": "none"}),
    ],
)
def test_settings_of_the_recipe_and_defaults_need_no_effect(photos, tmp_path, recipe, settings):
    data = {"dataset": photos, "job_dir": f"{tmp_path}/run", "global_batch_size": 8}
    config = configure(recipe, settings | data, Environment())
    assert {name: getattr(config, name) for name in settings} == settings


@pytest.mark.parametrize(("recipe", "data"), [("cyclegan", {}), ("pix2pix", {"dataset": "gray_to_color:cifar10"})])
@pytest.mark.parametrize("setting", [{"latent_dim": 7}, {"latent_distribution": "uniform"}])
def test_latents_of_a_model_without_latents_are_refused(tmp_path, recipe, data, setting):
    ((name, value),) = setting.items()
    settings = setting | {"job_dir": f"{tmp_path}/run"} | data
    act = lambda: configure(recipe, settings, Environment())  # noqa: E731
    check_refusal(act, ConfigError, f"{name}={value}")


def test_weights_of_the_stored_suite_have_an_effect(tmp_path):
    settings = {"job_dir": str(tmp_path), "inception_weights": "a.pb"}
    check_refusal(lambda: configure("vanilla", settings, Environment()), ConfigError, "inception_weights=a.pb")
    config = configure("vanilla", settings | {"metrics": "inception"}, Environment())
    (tmp_path / "config.json").write_text(config.to_json())
    moved = settings | {"inception_weights": "b.pb"}
    assert configure("vanilla", moved, Environment()).inception_weights == "b.pb"


def test_a_batch_of_one_device_need_not_be_divisible_by_virtual_devices(tmp_path):
    settings = {"job_dir": str(tmp_path), "num_virtual_devices": 4, "global_batch_size": 6}
    config = TrainConfig(steps=1, recipe="vanilla", **settings)
    check_refusal(lambda: resolve(config, Environment()), ConfigError, "global_batch_size=6", "4")
    assert resolve(config.override(strategy="one_device"), Environment()).global_batch_size == 6


@pytest.mark.parametrize("recipe", ["vanilla", "photos"])
def test_a_resumed_run_keeps_a_setting_without_effect(photos, tmp_path, recipe):
    settings = {"dataset": photos, "job_dir": f"{tmp_path}", "global_batch_size": 8, "penalties": ()}
    config = configure(recipe, settings, Environment()).override(penalty_weight=5.0)
    (tmp_path / "config.json").write_text(config.to_json())
    assert configure(recipe, settings | {"penalty_weight": 5.0}, Environment()) == config
    changed = settings | {"penalty_weight": 6.0}
    check_refusal(lambda: configure(recipe, changed, Environment()), ConfigError, "penalty_weight=6.0")


def test_a_trial_logs_a_setting_without_effect(photos, tmp_path, trainer_log):
    settings = {"dataset": photos, "job_dir": f"{tmp_path}/run", "penalty_weight": 5.0, "global_batch_size": 8}
    trial = Environment(trial_id="1", metric_file="/tmp/output.metrics")
    assert configure("vanilla", settings, trial).penalty_weight == 5.0
    assert "penalty_weight=5.0" in trainer_log.text


class Driver:
    """The functions of NVIDIA's driver that state the memory of GPUs."""

    def __init__(self, *memory_gib, error=""):
        self.memory_gib, self.error = memory_gib, error

    def cuInit(self, flags):
        return self.error == "init"

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.memory_gib)
        return 0

    def cuDeviceGet(self, device, index):
        device._obj.value = index
        return 0

    def cuDeviceTotalMem_v2(self, num_bytes, device):
        num_bytes._obj.value = int(self.memory_gib[device.value] * 2**30)
        return self.error == "memory"


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        (Driver(22.5), 22.5),
        (Driver(79.0, 39.5), 39.5),
        (Driver(), None),
        (Driver(22.5, error="init"), None),
        (Driver(22.5, error="memory"), None),
        (None, None),
    ],
)
def test_the_driver_states_the_memory_of_the_smallest_gpu(monkeypatch, driver, expected):
    monkeypatch.undo()

    def load(name):
        if driver is None:
            raise OSError(name)
        return driver

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert processors.gpu_memory_gib() == expected


def test_a_dry_run_prints_the_plan_and_writes_nothing(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("train", "--recipe=photos", f"--dataset={photos}", "--size=medium", "--dry_run") == 0
    printed = capsys.readouterr()
    config = json.loads(printed.out)
    assert (config["size"], config["metrics"], config["job_dir"]) == ("medium", "photos", "runs/photos")
    (plan,) = [json.loads(line) for line in printed.err.splitlines() if "chosen" in line]
    assert plan["chosen"]["global_batch_size"] == config["global_batch_size"] == 40
    for name in plan["chosen"]:
        assert f"\n  {name}=" in plan["message"] and name in config
    assert "size" not in plan["chosen"]  # which the user gave
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("flags", "mentions"),
    [
        (["--recipe=photos"], ("photos", "--dataset")),
        (["--recipe=photos", "--dataset=digits", "--size=tiny"], ("size", "tiny", "medium")),
        (["--size=large"], ("size=large", "digits")),
        (["--recipe=photos", "--dataset=digits", "--padding=1"], ("30x30", "--image_size=30,30")),
        (["--recipe=photos", "--dataset=digits", "--steps=0"], ("steps", "0")),
    ],
)
def test_the_command_refuses_what_does_not_fit_the_recipe(capsys, flags, mentions):
    check_command_refusal(task.main, ["task", *flags, "--dry_run"], capsys, 2, *mentions)


@pytest.mark.slow
def test_photos_trains_resumes_samples_and_exports(photos, tmp_path, machine, capsys):
    job_dir = tmp_path / "run"
    options = f"--architecture_options={json.dumps(TINY)}"
    flags = ["--recipe=photos", f"--dataset={photos}", f"--job_dir={job_dir}", "--num_metric_samples=20"]
    assert run("train", *flags, options, "--steps=2") == 0
    config = json.loads((job_dir / "config.json").read_text())
    assert (config["size"], config["global_batch_size"], config["steps"]) == ("small", 40, 2)
    machine(1, 22.0)
    capsys.readouterr()
    assert run("train", *flags, "--steps=3") == 0  # without the options of the first command
    again = json.loads((job_dir / "config.json").read_text())
    changed = {name for name in config if config[name] != again[name]}
    assert changed == {"steps"}
    assert (job_dir / "model/saved_model.pb").exists()
    check_command_refusal(task.main, ["task", *flags, "--size=medium"], capsys, 1, "size=small", "size=medium")
    more = f"--dataset={write(tmp_path / 'more', num_images=50)}"
    check_command_refusal(task.main, ["task", *flags, more], capsys, 1, "dataset=")
    assert run("generate", f"--job_dir={job_dir}", "--num_images=4", f"--out={tmp_path}/grid.png") == 0


@pytest.mark.slow
def test_photos_trains_with_labels_on_two_replicas(photos, tmp_path):
    options = f"--architecture_options={json.dumps(TINY)}"
    flags = ["--recipe=photos", f"--dataset={photos}", f"--job_dir={tmp_path / 'run'}", "--model=conditional"]
    assert run("train", *flags, options, "--steps=1", "--metrics=none", "--strategy=mirrored") == 0
    assert json.loads((tmp_path / "run/config.json").read_text())["model"] == "conditional"
    assert recipes.takes_context("photos")

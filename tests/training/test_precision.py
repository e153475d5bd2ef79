"""precision=auto: chosen once, by the processors and the networks; recorded, and kept on every machine."""

import json
import shutil
from pathlib import Path

import keras
import pytest
import tensorflow as tf
from bucket_runs import run
from conftest import TINY_ARCHITECTURES, TINY_MLP, values_of
from keras import layers
from refusals import check_refusal
from test_step import train

from trainer.config import TrainConfig, recipes
from trainer.environment import Environment
from trainer.errors import ConfigError
from trainer.models import with_compute_settings
from trainer.models.factory import create_gan
from trainer.models.registry import MODELS
from trainer.models.validation import has_convolutions
from trainer.models.xla import resolve_jit_compile
from trainer.networks.registry import get as get_architecture
from trainer.storage import RunDirectory
from trainer.training import complete_config, processors, run as training_run
from trainer.training.checkpoint.manifest import MANIFEST
from trainer.training.complete_config import with_machine_settings
from trainer.training.distributed.cluster import parse_cluster
from trainer.training.stored_run import stored_config

XEON = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile amx_int8\nvmx flags\t: vnmi\n"
RELEASE_0_1_0 = Path(__file__).parent.parent / "fixtures/0.1.0/run"


class Gpu:
    def __init__(self, capability):
        self.details = {"device_name": "a GPU"} | ({"compute_capability": capability} if capability else {})


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Returns a function that sets the processors of the machine, and returns whether they support bfloat16."""

    def supports(cpuinfo=XEON, gpus=(), onednn=None):
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: list(gpus))
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: gpu.details)
        monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
        if onednn is not None:
            monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", onednn)
        if cpuinfo is not None:
            (tmp_path / "cpuinfo").write_bytes(cpuinfo.encode("latin-1"))
        return processors.supports_bfloat16(tmp_path / "cpuinfo")

    return supports


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (XEON, True),
        ("flags : fpu avx512f avx512_bf16\n", True),  # Zen 4
        ("flags\t: fpu amx_bf16\n", True),
        ("flags : avx512f avx512bw avx512vl avx512_vnni\n", False),  # Cascade Lake
        ("flags : fpu sse avx avx2 fma\n", False),
        ("flags : fpu avx512_bf16x amx_tile amx_int8 amx_fp16\n", False),
        ("model name : avx512_bf16\nflags : fpu avx2\n", False),
        ("vmx flags : avx512_bf16\nflags : fpu avx2\n", False),
        ("Features : fp asimd bf16 i8mm\n", False),  # Arm
        ("flags :\n", False),
        ("\xff\xfe", False),
        ("", False),
        (None, False),  # not Linux
    ],
)
def test_a_cpu_supports_bfloat16_by_its_flags(machine, cpuinfo, expected):
    assert machine(cpuinfo) == expected


@pytest.mark.parametrize(("value", "expected"), [("0", False), ("false", False), ("1", True), ("", True)])
def test_without_onednn_a_cpu_does_not_support_bfloat16(machine, value, expected):
    assert machine(onednn=value) == expected


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ([(8, 0)], True),
        ([(8, 9), (9, 0)], True),
        ([(10, 0)], True),
        ([(7, 5)], False),
        ([(9, 0), (7, 0)], False),
        ([None], False),
    ],
)
def test_gpus_support_bfloat16_by_their_compute_capability(machine, capabilities, expected):
    assert machine(gpus=[Gpu(capability) for capability in capabilities]) == expected


def chosen(config, can_use_bfloat16, shape=(28, 28, 1)):
    facts = {"can_use_bfloat16": can_use_bfloat16, "input_channels": 3 * (config.model == "pix2pix")}
    config = with_compute_settings(config, shape, 10, **facts)
    return config.precision, config.jit_compile


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_uses_bfloat16_if_the_machine_supports_it_and_else_xla_without_convolutions(name):
    context = recipes.RecipeContext(image_shape=(32, 32, 3), num_images=5000, num_classes=10, size="small")
    config = recipes.get(name, context)
    assert chosen(config, True, (32, 32, 3)) == ("bfloat16", "off")
    assert chosen(config, False, (32, 32, 3)) == ("float32", "on" if config.architecture == "mlp" else "off")


@pytest.mark.parametrize(("recipe", "expected"), [("vanilla", ("bfloat16", "on")), ("digits", ("bfloat16", "off"))])
def test_a_gpu_uses_bfloat16_and_also_xla_without_convolutions(monkeypatch, recipe, expected):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["gpu"])
    assert chosen(recipes.get(recipe), True) == expected


@pytest.mark.parametrize(("precision", "jit_compile"), [("float32", "on"), ("bfloat16", "off")])
def test_the_choice_of_xla_follows_a_stated_precision(precision, jit_compile):
    config = recipes.get("vanilla").override(precision=precision)
    assert chosen(config, True) == (precision, jit_compile)


def test_auto_compiles_networks_without_convolutions():
    dense, convolution = keras.layers.Dense(1), keras.layers.Conv2D(1, 3)
    assert resolve_jit_compile("auto", [dense])
    assert not resolve_jit_compile("auto", [dense], "bfloat16")
    assert not resolve_jit_compile("auto", [dense, convolution])


@pytest.mark.parametrize(("kind", "get"), [("model", MODELS.__getitem__), ("architecture", get_architecture)])
def test_code_of_a_user_computes_in_float32_unless_it_asks_for_bfloat16(monkeypatch, kind, get):
    config = TrainConfig()
    member = get(getattr(config, kind))
    assert chosen(config, True) == ("bfloat16", "off")
    monkeypatch.setattr(member, "__module__", "my_gans")
    assert chosen(config, True) == ("float32", "off")
    assert chosen(config.override(precision="bfloat16"), True) == ("bfloat16", "off")


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.Conv2D(2, 3), True),
        (layers.SeparableConv2D(2, 3), True),
        (layers.DepthwiseConv2D(3), True),
        (layers.Conv2DTranspose(2, 3), True),
        (keras.Sequential([layers.TimeDistributed(layers.Dense(2)), keras.Sequential([layers.Conv1D(2, 1)])]), True),
        (layers.Dense(2), False),
        (keras.Sequential([layers.Flatten(), layers.Dense(2)]), False),
    ],
)
def test_convolutions_of_every_kind_count_at_any_depth(layer, expected):
    assert has_convolutions([keras.Sequential([layer])]) == expected


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("jit_compile", ["on", "off"])
@pytest.mark.parametrize("architecture", ["mlp", "dcgan"])
def test_stated_values_are_used(precision, jit_compile, architecture):
    config = TrainConfig(architecture=architecture, precision=precision, jit_compile=jit_compile)
    assert chosen(config, True) == chosen(config, False) == (precision, jit_compile)


def test_a_choice_takes_no_memory_for_weights():
    options = {"generator_filters": [2**20, 2**20], "generator_strides": [2, 2]}
    config = TrainConfig(architecture_options=options, max_weights=10**14)
    assert chosen(config, True) == ("bfloat16", "off")
    create_gan(TrainConfig(architecture="mlp", architecture_options=TINY_MLP), (28, 28, 1), 10).get_networks()


def test_a_gan_is_compiled_with_a_precision_and_not_with_auto():
    gan = create_gan(TrainConfig(architecture="mlp", architecture_options=TINY_MLP), (28, 28, 1), 10)
    check_refusal(lambda: gan.compile(precision="auto"), ConfigError, "precision", "auto", "float32", "bfloat16")


@pytest.mark.parametrize(
    ("stored", "requested", "expected"),
    [
        (("bfloat16", "off"), {}, ("bfloat16", "off")),
        (("float32", "off"), {}, ("float32", "off")),
        (("float32", "auto"), {}, ("float32", "auto")),  # of an earlier version
        (("bfloat16", "off"), {"precision": "float32"}, ("float32", "off")),
        (("float32", "on"), {"jit_compile": "off", "precision": "bfloat16"}, ("bfloat16", "off")),
        (None, {}, ("auto", "auto")),
    ],
)
def test_a_resumed_run_keeps_what_it_was_started_with(stored, requested, expected):
    config = stored and TrainConfig(metrics="none", precision=stored[0], jit_compile=stored[1])
    config = with_machine_settings(TrainConfig(metrics="none", **requested), Environment(), config)
    assert (config.precision, config.jit_compile) == expected


def test_a_run_of_release_0_1_0_resumes_in_float32():
    with RunDirectory(str(RELEASE_0_1_0)).open() as directory:
        stored = stored_config(directory)
    config = with_machine_settings(TrainConfig(metrics="none"), Environment(), stored)
    assert (config.precision, config.jit_compile) == ("float32", "off")


CLUSTER = Environment(
    cluster=parse_cluster(
        '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "chief", "index": 0}}', None
    )
)


@pytest.mark.parametrize(
    ("environment", "is_supported_here", "of_all_machines", "expected"),
    [
        (CLUSTER, True, [1, 1], True),
        (CLUSTER, True, [1, 0], False),
        (CLUSTER, False, [0, 1], False),
        (CLUSTER, False, [0, 0], False),
        (Environment(), True, None, True),
        (Environment(), False, None, False),
    ],
)
def test_a_job_uses_bfloat16_if_all_machines_support_it(
    monkeypatch, environment, is_supported_here, of_all_machines, expected
):
    exchanged = []
    monkeypatch.setattr(training_run, "supports_bfloat16", lambda: is_supported_here)
    monkeypatch.setattr(
        training_run.consensus, "gather_per_replica", lambda _, number: exchanged.append(number) or of_all_machines
    )
    config = TrainConfig(architecture="dcgan", precision="auto")
    run_of_machine = training_run.Run(config, None, environment, None, None)
    run_of_machine._strategy = None
    precision = run_of_machine._with_checked_networks(config).precision
    assert precision == ("bfloat16" if expected else "float32")
    assert exchanged == ([] if of_all_machines is None else [int(is_supported_here)])


def flags_of(job_dir, steps):
    options = json.dumps(TINY_ARCHITECTURES["dcgan"])
    return [
        *("--recipe=dcgan", f"--architecture_options={options}", "--latent_dim=8", "--global_batch_size=8"),
        *("--metrics=none", "--noexport_model", "--strategy=one_device", "--sample_every_steps=0"),
        *(f"--steps={steps}", f"--job_dir={job_dir}", "--ema_half_life_images=20"),
    ]


@pytest.mark.parametrize("is_supported", [True, False])
def test_a_dry_run_prints_the_choice(tmp_path, monkeypatch, capsys, is_supported):
    monkeypatch.setattr(complete_config, "supports_bfloat16", lambda: is_supported)
    assert run("train", *flags_of(tmp_path / "run", 2), "--dry_run") == 0
    config = json.loads(capsys.readouterr().out)
    assert (config["precision"], config["jit_compile"]) == ("bfloat16" if is_supported else "float32", "off")


@pytest.mark.slow
@pytest.mark.parametrize("started_with", [True, False])
def test_a_run_resumes_with_its_precision_on_another_kind_of_machine(tmp_path, monkeypatch, capsys, started_with):
    def on_machine(supports, job_dir, steps, *flags):
        monkeypatch.setattr(training_run, "supports_bfloat16", lambda: supports)
        assert run("train", *flags_of(job_dir, steps), *flags) == 0
        stored = json.loads((job_dir / "config.json").read_text())
        assert f"in {stored['precision']};" in capsys.readouterr().out
        digest = json.loads((job_dir / f"checkpoints/step-{steps:08d}" / MANIFEST).read_text())["state_sha256"]
        return stored["precision"], stored["jit_compile"], digest

    first = on_machine(started_with, tmp_path / "run", 2)
    assert first[:2] == ("bfloat16" if started_with else "float32", "off")
    shutil.copytree(tmp_path / "run", tmp_path / "moved")
    resumed = on_machine(not started_with, tmp_path / "moved", 4)
    assert resumed == on_machine(started_with, tmp_path / "run", 4)
    assert resumed[:2] == first[:2]
    stated = f"--precision={first[0]}", "--jit_compile=off"
    assert resumed == on_machine(not started_with, tmp_path / "uninterrupted", 4, *stated)


@pytest.mark.slow
def test_replicas_in_bfloat16_have_the_same_bits_in_every_run(digits, two_replicas):
    def trained():
        config = TrainConfig(
            architecture_options=TINY_ARCHITECTURES["dcgan"], latent_dim=8, global_batch_size=16, precision="bfloat16"
        )
        gan = training_run.from_config(config, (28, 28, 1), 10, two_replicas)
        train(gan, digits)
        return gan

    gan, again = trained(), trained()
    for variable in gan.state.values():
        first, second = (value.numpy() for value in two_replicas.experimental_local_results(variable.value))
        assert first.tobytes() == second.tobytes(), variable.path
    assert all(value.tobytes() == values_of(again)[name].tobytes() for name, value in values_of(gan).items())

"""A saved network loads in a process that imports no more than `trainer`."""

import subprocess
import sys
from pathlib import Path

import keras
import pytest

from trainer import networks

_OPTIONS = {"generator_filters": [8, 8], "discriminator_filters": [8, 8], "blocks_per_stage": 1, "group_size": 8}
_LOAD = "model = load_model({file!r}); print('loaded', len(model.weights))"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Path, int]:
    """A saved generator with layers of this package, and its number of weights."""
    generator = networks.build("r3gan", (8, 8, 1), 4, 0, "tanh", _OPTIONS)["generator"]()
    file = tmp_path_factory.mktemp("saved") / "generator.keras"
    generator.save(file)
    return file, len(generator.weights)


def run(*lines: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        ("import trainer", "from keras.models import load_model"),
        ("from keras.models import load_model", "import trainer"),
        (
            "import importlib.util, trainer",
            "importlib.util.find_spec('keras')",
            "from tensorflow.keras.models import load_model",
        ),
        ("from trainer import TrainConfig", "from keras.saving import load_model"),
    ],
    ids=["before Keras", "after Keras", "before TensorFlow", "only a config"],
)
def test_import_trainer_suffices_to_load_a_saved_network(saved, imports):
    file, num_weights = saved
    done = run(*imports, _LOAD.format(file=str(file)))
    assert done.stdout.split() == ["loaded", str(num_weights)], done.stderr


@pytest.mark.slow
def test_without_the_import_the_error_names_the_package(saved):
    done = run("from keras.models import load_model", _LOAD.format(file=str(saved[0])))
    assert done.returncode and "trainer>" in done.stderr and "import" in done.stderr


def test_the_import_waits_for_keras_only_once():
    import trainer

    assert "keras" in sys.modules and keras
    assert not [finder for finder in sys.meta_path if type(finder).__module__ == trainer.__name__]

"""What imports what: importing the package is cheap, and inside it imports point down only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "trainer"

# From top to bottom. A module may import from the layers below its own, and from its own sub-package.
LAYERS = [
    {
        "__main__",
        "task",
        "training",
        "trained",
        "evaluate",
        "generate",
        "export",
        "served",
        "prepare",
        "inspect",
        "local",
        "submit",
        "jobs",
    },
    {"gans"},
    {"callbacks"},
    {"engine"},
    {"losses", "penalties", "augment", "architectures", "data", "metrics", "cloud"},
    {"config", "combinations", "settings", "registry", "recipes", "flags", "storage", "images", "console", "errors"},
]
LAYER_OF = {name: depth for depth, names in enumerate(LAYERS) for name in names}
# In these layers a module may import one beside it as well.
FAMILIAR_LAYERS = {0, len(LAYERS) - 1}


def room_of(path):
    """The top-level module or sub-package that a file of the package, given relative to it, belongs to."""
    return path.parts[0].removesuffix(".py")


# trainer/__init__.py names every layer, and imports each on first use.
FILES = [
    path for path in sorted(file.relative_to(PACKAGE) for file in PACKAGE.rglob("*.py")) if str(path) != "__init__.py"
]


def imports_of(source, path):
    """Yields (line, dotted name) for every import in the source of a file, those inside functions included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            around = ["trainer", *path.parts[:-1]]
            base = [*around[: len(around) + 1 - node.level]] if node.level else []
            base += [node.module] if node.module else []
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)


def violations(source, path):
    """The imports that the layers forbid in the source of a file, a sentence each."""
    importer, found = room_of(path), []
    for line, name in imports_of(source, path):
        package, _, rest = name.partition(".")
        imported = rest.partition(".")[0]
        if package != "trainer" or imported in (importer, "__version__"):
            continue
        if imported not in LAYER_OF:
            problem = "which is in no layer; import from the module that defines it, or give a new module its layer"
        elif LAYER_OF[imported] < LAYER_OF[importer]:
            problem = f"which is above {importer}"
        elif LAYER_OF[imported] == LAYER_OF[importer] and LAYER_OF[importer] not in FAMILIAR_LAYERS:
            problem = f"which stands beside {importer}"
        else:
            continue
        found.append(f"trainer/{path.as_posix()}:{line} imports {name}, {problem}")
    return found


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, trainer; print(*{'absl', 'keras', 'numpy', 'tensorflow'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_module_has_a_layer():
    missing = sorted({room_of(path) for path in FILES} - LAYER_OF.keys())
    assert not missing, f"give {', '.join(missing)} a layer: add each to LAYERS in tests/{Path(__file__).name}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_down(path):
    if room_of(path) in LAYER_OF:
        assert violations((PACKAGE / path).read_text(encoding="utf-8"), path) == []


@pytest.mark.parametrize(
    ("path", "source", "imported"),
    [
        ("engine/loop.py", "def f():\n    from trainer.gans import GAN", "trainer.gans.GAN"),
        ("engine/loop.py", "import trainer.callbacks.samples", "trainer.callbacks.samples"),
        ("engine/loop.py", "from trainer import console, training", "trainer.training"),
        ("engine/loop.py", "from ..gans import base", "trainer.gans.base"),
        ("engine/loop.py", "from .. import gans", "trainer.gans"),
        ("losses.py", "from .metrics import digits", "trainer.metrics.digits"),
        ("cloud/vertex.py", "from trainer import data", "trainer.data"),
        ("storage.py", "from trainer.losses import get", "trainer.losses.get"),
        ("training.py", "from trainer import GAN", "trainer.GAN"),
        ("training.py", "import trainer", "trainer"),
        ("task.py", "from trainer import __version__, training", None),
        ("recipes.py", "from trainer.config import TrainConfig", None),
        (
            "engine/loop.py",
            "import numpy\nfrom . import step\nfrom .step import Phase\nfrom ..data import windows",
            None,
        ),
    ],
)
def test_imports_that_point_elsewhere_are_found(path, source, imported):
    found = violations(source, Path(path))
    assert len(found) == (imported is not None)
    assert imported is None or (path in found[0] and imported in found[0])

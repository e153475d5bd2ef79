"""Imports inside the package point down only, without cycles, and importing the package is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "trainer"

# From top to bottom. A module imports only from lower layers and from its own entry, not from others of its layer.
LAYERS = [
    {"__main__", "task", "testing"},
    {"cli"},
    {"cloud.emulator", "cloud.tuning"},
    {"cloud.jobs"},
    {"cloud.vertex"},
    {"training.configure"},
    {"training.run"},
    {"training.complete_config"},
    {"training.run_state"},
    {"explore"},
    {"report", "sampling", "serving", "training.restore"},
    {"models"},
    {"callbacks"},
    {"environment"},
    {"training"},
    {"data", "metrics", "networks"},
    {"config"},
    {"image_io"},
    {"storage"},
    {"control_group", "heartbeat", "logging", "registry", "signals", "stopwatch"},
    {"errors"},
]
DEPTH_OF = {name: depth for depth, names in enumerate(LAYERS) for name in names}
# trainer/__init__.py names the public members and imports each on first use.
FILES = [
    path for path in sorted(file.relative_to(PACKAGE) for file in PACKAGE.rglob("*.py")) if str(path) != "__init__.py"
]


def module_of(path: Path) -> str:
    """The dotted name of a file of the package, without `trainer.`."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def entry_of(module: str) -> str:
    """The entry of LAYERS that a module belongs to: the longest prefix that is listed."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (prefix := ".".join(parts[:length])) in DEPTH_OF:
            return prefix
    return ""


def imports_of(source: str, path: Path) -> list[tuple[int, str]]:
    """(line, module without `trainer.`) of every import of the package, also inside functions and TYPE_CHECKING."""
    imports = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imports += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ["trainer", *path.parts[:-1]]
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = [*base, *([node.module] if node.module else [])]
            imports += [(node.lineno, ".".join([*base, alias.name])) for alias in node.names]
    inside = [(line, name.removeprefix("trainer.")) for line, name in imports if name.split(".")[0] == "trainer"]
    return [(line, name) for line, name in inside if name != "__version__"]


def violations(source: str, path: Path) -> list[str]:
    """The imports in the source of a file that the layers forbid."""
    importer, problems = entry_of(module_of(path)), []
    for line, name in imports_of(source, path):
        imported = entry_of(name)
        if imported == importer:
            continue
        if not imported:
            problems.append(f"{path}:{line} imports {name}, which is in no layer")
        elif DEPTH_OF[imported] <= DEPTH_OF[importer]:
            problems.append(f"{path}:{line} imports {name}, which is not below {importer}")
    return problems


def test_every_module_is_in_a_layer():
    assert [str(path) for path in FILES if not entry_of(module_of(path)) and module_of(path) != "cloud"] == []


@pytest.mark.parametrize("path", [path for path in FILES if module_of(path) != "cloud"], ids=str)
def test_imports_point_down(path):
    assert violations((PACKAGE / path).read_text(encoding="utf-8"), path) == []


@pytest.mark.parametrize(
    ("path", "source", "count"),
    [
        ("training/loop.py", "def f():\n    from trainer.models import GAN", 1),
        ("training/loop.py", "import trainer.callbacks.sample_grid", 1),
        ("training/loop.py", "from trainer.training import run", 1),
        ("training/loop.py", "from ..models import gan", 1),
        ("metrics/digits.py", "from trainer.data.loading import load", 1),
        ("cloud/emulator/runner.py", "from trainer.cloud.tuning import study_runner", 1),
        ("cloud/vertex/client.py", "from trainer.cloud.jobs import job_spec", 1),
        ("storage/base.py", "from trainer.config import TrainConfig", 1),
        ("models/gan.py", "import trainer", 1),
        (
            "models/gan.py",
            "from trainer.models import losses\nfrom trainer.training.step import Phase\nimport keras",
            0,
        ),
        ("training/run.py", "from trainer.serving import saved_model\nfrom trainer.training import run_state", 0),
    ],
)
def test_the_check_finds_forbidden_imports(path, source, count):
    assert len(violations(source, Path(path))) == count


def test_no_modules_import_each_other_in_a_cycle():
    modules = {module_of(path): path for path in FILES}
    graph = {}
    for module, path in modules.items():
        names = [name for _, name in imports_of((PACKAGE / path).read_text(encoding="utf-8"), path)]
        targets = {name if name in modules else name.rpartition(".")[0] for name in names}
        # A package's __init__ gathers its members; the members import each other, not the package.
        graph[module] = {target for target in targets if target in modules and target != module}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for target in sorted(graph[module]):
                visit(target, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, trainer; print(*{'absl', 'keras', 'numpy', 'tensorflow'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("arguments", [["jobs"], ["prepare", "--help"], ["submit", "--help"], ["local", "--help"]])
def test_help_imports_neither_tensorflow_nor_the_sdk(arguments):
    code = f"""
import sys
from trainer.__main__ import main
main(["gan-trainer", *{arguments}])
sdk = {{"google.cloud.aiplatform", "google.cloud.aiplatform_v1", "google.auth", "google.api_core"}}
print(*(sdk | {{"tensorflow", "keras"}}) & sys.modules.keys(), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == ""

"""A run imports no module that the user did not name, and never one from its own directory."""

import json
import py_compile
import shutil
import sys
import types

import pytest
from bucket_runs import run
from hostile import run_on
from refusals import check_refusal

from trainer.errors import CheckpointError
from trainer.storage import RunDirectory, locate
from trainer.training import restore

pytestmark = pytest.mark.usefixtures("outside")


@pytest.fixture
def module(work, monkeypatch):
    """A custom recipe on the module path. The file `marks` exists after it was imported."""
    (work / "lib").mkdir()
    marks = work / "lib/imported"
    text = (
        "import pathlib\nfrom trainer import recipes\n"
        "pathlib.Path(__file__).with_name('imported').touch()\n"
        "def mine():\n    return recipes.get('vanilla')\n"
    )
    (work / "lib/my_hostile.py").write_text(text)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(work / "lib")
    yield types.SimpleNamespace(name="my_hostile:mine", marks=marks, text=text)
    for name in [name for name in sys.modules if name.startswith("my_hostile")]:
        del sys.modules[name]


def with_recipe(run_dir, recipe):
    config = locate(run_dir) / "config.json"
    content = json.loads(config.read_bytes()) | {"recipe": recipe}
    config.write_bytes(json.dumps(content).encode())


@pytest.mark.parametrize("command", ["generate", "evaluate", "export"])
def test_a_run_in_a_bucket_imports_only_modules_that_the_user_names(command, bucket_run, module, work, refused):
    with_recipe(bucket_run, module.name)
    refused(run_on(command, bucket_run, work), 1, "my_hostile", f"--recipe={module.name}")
    assert not module.marks.exists() and "my_hostile" not in sys.modules


def test_a_run_in_a_bucket_imports_the_module_that_the_user_names(bucket_run, module, work, refused):
    arguments = [f"--job_dir={bucket_run}", "--num_images=1", f"--out={work}/grid.png"]
    with_recipe(bucket_run, module.name)
    refused(run("generate", *arguments, "--recipe=vanilla"), 2, "recipe", module.name)
    refused(run("generate", *arguments, "--recipe=os:getcwd"), 2, "recipe", module.name)
    assert not module.marks.exists()
    assert run("generate", *arguments, f"--recipe={module.name}") == 0
    assert module.marks.exists()


def test_a_mounted_bucket_is_a_bucket(module):
    with pytest.raises(CheckpointError):
        restore._import_recipe(RunDirectory("/gcs/bucket/run"), module.name, None)
    assert not module.marks.exists()


def test_an_embedded_recipe_needs_no_flag(bucket_run, work):
    assert run_on("generate", bucket_run, work) == 0
    assert run("generate", f"--job_dir={bucket_run}", "--recipe=vanilla", "--num_images=1", f"--out={work}/x.png") == 0


def test_a_local_run_imports_a_module_from_elsewhere(local_run, module, work):
    with_recipe(local_run, module.name)
    assert run_on("generate", local_run, work) == 0 and module.marks.exists()


COPIED = {
    "beside the run": ("runs/copied/my_hostile.py", "runs.copied.my_hostile:mine"),
    "above the run": ("runs/my_hostile.py", "runs.my_hostile:mine"),
    "in the run": ("runs/copied/run/my_hostile.py", "runs.copied.run.my_hostile:mine"),
    "in a folder of the run": ("runs/copied/run/logs/my_hostile.py", "runs.copied.run.logs.my_hostile:mine"),
    "in another run": ("runs/copied/other/my_hostile.py", "runs.copied.other.my_hostile:mine"),
    "package with code": ("runs/copied/__init__.py", "runs.copied:mine"),
    "compiled": ("runs/copied/my_hostile.pyc", "runs.copied.my_hostile:mine"),
    "compiled in the run": ("runs/copied/run/my_hostile.pyc", "runs.copied.run.my_hostile:mine"),
    "linked": ("runs/copied/code/my_hostile.py", "my_hostile:mine"),
    "linked folder": ("runs/copied/code/my_hostile.py", "my_hostile_folder.my_hostile:mine"),
}


@pytest.mark.parametrize("kind", COPIED)
def test_a_module_that_was_copied_with_a_run_is_not_imported(kind, trained_run, module, work, monkeypatch):
    cwd, file, recipe = work / "project", *COPIED[kind]
    path = cwd / file
    shutil.copytree(trained_run, cwd / "runs/copied/run")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pyc":
        (work / "x.py").write_text(module.text)
        py_compile.compile(str(work / "x.py"), cfile=str(path))
    else:
        path.write_text(module.text)
    if kind == "linked":
        (cwd / "my_hostile.py").symlink_to(path)
    if kind == "linked folder":
        (cwd / "my_hostile_folder").symlink_to(path.parent)
    (work / "lib/my_hostile.py").unlink()
    monkeypatch.chdir(cwd)
    monkeypatch.syspath_prepend(cwd)
    before = set(sys.modules)
    for root in ("runs/copied/run", f"{cwd}/runs/copied/run", "./runs/../runs/copied/run"):
        check_refusal(
            lambda root=root: restore._import_recipe(RunDirectory(root), recipe, None),
            CheckpointError,
            recipe.partition(":")[0],
        )
    assert not list(work.rglob("imported")) and not [
        name for name in set(sys.modules) - before if "my_hostile" in name or name.startswith("runs.")
    ]
    if " in the run" not in f" {kind}" and "folder of the run" not in kind:
        restore._import_recipe(RunDirectory("runs/copied/run"), recipe, recipe)
        assert list(work.rglob("imported"))
        for name in [name for name in set(sys.modules) - before if name.startswith(("runs", "my_hostile"))]:
            del sys.modules[name]


@pytest.mark.parametrize("recipe", ["os:system", "antigravity:x", "pip.__main__:main", "__main__:x", "idlelib.idle:x"])
def test_a_module_of_python_is_not_imported_for_a_run(recipe, local_run):
    imported = recipe.partition(":")[0] in sys.modules
    check_refusal(lambda: restore._import_recipe(RunDirectory(local_run), recipe, None), CheckpointError, recipe)
    assert (recipe.partition(":")[0] in sys.modules) == imported


def test_own_code_beside_the_runs_is_imported(trained_run, module, work, monkeypatch):
    (work / "project/my_hostile_gans").mkdir(parents=True)
    (work / "project/my_hostile_gans/recipes.py").write_text(module.text)
    shutil.copytree(trained_run, work / "project/runs/run")
    monkeypatch.chdir(work / "project")
    monkeypatch.syspath_prepend(work / "project")
    restore._import_recipe(RunDirectory("runs/run"), "my_hostile_gans.recipes:mine", None)
    assert list(work.rglob("imported"))


@pytest.mark.parametrize("kind", ["module", "package", "module of a package", "namespace", "linked"])
def test_a_module_in_a_run_directory_is_never_imported(kind, local_run, module, work, monkeypatch, refused):
    (work / "lib/my_hostile.py").unlink()
    folder = local_run
    recipe = {"module of a package": "my_hostile.inner:mine", "namespace": "my_hostile.inner:mine"}.get(
        kind, module.name
    )
    file = {
        "module": "my_hostile.py",
        "package": "my_hostile/__init__.py",
        "module of a package": "my_hostile/inner.py",
        "namespace": "my_hostile/inner.py",
        "linked": "my_hostile.py",
    }[kind]
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(module.text)
    if kind == "module of a package":
        (folder / "my_hostile/__init__.py").write_text(module.text)
    if kind == "linked":
        (work / "lib/my_hostile.py").symlink_to(folder / file)
    else:
        monkeypatch.syspath_prepend(folder)
    with_recipe(local_run, recipe)
    for flag in ([], [f"--recipe={recipe}"]):
        refused(
            run("generate", f"--job_dir={local_run}", f"--out={work}/grid.png", "--num_images=1", *flag),
            1,
            "my_hostile",
        )
    assert not list(work.rglob("imported")) and not [name for name in sys.modules if name.startswith("my_hostile")]


@pytest.mark.parametrize("where", ["local", "bucket"])
@pytest.mark.parametrize(
    "recipe", ["../x:f", "/etc/x:f", ".x:f", ":f", "a..b:f", "a\x1b[2J:f", "a\nb:f", "os:a b", "x" * 300 + ":f"]
)
def test_a_recipe_that_is_not_a_module_is_refused(where, recipe, request, work, refused):
    run_dir = request.getfixturevalue(f"{where}_run")
    with_recipe(run_dir, recipe)
    refused(run_on("generate", run_dir, work), 2)


@pytest.mark.parametrize("content", [b"", b"[]", b"7", b"{}[", b"\xff", b'{"recipe": 7}', b'{"recipe": null}'])
@pytest.mark.parametrize("command", ["generate", "train"])
def test_an_invalid_config_is_refused_with_one_line(command, content, local_run, work, refused):
    (local_run / "config.json").write_bytes(content)
    refused(run_on(command, local_run, work))

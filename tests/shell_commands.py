"""Checks of the commands in documents against the programs that they call."""

import importlib
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from absl import flags

from trainer import __main__ as trainer
from trainer.cloud.jobs import job_spec
from trainer.cloud.jobs.arguments import check_args
from trainer.config.flags import with_underscores

ROOT = Path(__file__).parent.parent
NAMES = {"PROJECT": "my-project", "BUCKET": "my-bucket"}
GCLOUD = """
ai custom-jobs create --region --display-name --config [--project]
ai custom-jobs stream-logs NAME --region
ai endpoints create --region --display-name
ai endpoints delete NAME --region
ai endpoints deploy-model NAME --region --model --display-name [--machine-type] [--traffic-split]
ai endpoints raw-predict NAME --region --request
ai endpoints undeploy-model NAME --region --deployed-model-id
ai hp-tuning-jobs create --region --display-name --config [--project]
ai hp-tuning-jobs describe NAME --region
ai models delete NAME --region
ai models upload --region --display-name --container-image-uri [--artifact-uri]
ai tensorboards create --region --display-name
ai tensorboards delete NAME --region
artifacts repositories delete NAME --location
auth login
iam service-accounts delete NAME
projects add-iam-policy-binding NAME --member --role
storage cp NAME NAME [--recursive]
storage rm NAME [--recursive]
"""
"""Usage of the gcloud commands in the documents, from gcloud's reference; optional arguments are in brackets."""
USAGES = {
    tuple(itertools.takewhile(lambda word: not word.startswith(("NAME", "--", "[")), usage.split())): usage
    for usage in GCLOUD.strip().splitlines()
}
"""The lines of `GCLOUD` by their leading words."""


def commands(text: str) -> list[str]:
    """Returns the commands in the bash blocks of a Markdown text, one per line, without comments."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return _commands("".join(blocks))


def commands_of_header(path: Path) -> list[str]:
    """Returns the indented commands in the comments at the top of a file."""
    lines = re.match(r"(?:#.*\n)*", path.read_text())[0].splitlines()
    return _commands("".join(f"{line[4:]}\n" for line in lines if line.startswith("#   ")))


def _commands(script: str) -> list[str]:
    lines = script.replace("\\\n", " ").replace(" && ", "\n").splitlines()
    return [" ".join(line.split()) for line in lines if shlex.split(line, comments=True)]


def check(command: str, folder: Path) -> None:
    """Asserts that the program of a command accepts its arguments, by a dry run where the program has one.

    Args:
        command: One line of a shell.
        folder: Empty folder for temporary files.
    """
    words = shlex.split(command, comments=True)
    if ">" in words:
        words = words[: words.index(">")]
    match words:
        case ["python", "-m", "trainer", name, *arguments]:
            _check_trainer(name, arguments, folder)
        case ["python", "-m", "trainer.task", *arguments]:
            _check_trainer("train", arguments, folder)
        case ["./scripts/train_local.sh", *arguments]:
            _check_trainer("train", arguments, folder)
        case ["./scripts/setup_project.sh", *arguments]:
            assert len([word for word in arguments if word != "--dry_run"]) == 3, command
        case ["./scripts/test.sh"] | ["./scripts/test.sh", "--all"]:
            assert os.access(ROOT / "scripts/test.sh", os.X_OK)
        case [script, *arguments] if script.startswith("./scripts/"):
            _check_script(script, [word for word in arguments if word != "--dry_run"], folder)
        case ["gcloud", *rest]:
            _check_gcloud(rest)
        case ["sed", *rest]:
            _check_sed(rest, folder)
        case ["source", ".venv/bin/activate"]:
            pass
        case ["python", "-c", code]:
            compile(code, command, "exec")
        case ["curl", "http://localhost:8080/predict", "-o", _, "-d", body]:
            assert isinstance(json.loads(body)["instances"], list), command
        case ["pip", "install", "tensorflow[and-cuda]"]:
            assert '"tensorflow>=' in (ROOT / "setup.py").read_text()
        case ["pip", "install", "-e", package]:
            extra = re.fullmatch(r"\.\[(\w+)\]", package)[1]
            assert f'"{extra}": ' in (ROOT / "setup.py").read_text(), package
        case ["python", "-m", "build", "--sdist"]:
            pass
        case ["python", "-m", module, *arguments] if module.startswith("benchmarks."):
            known = re.findall(r'DEFINE_\w+\(\s*"(\w+)"', (ROOT / f"{module.replace('.', '/')}.py").read_text())
            assert {argument[2:].partition("=")[0] for argument in arguments} <= set(known), command
        case ["tensorboard", argument]:
            assert argument.startswith("--logdir=gs://BUCKET/")
        case _:
            raise AssertionError(f"no check exists for this command: {command}")


def _check_trainer(name: str, arguments: list[str], folder: Path) -> None:
    assert name in trainer._COMMANDS, name
    module = importlib.import_module(trainer._COMMANDS[name][0])
    arguments = [_with_names(argument) for argument in arguments]
    if name == "train":
        check_args([argument for argument in arguments if argument not in ("--help", "--dry_run")], "here")
        return
    words = [argument for argument in arguments if not argument.startswith("-")]
    if name == "jobs":
        assert words[0] in module._ACTIONS and len(words) == 1 + (words[0] != "list"), words
        arguments = [argument for argument in arguments if argument.startswith("-")]
    values = flags.FlagValues()
    module.define_flags(values)
    assert values([name, *map(with_underscores, arguments)])[1:] == []
    if name in ("local", "submit"):
        file = _job_file(values.config, folder)
        rest = [argument for argument in arguments if not argument.startswith("--config=") and argument != "--render"]
        assert module.main([name, f"--config={file}", "--dry_run", *rest]) == 0


def _with_names(text: str) -> str:
    """Replaces the placeholders in capitals with names."""
    for placeholder, name in NAMES.items():
        text = text.replace(placeholder, name)
    return text


def _job_file(file: str, folder: Path) -> Path:
    """Returns a copy of a job file without placeholders."""
    text = (ROOT / file).read_text()
    for name, value in NAMES.items():
        text = text.replace(f"${{{name}}}", value)
    (folder / "job.yaml").write_text(text)
    return folder / "job.yaml"


def _check_script(script: str, arguments: list[str], folder: Path) -> None:
    """Runs a script with --dry_run, with a fake gcloud, and checks the command that it prints."""
    for name in ("bash", "cat", "dirname", "mktemp", "rm", "sed"):
        (folder / name).symlink_to(shutil.which(name))
    (folder / "gcloud").write_text("#!/bin/sh\nexit 99\n")
    (folder / "gcloud").chmod(0o755)
    command = ["bash", ROOT / script, "--dry_run", *arguments]
    environ = {**NAMES, "PATH": str(folder), "PYTHON": sys.executable}  # which renders job files
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = shlex.split(done.stdout.splitlines()[-1])
    if Path(script).stem.startswith("submit_"):  # tests/test_scripts.py covers the others
        _check_gcloud(printed[1:])


def _check_gcloud(words: list[str]) -> None:
    path = next((path for path in USAGES if tuple(words[: len(path)]) == path), None)
    assert path is not None, f"GCLOUD has no line for gcloud {' '.join(words)}"
    usage, rest = USAGES[path], words[len(path) :]
    used = [word.partition("=")[0] for word in rest if word.startswith("--")]
    num_names, allowed = usage.count(" NAME"), re.findall(r"--[\w-]+", usage)
    required = [flag for flag in allowed if f"[{flag}]" not in usage]
    num_values = len(rest) - len(used)
    assert num_values == num_names, words
    assert set(required) <= set(used) <= set(allowed), words
    for file in (word.partition("=")[2] for word in rest if word.startswith("--config=")):
        assert file == "job.yaml" or (ROOT / file).is_file(), file


def gcloud_errors(commands: list[str], folder: Path) -> list[str]:
    """Returns the errors that the parser of the installed gcloud has for commands. Nothing is run.

    Args:
        commands: Commands, each a line of a shell.
        folder: Folder for a temporary file.
    """
    file = folder / "commands.json"
    # The parser takes a word after --flag as its value, so flags without a value come last.
    words = [
        sorted(shlex.split(command), key=lambda word: word[:2] == "--" and "=" not in word) for command in commands
    ]
    file.write_text(json.dumps([{"command_string": shlex.join(command)} for command in words]))
    lint = ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={file}"]
    verdicts = json.loads(subprocess.run(lint, capture_output=True, text=True, check=True).stdout)
    assert len(verdicts) == len(set(commands))
    return [
        f"{verdict['command_string']}: {verdict['error_message']}" for verdict in verdicts if not verdict["success"]
    ]


def _check_sed(words: list[str], folder: Path) -> None:
    """Runs sed on copies of the job files and asserts that they have no placeholders left and can be read."""
    for path in (ROOT / "config.yaml", *ROOT.glob("scripts/*.yaml")):
        (folder / path.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy(path, folder / path.relative_to(ROOT))
    subprocess.run(f"sed {shlex.join(words[:-1])} {words[-1]}", shell=True, cwd=folder, check=True)
    for path in (folder / "config.yaml", folder / "scripts/tuning.yaml"):
        text = path.read_text()
        assert "my-bucket" in text and not re.search("PROJECT|BUCKET", text), path
        job_spec.read(path)

"""The `local` command: from a job file to an exit code."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from programs import replica
from refusals import check_refusal
from specs import JOB, PACKAGE, POOL, changed

from trainer import __main__ as commands
from trainer.cloud.emulator import processes, venvs
from trainer.cloud.emulator.processes import ReplicaOutput
from trainer.cloud.emulator.replicas import Replica
from trainer.cloud.jobs import source_package
from trainer.errors import ConfigError, JobError

REPOSITORY = Path(__file__).parents[2]
MODULE = {"imageUri": "image", "command": ["python", "-m", "mine.job"]}
MINE = changed(JOB, workerPoolSpecs__0__containerSpec=MODULE)


@pytest.fixture
def local(tmp_path, monkeypatch, capsys):
    """Runs the command on a job file beside a module `mine.job`; returns exit code, output and errors."""
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)

    def run(content, *flags, source="pass"):
        Path("mine/job.py").write_text(source)
        Path("job.yaml").write_text(yaml.safe_dump(content))
        code = commands.main(["trainer", "local", "--config=job.yaml", *flags])
        return code, *capsys.readouterr()

    return run


def test_a_program_has_only_vertex_ais_environment(local, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "stale")
    monkeypatch.setenv("AIP_MODEL_DIR", "stale")
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "3")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    env = [{"name": "MINE", "value": "1"}]
    content = changed(MINE, workerPoolSpecs__0__containerSpec__env=env)
    source = "import json, os, sys; json.dump([sys.argv[1:], dict(os.environ)], open('environment', 'w'))"
    assert local(content, "--base_output_dir=runs/x", "--args=--a=1,--b", source=source)[0] == 0
    args, environ = json.loads(Path("environment").read_text())
    assert args == ["--a=1", "--b"]
    assert environ["AIP_MODEL_DIR"] == f"{tmp_path}/runs/x/model/" and environ["MINE"] == "1"
    assert "TF_CONFIG" not in environ and "CLOUD_ML_TRIAL_ID" not in environ
    assert environ["STORAGE_EMULATOR_HOST"] == "http://127.0.0.1:1"


def test_the_job_id_in_the_output_folder_is_new(local):
    in_file = MINE | {"baseOutputDirectory": {"outputUriPrefix": "runs/{job_id}/{job_id}"}}
    folders = []
    for content, *flags in [(in_file,), (in_file,), (MINE, "--base_output_dir=gs://bkt/{job_id}/{job_id}")]:
        code, out, _ = local(content, "--dry_run", *flags)
        first, second, model = json.loads(out)[0]["environment"]["AIP_MODEL_DIR"].rstrip("/").split("/")[-3:]
        assert code == 0 and first == second and model == "model" and "{" not in first
        folders.append(first)
    assert len(set(folders)) == 3


@pytest.mark.parametrize(
    ("source", "code", "mention"),
    [
        ("raise SystemExit(7)", 7, "workerpool0-0"),
        ("import os; os.kill(os.getppid(), 15); input()", 143, "SIGTERM"),
        ("import os; os.kill(os.getppid(), 2); import signal; signal.pause()", 130, ""),
    ],
)
def test_the_exit_code_is_that_of_what_ended_the_job(source, code, mention, local):
    exit_code, _, error = local(MINE, "--grace_secs=5", source=source)
    assert exit_code == code and error.startswith("error: ") and error.count("\n") == 1 and mention in error


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_while_packages_are_installed_ends_with_one_sentence(number, code, local, monkeypatch):
    @contextlib.contextmanager
    def install(replicas, project):
        signal.raise_signal(getattr(signal, number))
        yield

    monkeypatch.setattr(venvs, "install_packages", install)
    received, _, stderr = local(MINE, "--base_output_dir=x")
    assert received == code and stderr.startswith("error: ") and stderr.count("\n") == 1


def test_the_last_line_counts_preemptions(local):
    source = "import os, signal\nif os.path.exists('once'): exit()\nopen('once', 'w')\nsignal.pause()"
    code, out, _ = local(MINE, "--preempt_every_secs=0.4", "--max_restarts=50", "--grace_secs=0", source=source)
    entry = json.loads(out.splitlines()[-1])
    assert code == 0 and entry["preemptions"] >= 1 and entry["lost_secs"] > 0


FILES = ["config.yaml", *(f"scripts/{name}.yaml" for name in ("multi_worker", "python_package", "tuning"))]


@pytest.mark.parametrize("file", FILES)
def test_a_dry_run_shows_the_processes_of_each_file(file, capsys):
    assert commands.main(["trainer", "local", f"--config={REPOSITORY / file}", "--dry_run"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown) == (4 if "multi" in file else 1)
    assert shown[0]["name"] == "workerpool0-0" and shown[0]["command"][1:3] == ["-m", "trainer.task"]
    assert shown[0]["environment"]["AIP_CHECKPOINT_DIR"].startswith("gs://BUCKET/runs/")
    assert ("package_uris" in shown[0]) == ("package" in file)


@pytest.mark.parametrize(
    ("flags", "args"),
    [
        (["--args=--a=1,--b"], ["--a=1", "--b"]),
        (["--args=--a=1", "--args=--b"], ["--a=1", "--b"]),
        (["--args=^:^--a=1,2:--b"], ["--a=1,2", "--b"]),
    ],
)
def test_args_are_written_as_for_gcloud(flags, args, local):
    code, out, _ = local(MINE, "--dry_run", *flags)
    assert code == 0 and json.loads(out)[0]["command"][3:] == args


def test_args_of_the_flag_may_contain_variables(local):
    content = changed(MINE, workerPoolSpecs__1=changed(POOL, containerSpec=MODULE | {"args": ["--b"]}))
    code, out, _ = local(content, "--dry_run", "--args=--a=gs://${BUCKET}/${RUN:-x}", "--bucket=mine")
    assert code == 0 and [shown["command"][3:] for shown in json.loads(out)] == [["--a=gs://mine/x"]] * 2


@pytest.mark.parametrize("flags", [["--base_output_dir=/"], []])
def test_the_root_may_be_the_output_folder(flags, local):
    code, out, _ = local(MINE | {"baseOutputDirectory": {"outputUriPrefix": "/"}}, "--dry_run", *flags)
    assert code == 0 and json.loads(out)[0]["environment"]["AIP_MODEL_DIR"] == "/model/"


OWN = changed(JOB, workerPoolSpecs__0__containerSpec__args=["--recipe=mine.recipes:own", "--steps=3.0"])
PROGRAM = PACKAGE | {"pythonModule": "mine.job", "args": ["--other"]}
PACKAGED = {"workerPoolSpecs": [changed(POOL, containerSpec=..., pythonPackageSpec=PROGRAM)]}


@pytest.mark.parametrize("content", [OWN, PACKAGED])
def test_args_that_only_the_program_knows_are_accepted(content, local):
    assert local(content, "--dry_run")[0] == 0


def test_shared_packages_are_installed_once(tmp_path):
    called = []

    def call(command):
        called.append(command)
        return subprocess.CompletedProcess(command, 0, "")

    unpackaged = replica(tmp_path, "")
    packaged = [
        Replica(name=f"workerpool{n}-0", command=("python", "-m", "m"), environment={}, package_uris=("a.whl",))
        for n in range(2)
    ]
    with venvs.install_packages([unpackaged, *packaged], call) as use_venv:
        python = Path(use_venv(packaged[0]).command[0])
        first, second = map(use_venv, packaged)
        assert use_venv(unpackaged) is unpackaged and first.command[-1] == "m" and second.command == first.command
        root = python.parents[3]
        assert root.is_dir()
    assert not root.exists()
    assert called[0][:3] == [sys.executable, "-m", "venv"]
    assert [command[0] for command in called[1:]] == [str(python)] and called[1][-1] == str(Path("a.whl").absolute())


UNBUILT = changed(PACKAGED, workerPoolSpecs__0__pythonPackageSpec__packageUris=...)


def test_no_venv_builds_no_package(local):
    assert local(UNBUILT, "--no_venv", source="raise SystemExit(7)")[0] == 7


def test_a_package_without_an_address_is_built(local, monkeypatch):
    install_packages, called = venvs.install_packages, []

    def call(command):
        called.append((command[-1], Path(command[-1]).read_bytes() if "pip" in command else None))
        return subprocess.CompletedProcess(command, int("pip" in command), "stop here")

    monkeypatch.setattr(venvs, "install_packages", lambda replicas, project: install_packages(replicas, call, project))
    monkeypatch.setattr(source_package, "_build", lambda project: ("mine-1.tar.gz", str(project).encode()))
    assert json.loads(local(UNBUILT, "--dry_run")[1])[0]["package_uris"] == [source_package.TO_BUILD]
    code, out, error = local(UNBUILT, "--package=folder")
    assert code == 1 and "mine-1.tar.gz" in out and "mine-1.tar.gz" in error and "stop here" in error
    assert Path(called[-1][0]).name == "mine-1.tar.gz" and called[-1][1] == b"folder"


def test_a_package_that_cannot_be_installed_is_refused():
    packaged = Replica(name="w", command=("python", "-m", "m"), environment={}, package_uris=("a.whl",))

    def call(command):
        return subprocess.CompletedProcess(command, int("pip" in command), "much\nno such wheel\n")

    def install():
        with venvs.install_packages([packaged], call):
            pass

    check_refusal(install, JobError, "a.whl", "no such wheel")


def test_a_program_of_a_package_works_in_the_current_folder(local, monkeypatch):
    source = "import sys\nfrom mine import name\nopen('output', 'w').write(f'{name} {sys.argv[1:]}')"

    def call(command):
        if "pip" in command:
            installed = next(Path(command[0]).parents[1].glob("lib/python*/site-packages")) / "mine"
            installed.mkdir()
            (installed / "__init__.py").write_text("name = 'installed'")
            (installed / "job.py").write_text(source)
            return subprocess.CompletedProcess(command, 0, "")
        return venvs.run_command([*command, "--without-pip"])

    install_packages = venvs.install_packages
    monkeypatch.setattr(venvs, "install_packages", lambda replicas, project: install_packages(replicas, call, project))
    Path("a.whl").touch()
    content = changed(UNBUILT, workerPoolSpecs__0__pythonPackageSpec__packageUris=["a.whl"])
    assert local(content, "--args=--a=1,--b", source="raise SystemExit(7)")[0] == 0
    assert Path("output").read_text() == "installed ['--a=1', '--b']"


def test_a_missing_package_is_refused(tmp_path):
    package = str(tmp_path / "a.whl")
    packaged = replace(replica(tmp_path, ""), package_uris=(package,))
    check_refusal(lambda: venvs.check_packages([packaged]), ConfigError, package)


def test_a_package_ignores_the_python_variables(tmp_path):
    outer = {"PYTHONPATH": "x", "VIRTUAL_ENV": "y", "HOME": "z", "CLUSTER_SPEC": "{}"}
    unpackaged = replica(tmp_path, "")
    packaged = Replica(name="w", command=(), environment={}, package_uris=("a.whl",))
    assert processes.build_environment(unpackaged, outer) == {
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": "x",
        "VIRTUAL_ENV": "y",
        "HOME": "z",
    }
    assert processes.build_environment(packaged, outer) == {"PYTHONUNBUFFERED": "1", "HOME": "z"}


_LOG_LEVEL_OF_A_REPLICA = """
from trainer.logging import quiet_import
with quiet_import():
    from trainer.cloud.emulator import processes, replicas
replica = replicas.Replica(name="w", command=(), environment={}, package_uris=())
print(processes.build_environment(replica).get("TF_CPP_MIN_LOG_LEVEL"))
"""


@pytest.mark.parametrize("level", [None, "1"])
def test_replicas_inherit_the_log_level_only_from_the_user(level):
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {} if level is None else {"TF_CPP_MIN_LOG_LEVEL": level}
    command = [sys.executable, "-c", _LOG_LEVEL_OF_A_REPLICA]
    assert subprocess.run(command, env=environment, check=True, capture_output=True).stdout.split() == [
        str(level).encode()
    ]


@pytest.mark.parametrize("no_color", [None, "", "1"])
def test_a_terminal_shows_severity_and_message(monkeypatch, capsys, no_color):
    monkeypatch.setattr(processes, "is_terminal", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    log = ReplicaOutput(["chief", "w"])
    for line in ('{"severity": "INFO", "message": "hello", "step": 3}', '{"step": 3}', "{no JSON", "plain"):
        log.write_line("w", line)
    prefix = "w     | " if no_color else "\x1b[33mw     |\x1b[0m "
    assert capsys.readouterr().out.splitlines() == [
        prefix + line for line in ("INFO hello", '{"step": 3}', "{no JSON", "plain")
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"severity": "INFO", "message": "a", "step": 3}', {"severity": "INFO", "message": "a", "step": 3}),
        ('{"loss": NaN, "replica": "mine"}', {"loss": "NaN"}),
        ('{"a": 1, "a": 2}', {"severity": "DEFAULT", "message": '{"a": 1, "a": 2}'}),
        ("{no JSON", {"severity": "DEFAULT", "message": "{no JSON"}),
        ("[1]", {"severity": "DEFAULT", "message": "[1]"}),
        ("{}", {"severity": "DEFAULT", "message": "{}"}),
    ],
)
def test_redirected_lines_are_json_with_their_replica(capsys, line, expected):
    ReplicaOutput(["chief"], "trial 3 ").write_line("chief", line)
    entry = json.loads(capsys.readouterr().out, parse_constant=str)
    assert expected.items() <= entry.items() and entry["replica"] == "trial 3 chief"


def test_output_that_cannot_be_printed_is_escaped(tmp_path):
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(MINE))
    (tmp_path / "mine").mkdir()
    source = "import os, time\nfor _ in range(3): os.write(1, '\\xe9\\n'.encode()); time.sleep(.1)"
    (tmp_path / "mine/job.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "local", "--config=job.yaml"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{REPOSITORY}", "PATH": "/usr/bin:/bin", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["message"] for line in done.stdout.splitlines()] == ["é"] * 3


def test_a_job_ends_when_its_output_is_closed(tmp_path):
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(MINE))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/job.py").write_text("import time\nwhile True: print('line'); time.sleep(.01)")
    command = [sys.executable, "-m", "trainer", "local", "--config=job.yaml"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": f"{REPOSITORY}", "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert json.loads(process.stdout.readline())["message"] == "line"
        process.stdout.close()
        assert "SIGPIPE" in process.stderr.read()
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_job_ends_with_one_sentence_when_its_output_cannot_be_written(tmp_path):
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(MINE))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/job.py").write_text("import time\nwhile True: print('line'); time.sleep(.01)")
    command = [sys.executable, "-m", "trainer", "local", "--config=job.yaml"]
    environ = {"PYTHONPATH": f"{REPOSITORY}", "PATH": "/usr/bin:/bin"}
    with Path("/dev/full").open("w") as stdout:
        done = subprocess.run(command, cwd=tmp_path, env=environ, stdout=stdout, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert os.strerror(errno.ENOSPC) in done.stderr


@pytest.mark.slow
def test_a_dry_run_with_closed_output_is_silent(tmp_path):
    unread, output = os.pipe()
    os.close(unread)
    command = [sys.executable, "-m", "trainer", "local", f"--config={REPOSITORY}/config.yaml", "--dry_run"]
    with os.fdopen(output) as stdout:
        done = subprocess.run(command, cwd=REPOSITORY, stdout=stdout, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")

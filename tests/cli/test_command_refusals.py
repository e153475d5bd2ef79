"""Refused commands: the exit code, one line on stderr, and no files after bad flags."""

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import TINY_MLP
from refusals import check_command_refusal

import trainer
import trainer.__main__ as commands
from trainer import task

TINY = [
    *("--recipe=vanilla", f"--architecture_options={json.dumps(TINY_MLP)}", "--latent_dim=8", "--jit_compile=off"),
    *("--global_batch_size=16", "--strategy=one_device", "--metrics=none", "--steps=6", "--noexport_model"),
]
DIVERGING = ["--generator_learning_rate=1e30", "--discriminator_learning_rate=1e30", "--steps=40"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of a finished run of a conditional GAN."""
    job_dir = tmp_path_factory.mktemp("runs") / "tiny"
    flags = [*TINY, "--recipe=cgan", "--architecture=mlp", "--steps=2", "--sample_every_steps=0"]
    assert task.main(["task", f"--job_dir={job_dir}", *flags]) == 0
    return job_dir


def content(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("flags", "mentions"),
    [
        (["--setps=3"], ("setps", "--steps")),
        (["--nobalance_classes=1"], ("nobalance_classes=1",)),
        (["--recipe=json:loads"], ("recipe", "json:loads", "TrainConfig")),
        (["--recipe=os:urandom"], ("recipe", "os:urandom", "TrainConfig")),
        (["--job_dir"], ("--job_dir=",)),
        (["--steps=3.5"], ("steps", "3.5")),
        (["steps=3"], ("steps=3", "--")),
        (["--recipe=vanila"], ("recipe", "vanila", "vanilla")),
        (["--global_batch_size=0"], ("global_batch_size", "0")),
        (["--padding=-1"], ("padding", "-1")),
        (["--global_batch_size=33", "--strategy=mirrored", "--num_virtual_devices=2"], ("33", "2", "32", "34")),
        (["--dataset=mnits"], ("mnits", "mnist")),
        (["--classes=11"], ("classes", "11", "10", "digits")),
        (["--classes=3,3"], ("classes", "3,3")),
        (["--classes=a,b"], ("classes", "'a'", "digits")),
        (["--dataset=fashion_mnist", "--classes=sneakr"], ("classes", "sneakr", "sneaker", "fashion_mnist")),
        (["--loss=hing"], ("loss", "hing", "hinge")),
        (["--penalties=r1,r3"], ("penalty", "r3", "gradient_penalty")),
        (["--augment=adda"], ("augmentation", "adda", "ada")),
        (['--architecture_options={"droput": 1}'], ("mlp", "droput", "dropout")),
        (['--architecture_options={"generator_units": 256}'], ("generator_units", "256")),
        (["--metrics=cycle"], ("metrics", "cycle", "model", "gan")),
        (["--recipe=cyclegan", "--metrics=stacked"], ("metrics", "stacked", "model", "cyclegan")),
        (["--model=cyclegan"], ("model", "cyclegan", "dataset_b", "None")),
        (["--dataset_b=digits"], ("dataset_b", "digits", "model")),
        (["--strategy=multi_worker"], ("strategy", "multi_worker", "TF_CONFIG")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_flags_exit_with_2_and_leave_no_run(flags, mentions, tmp_path, capsys):
    argv = ["task", f"--job_dir={tmp_path / 'run'}", *TINY, *flags]
    check_command_refusal(task.main, argv, capsys, 2, *mentions)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["prepare", "inspect", "evaluate", "generate", "export", "report", "explore"])
def test_a_path_without_a_flag_is_named_before_missing_flags(command, capsys):
    check_command_refusal(commands.main, ["trainer", command, "my photos"], capsys, 2, "my photos", "--name=value")


def test_an_unknown_command_suggests_the_nearest_one(capsys):
    assert commands.main(["trainer", "trian"]) == 2
    assert "did you mean train?" in capsys.readouterr().err


def test_the_version_is_printed(capsys):
    assert commands.main(["trainer", "--version"]) == 0
    assert capsys.readouterr().out.split() == ["gan-trainer", trainer.__version__]


def test_the_version_is_no_traceback_on_a_full_disk():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "trainer", "--version"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr


def test_the_next_command_after_prepare_quotes_paths(tmp_path, capsys):
    rng, source, out = np.random.default_rng(0), tmp_path / "pixels.npy", tmp_path / "my photos"
    np.save(source, rng.integers(0, 256, (4, 8, 8, 1), np.uint8))
    assert commands.main(["trainer", "prepare", f"--source={source}", f"--out={out}"]) == 0
    command = json.loads(capsys.readouterr().out.splitlines()[-1])["message"]
    assert shlex.split(command)[-2:] == [f"--dataset={out}", "--job_dir=runs/my photos"]


COMMANDS = ("train", "prepare", "merge", "inspect", "evaluate", "generate", "export", "local", "submit", "jobs")
FLAGS_OF_ABSL = {
    "undefok": (["--undefok=foo", "--foo=1"], ["--undefok", "foo"], ["-undefok=foo"], ["--undefok"], ["--undefok="]),
    "flagfile": (["--flagfile=/etc/hostname"], ["--flagfile="], ["-flagfile", "/etc/hostname"], ["--flagfile"]),
    "help": (["--help=xml"], ["--help="], ["-help=true"]),
    **{name: ([f"--{name}"], [f"-{name}=1"]) for name in ("helpxml", "helpfull", "only_check_args", "logtostderr")},
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_special_flags_of_absl_are_refused(command, capsys):
    for name, lines in FLAGS_OF_ABSL.items():
        for flags in lines:
            check_command_refusal(commands.main, ["gan-trainer", command, *flags], capsys, 2, f"--{name} ", "--help")


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e999"])
def test_float_flags_are_finite_numbers(number, capsys):
    prepare = ["prepare", "--source=x", "--out=y"]
    for *argv, name in [
        (*prepare, "max_aspect_ratio"),
        (*prepare, "shard_mib"),
        ("batch", "--model=m", "--out=x", "truncation"),
        ("generate", "--job_dir=x", "--out=x.png", "walk"),
        ("local", "--config=x", "grace_secs"),
        ("local", "--config=x", "preempt_every_secs"),
        ("serve", "grace_secs"),
        ("report", "--job_dir=x", "price_per_hour"),
        ("train", "--job_dir=x", "generator_learning_rate"),
    ]:
        check_command_refusal(commands.main, ["gan-trainer", *argv, f"--{name}={number}"], capsys, 2, f"--{name}=")


@pytest.mark.parametrize(
    ("flags", "mentions"),
    [
        (["--job_dir=/dev/null/run"], ("job_dir", "/dev/null/run")),
        (["--metrics=stacked"], ("stacked", "[28, 28, 1]")),
        (DIVERGING, ("steps",)),
    ],
    ids=["no folder", "metrics of other data", "diverging"],
)
def test_other_errors_of_training_exit_with_1(flags, mentions, tmp_path, capsys):
    check_command_refusal(task.main, ["task", f"--job_dir={tmp_path / 'run'}", *TINY, *flags], capsys, 1, *mentions)
    assert (tmp_path / "run").exists() == (flags is DIVERGING)


@pytest.mark.parametrize(
    ("flags", "mentions"),
    [
        (["--loss=hinge", "--steps=9"], ("job_dir", "non_saturating", "hinge")),
        (["--resume=never", "--steps=9"], ("job_dir", "resume", "never", "2")),
    ],
    ids=["another loss", "never resumed"],
)
def test_the_directory_of_another_run_is_refused_and_kept(flags, mentions, finished, capsys):
    before = content(finished)
    base = [*TINY, "--recipe=cgan", "--architecture=mlp"]
    check_command_refusal(task.main, ["task", f"--job_dir={finished}", *base, *flags], capsys, 1, *mentions)
    assert content(finished) == before


def test_checkpoints_without_a_config_are_resumed_unless_resume_is_never(finished, tmp_path, capsys):
    job_dir = shutil.copytree(finished, tmp_path / "run")
    (job_dir / "config.json").unlink()
    before, flags = content(job_dir), [*TINY, "--recipe=cgan", "--architecture=mlp", "--steps=3"]
    command = ["task", f"--job_dir={job_dir}", *flags]
    check_command_refusal(task.main, [*command, "--resume=never"], capsys, 1, str(job_dir), "never", "2")
    assert content(job_dir) == before
    assert task.main(command) == 0
    assert "Resumed at step 2" in capsys.readouterr().out and (job_dir / "config.json").exists()


@pytest.mark.parametrize(
    ("environment", "mentions"),
    [
        ("{", ("TF_CONFIG", "JSON")),
        (
            {"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "evaluator", "index": 0}},
            ("evaluator", "pool"),
        ),
    ],
    ids=["no JSON", "evaluator"],
)
def test_a_cluster_that_cannot_be_is_refused(environment, mentions, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TF_CONFIG", environment if isinstance(environment, str) else json.dumps(environment))
    flags = [flag for flag in TINY if "strategy" not in flag]
    check_command_refusal(task.main, ["task", f"--job_dir={tmp_path}", *flags], capsys, 2, *mentions)


def test_an_unknown_command_is_refused(capsys):
    assert commands.main(["trainer", "genrate"]) == 2
    error, *listed = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and "genrate" in error
    assert any("generate" in line for line in listed)


@pytest.mark.parametrize(
    ("command", "flags", "exit_code", "mentions"),
    [
        ("generate", ["--out=grid.png", "--checkpoint=77"], 1, ("checkpoint", "77", "2")),
        ("generate", ["--out=grid.png", "--checkpoint=newest"], 2, ("checkpoint", "newest", "best", "latest")),
        ("generate", ["--out=grid.png", "--label=10"], 2, ("label", "10", "9")),
        ("evaluate", ["--metrics=cycle"], 2, ("metrics", "cycle")),
        ("evaluate", ["--metrics=stacked"], 1, ("stacked",)),
        ("evaluate", [], 2, ("metrics",)),
        ("export", ["--out={job_dir}/samples"], 2, ("out", "{job_dir}/samples")),
        ("export", ["--out={job_dir}/config.json"], 2, ("out", "{job_dir}/config.json")),
        ("export", ["--out={job_dir}/config.json/x"], 1, ("{job_dir}/config.json/x",)),
        ("export", [], 2, ("--out=",)),
        ("generate", [], 2, ("--out=",)),
        ("generate", ["--out=x.png", "--num_images=9999999999"], 2, ("num_images", "9999999999")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_run_does_not_have_is_refused(command, flags, exit_code, mentions, finished, tmp_path, capsys, request):
    request.getfixturevalue("monkeypatch").chdir(tmp_path)
    flags, mentions = ([text.format(job_dir=finished) for text in texts] for texts in (flags, mentions))
    argv = ["trainer", command, f"--job_dir={finished}", *flags]
    check_command_refusal(commands.main, argv, capsys, exit_code, *mentions)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "make", [lambda path: path.touch(), lambda path: path.symlink_to("nowhere")], ids=["file", "link"]
)
def test_what_stands_in_the_place_of_the_checkpoints_is_named(make, tmp_path, capsys):
    make(tmp_path / "checkpoints")
    flags = [f"--job_dir={tmp_path}", *TINY, "--steps=1"]
    check_command_refusal(task.main, ["task", *flags], capsys, 1, str(tmp_path / "checkpoints"))


@pytest.mark.parametrize("name", ["config.json", "lease.json", "checkpoints"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/null")], ids=["pipe", "device"])
def test_what_is_no_file_of_a_run_is_named_and_stays(make, name, tmp_path, capsys):
    make(tmp_path / name)
    mode = (tmp_path / name).lstat().st_mode
    flags = [f"--job_dir={tmp_path}", *TINY, "--steps=1"]
    check_command_refusal(task.main, ["task", *flags], capsys, 1, str(tmp_path), name)
    assert (tmp_path / name).lstat().st_mode == mode


def generate(job_dir, out):
    return ["trainer", "generate", f"--job_dir={job_dir}", "--num_images=4", f"--out={out}"]


def test_a_directory_without_a_run_is_refused(tmp_path, capsys):
    argv = generate(tmp_path, tmp_path / "grid.png")
    check_command_refusal(commands.main, argv, capsys, 1, "job_dir", str(tmp_path), "config.json")


@pytest.mark.parametrize(("name", "reason"), [("absent", "not exist"), ("file", "not a folder"), ("empty", "no run")])
def test_a_run_that_is_not_there_is_refused_with_the_reason(name, reason, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    job_dir = tmp_path / name
    transfer = ["task", "--recipe=vanilla", f"--job_dir={tmp_path}/new", f"--init_from={job_dir}"]
    for argv in (generate(job_dir, tmp_path / "grid.png"), ["trainer", "report", f"--job_dir={job_dir}"]):
        check_command_refusal(commands.main, argv, capsys, 1, str(job_dir), reason)
    check_command_refusal(task.main, transfer, capsys, 1, str(job_dir), reason)


def test_the_folder_of_a_study_is_refused_with_the_name_of_a_trial(tmp_path, capsys):
    (tmp_path / "study/1").mkdir(parents=True)
    (tmp_path / "study/1/config.json").touch()
    argv = generate(tmp_path / "study", tmp_path / "grid.png")
    check_command_refusal(commands.main, argv, capsys, 1, "job_dir", f"{tmp_path}/study/1")


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        (None, "recipe"),
        ({"recipe": "dcgan"}, "model"),
        *(({name: None}, name) for name in ("architecture", "dataset", "metrics", "steps", "latent_dim", "seed")),
        ({"steps": "9"}, "steps"),
    ],
    ids=str,
)
def test_a_config_without_what_every_run_has_is_refused(changes, missing, finished, tmp_path, capsys):
    stored = json.loads((finished / "config.json").read_text())
    if changes is None or changes == {"recipe": "dcgan"}:
        config = changes or {}
    else:
        config = {name: value for name, value in (stored | changes).items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    argv = generate(tmp_path, tmp_path / "grid.png")
    check_command_refusal(commands.main, argv, capsys, 1, str(tmp_path / "config.json"), missing)


@pytest.fixture
def never_restored(monkeypatch):
    """Fails the test if a run is restored."""

    def restore(job_dir, checkpoint):
        raise AssertionError("the run was restored")

    monkeypatch.setattr("trainer.training.restore.restore", restore)


@pytest.mark.parametrize(
    ("out", "mentions"),
    [
        ("grid.jpg", (".png", ".npz")),
        ("gs://bucket/grid.jpg", (".png", ".npz")),
        ("nowhere/grid.png", ("nowhere",)),
        ("folder.npz", ("folder.npz",)),
        ("locked/grid.png", ("locked",)),
    ],
)
def test_a_bad_output_is_refused_before_the_work(out, mentions, never_restored, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.access", lambda folder, mode: os.path.basename(folder) != "locked")
    for name in ("folder.npz", "locked"):
        (tmp_path / name).mkdir()
    check_command_refusal(commands.main, generate("run", out), capsys, 2, "out", out, *mentions)


@pytest.mark.parametrize("name", ["grid.png", "samples.npz", "samples.zip"])
def test_an_output_that_cannot_be_written_after_all_is_refused(name, finished, tmp_path, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("trainer.storage.local.write_atomically", full)
    monkeypatch.setattr("trainer.storage.local.shutil.copyfileobj", full)
    mentions = (str(tmp_path / name), "No space left")
    check_command_refusal(commands.main, generate(finished, tmp_path / name), capsys, 1, *mentions)

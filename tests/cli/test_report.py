"""The `report` command."""

import json
import os
import shutil

import pytest
from refusals import check_command_refusal
from report_runs import content_of, make_run

import trainer.__main__ as commands
from trainer.storage import locate
from trainer.storage.gcs import BucketLocation


def report(*arguments):
    return commands.main(["trainer", "report", *arguments])


def test_a_run_gets_its_page_in_its_directory(tmp_path, capsys):
    make_run(tmp_path / "run")
    assert report(f"--job_dir={tmp_path}/run") == 0
    assert f"{tmp_path}/run/report.html" in capsys.readouterr().out
    content = content_of((tmp_path / "run/report.html").read_bytes())
    assert content["kind"] == "run" and content["runs"][0]["name"] == f"{tmp_path}/run"


def test_a_page_goes_to_the_file_that_is_named(tmp_path):
    make_run(tmp_path / "run")
    assert report(f"--job_dir={tmp_path}/run", f"--out={tmp_path}/page.html", "--price_per_hour=3.6") == 0
    (run,) = content_of((tmp_path / "page.html").read_bytes())["runs"]
    assert run["cost"]["price"] == pytest.approx(0.2) and not (tmp_path / "run/report.html").exists()


def test_several_runs_are_compared(tmp_path):
    flags = [f"--job_dir={make_run(tmp_path / name, seed=seed)}" for name, seed in (("b", 2), ("a", 1), ("b c", 3))]
    assert report(*flags, flags[0], f"--out={tmp_path}/page.html") == 0
    content = content_of((tmp_path / "page.html").read_bytes())
    assert content["kind"] == "comparison" and content["differing"] == ["seed"]
    assert [run["name"] for run in content["runs"]] == [f"{tmp_path}/{name}" for name in ("b", "a", "b c")]


def test_a_run_is_compared_once_whichever_way_its_path_is_written(tmp_path, bucket):
    folder = make_run(tmp_path / "study/1")
    (tmp_path / "link").symlink_to("study/1")
    spellings = ("study/1", "study/1/", "study/../study/1", "link", "study")
    flags = [f"--job_dir={tmp_path}/{name}" for name in spellings]
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    locate(f"{bucket}/run").upload(folder, names)
    assert report(*flags, f"--job_dir={bucket}/run", f"--job_dir={bucket}/run/", f"--out={tmp_path}/page.html") == 0
    content = content_of((tmp_path / "page.html").read_bytes())
    assert [run["name"] for run in content["runs"]] == [f"{tmp_path}/study/1", f"{bucket}/run"]


@pytest.mark.parametrize("prefix", ["", "trial_"])
def test_the_runs_of_a_study_are_compared_in_the_order_of_their_numbers(prefix, tmp_path):
    for number in (10, 9, 1):
        make_run(tmp_path / f"study/{prefix}{number}", seed=number)
    (tmp_path / "study/trials.json").write_text("{}")
    (tmp_path / "study/notes").mkdir()
    assert report(f"--job_dir={tmp_path}/study") == 0
    content = content_of((tmp_path / "study/report.html").read_bytes())
    assert [run["differing"] for run in content["runs"]] == [{"seed": "1"}, {"seed": "9"}, {"seed": "10"}]


def test_runs_in_a_bucket_have_reports(tmp_path, bucket):
    for number in (1, 2):
        folder = make_run(tmp_path / str(number), seed=number)
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        locate(f"{bucket}/study/{number}").upload(folder, names)
    assert report(f"--job_dir={bucket}/study/1") == 0
    (run,) = content_of((locate(bucket) / "study/1/report.html").read_bytes())["runs"]
    assert len(run["pictures"]["grids"]) == 3 and run["sessions"][0]["reason"] == "finished" and run["metrics"]
    assert report(f"--job_dir={bucket}/study", f"--out={tmp_path}/page.html") == 0
    assert len(content_of((tmp_path / "page.html").read_bytes())["runs"]) == 2


def test_only_the_pictures_on_the_page_are_downloaded(tmp_path, bucket, monkeypatch):
    monkeypatch.setattr("trainer.report.pictures.MAX_GRIDS", 3)
    for number in (1, 2):
        folder = make_run(tmp_path / str(number), seed=number, grids=(0, 50, 100, 150, 200))
        (folder / "neighbors.png").write_bytes((folder / "samples/step-00000000.png").read_bytes())
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        locate(f"{bucket}/study/{number}").upload(folder, names)
    downloaded, plain = [], BucketLocation.download

    def download(self, files, **options):
        downloaded.extend(files)
        plain(self, files, **options)

    monkeypatch.setattr(BucketLocation, "download", download)
    others = ["config.json", "events.jsonl", "metrics.jsonl"]
    for name, pictures in (
        ("study/1", ["neighbors.png", *(f"samples/step-00000{step}.png" for step in ("000", "100", "200"))]),
        ("study", [f"samples/step-00000{step}.png" for step in ("100", "100", "200", "200")]),
    ):
        downloaded.clear()
        assert report(f"--job_dir={bucket}/{name}", f"--out={tmp_path}/page.html") == 0
        runs = content_of((tmp_path / "page.html").read_bytes())["runs"]
        assert sorted(downloaded) == sorted([*others * len(runs), *pictures])
        assert sum(len(run["pictures"]["grids"]) for run in runs) == len(set(pictures) - {"neighbors.png"}) * len(runs)


def damaged(folder):
    make_run(folder)
    (folder / "config.json").write_text("{")


def with_pipe(folder):
    make_run(folder)
    (folder / "metrics.jsonl").unlink()
    os.mkfifo(folder / "metrics.jsonl")


def with_report_pipe(folder):
    make_run(folder)
    os.mkfifo(folder / "report.html")


REFUSED = {
    "a page that is a pipe": (["--job_dir={0}/report_pipe"], 1, ("{0}/report_pipe/report.html",)),
    "an output that is a device": (["--job_dir={0}/run", "--out={0}/device.html"], 2, ("out", "{0}/device.html")),
    "no job_dir": ([], 2, ("job_dir",)),
    "an empty folder": (["--job_dir={0}/empty"], 1, ("{0}/empty", "config.json")),
    "a missing folder": (["--job_dir={0}/missing"], 1, ("job_dir",)),
    "an empty bucket folder": (["--job_dir={1}/nothing"], 1, ("{1}/nothing",)),
    "one missing of two": (["--job_dir={0}/run", "--job_dir={0}/missing", "--out={0}/x.html"], 1, ("job_dir",)),
    "several without out": (["--job_dir={0}/run", "--job_dir={0}/damaged"], 2, ("--out",)),
    "an unknown extension": (["--job_dir={0}/run", "--out={0}/x.pdf"], 2, ("out", "x.pdf")),
    "below a file": (["--job_dir={0}/run", "--out={0}/run/config.json/x.html"], 2, ("{0}/run/config.json", " a file")),
    "a folder that does not exist": (["--job_dir={0}/run", "--out={0}/no/x.html"], 2, ("out", "{0}/no")),
    "a damaged config": (["--job_dir={0}/damaged"], 1, ("config.json",)),
    "scalars that are a pipe": (["--job_dir={0}/pipe"], 1, ("metrics.jsonl",)),
    "a negative price": (["--job_dir={0}/run", "--price_per_hour=-1"], 2, ("price_per_hour", "-1")),
    "a price that is no number": (["--job_dir={0}/run", "--price_per_hour=nan"], 2, ("price_per_hour", "nan")),
    "an endless price": (["--job_dir={0}/run", "--price_per_hour=inf"], 2, ("price_per_hour", "inf")),
    "another storage": (["--job_dir=s3://bucket/run"], 2, ("s3://bucket/run",)),
    "an empty name": (["--job_dir="], 2, ("path",)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_with_one_sentence(tmp_path, bucket, capsys, name):
    make_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    damaged(tmp_path / "damaged")
    with_pipe(tmp_path / "pipe")
    with_report_pipe(tmp_path / "report_pipe")
    (tmp_path / "device.html").symlink_to("/dev/null")
    flags, code, mentions = REFUSED[name]
    before = sorted(tmp_path.rglob("*"))
    places = tmp_path, bucket
    arguments = [flag.format(*places) for flag in flags]
    check_command_refusal(
        commands.main, ["trainer", "report", *arguments], capsys, code, *(text.format(*places) for text in mentions)
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_too_many_runs_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("trainer.report.comparison.MAX_RUNS", 2)
    make_run(tmp_path / "study/1")
    for number in (2, 3):
        shutil.copytree(tmp_path / "study/1", tmp_path / f"study/{number}")
    check_command_refusal(commands.main, ["trainer", "report", f"--job_dir={tmp_path}/study"], capsys, 2, "3", "2")


def test_a_folder_of_damaged_lines_still_has_a_page(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "metrics.jsonl").write_bytes(b"\0\xff\n" + (folder / "metrics.jsonl").read_bytes() + b'{"step": 5')
    assert report(f"--job_dir={folder}") == 0
    (run,) = content_of((folder / "report.html").read_bytes())["runs"]
    assert len(run["warnings"]) == 1 and json.dumps(run["tables"])

"""Run directories for tests of reports, written without training."""

import json

import numpy as np
from PIL import Image

from trainer.config import recipes
from trainer.storage.run_directory import sample_grid_name

START = 1_750_000_000.0
MONITOR = "metric/frechet_digits_100"


def make_run(folder, *, num_lines=20, every_steps=10, grids=(0, 100, 200), evaluations=None, events=None, **changes):
    """Writes a run of a line each `every_steps` steps and 10 seconds. Returns its folder.

    Args:
        folder: Folder to create.
        num_lines: Number of lines of scalars.
        every_steps: Steps between two lines.
        grids: Steps of the sample grids.
        evaluations: Value of the monitored metric by step; a falling one by default.
        events: Lines of `events.jsonl`; one finished session by default.
        **changes: Settings that differ from those of the recipe digits.
    """
    (folder / "samples").mkdir(parents=True)
    config = recipes.get("digits").override(metrics="digits", num_metric_samples=100, job_dir=str(folder), steps=200)
    write_config(folder, config.to_dict() | changes)
    if evaluations is None:
        evaluations = {0: 500.0, 100: 20.0, 200: 30.0}
    lines = [scalars_of(step) for step in range(every_steps, every_steps * (num_lines + 1), every_steps)]
    lines = [scalars_of(0), *lines] if 0 in evaluations else lines
    for line in lines:
        if line["step"] in evaluations:
            line[MONITOR] = evaluations[line["step"]]
    write_lines(folder / "metrics.jsonl", lines)
    end = {"event": "end", "time": START + 200, "step": 200, "reason": "finished"}
    default = [start_at(START), end | {"secs": {"training": 150.0, "other": 50.0}, "host_peak_bytes": 2**30}]
    write_lines(folder / "events.jsonl", default if events is None else events)
    for step in grids:
        pixels = np.random.default_rng(step).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "samples" / sample_grid_name(step))
    return folder


def scalars_of(step):
    line = {"step": step, "images_seen": 64 * step, "time": START + step}
    return line | ({"loss/generator": 1.0 + step % 7, "images_per_sec": 64.0} if step else {})


def start_at(time, step=0, num_devices=1):
    facts = {"num_images": 5000, "image_shape": [28, 28, 1], "num_devices": num_devices, "device": "CPU"}
    return {"event": "start", "time": time, "step": step, **facts}


def write_config(folder, values):
    (folder / "config.json").write_text(json.dumps(values))


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def content_of(page):
    """Returns the content of a page as JSON values."""
    text = page.decode().partition('<script type="application/json" id="content">')[2].partition("</script>")[0]
    return json.loads(text)

"""Compares recipes, and a DCGAN in PyTorch, after equal times of training on one prepared set of photographs.

    python -m benchmarks.equal_time --data=data/cifar10 --out=runs/equal                      30 minutes each
    python -m benchmarks.equal_time --data=data/cifar10 --out=runs/equal --only=torch_dcgan   one contender
    python -m benchmarks.equal_time --data=data/cifar10 --out=runs/equal --table              only the table so far
    python -m benchmarks.equal_time --data=data/cifar10 --out=runs/equal --cores=0 --minutes=8 --clock=processor
    python -m benchmarks.equal_time --data=data/cats --out=runs/cats --contender="labels=photos --model=conditional"

A contender is `NAME`, a recipe with its defaults, or `NAME=RECIPE FLAGS`. `torch_dcgan` is the DCGAN of PyTorch
tutorials, see `peers/pytorch_dcgan.py`. The budget is `--minutes` per contender: on the clock `wall` time that passes,
on the clock `processor` the processor time of all threads, times the number of cores that may be used. It contains the
start of the command (for `torch_dcgan` it does not) and no evaluation. Two short runs measure how many steps fit, so
that schedules end in time.

Each contender runs alone. At each of `--moments` it generates 5,000 images, which `python -m trainer evaluate` measures
with `--metrics=photos` against the dataset. Contenders with a result in `--out` are not repeated, so that the same
command can be given in pieces. Times and images/s are those of the clock. The table and `equal_time.json` contain all
results of the folder.
"""

import dataclasses
import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags as absl_flags

from benchmarks import budget, markdown
from benchmarks.budget import Usage
from benchmarks.machine import machine_facts
from trainer.cli import app
from trainer.errors import ConfigError, TrainerError
from trainer.storage import RunDirectory, write_atomically

TORCH_DCGAN = "torch_dcgan"
_DEFAULT_CONTENDERS = ["photos", "r3gan_digits", "dcgan", "hinge_sn", TORCH_DCGAN]
_RESULTS = "equal_time.json"
_USAGE = f"{__doc__}\n"


@dataclasses.dataclass(frozen=True)
class Contender:
    """A recipe with flags, or the DCGAN in PyTorch.

    Attributes:
        name: Name of the contender and of its folder.
        recipe: Name of the recipe; `TORCH_DCGAN` for PyTorch.
        flags: Flags of `trainer.task`.
    """

    name: str
    recipe: str
    flags: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Contender":
        """Reads `NAME` or `NAME=RECIPE FLAGS`.

        Raises:
            ConfigError: If it has another form.
        """
        name, _, rest = text.partition("=")
        recipe, *flags = shlex.split(rest) or [name]
        is_valid = re.fullmatch(r"\w+", name) and all(flag.startswith("--") for flag in flags)
        if not is_valid or (TORCH_DCGAN in (name, recipe) and (name != recipe or flags)):
            raise ConfigError(
                f"contender={text} has another form; write NAME, or NAME=RECIPE and flags, each --name=value."
            )
        return cls(name, recipe, tuple(flags))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Budget and data that all contenders have in common.

    Attributes:
        data: Folder of the prepared set.
        out: Folder of the results.
        seconds: Budget of a contender.
        clock: Clock of `budget.CLOCKS`.
        cores: Cores to use; empty for all.
        moments: Number of evaluations.
        num_images: Number of images of an evaluation.
        seed: Seed of all contenders.
    """

    data: str
    out: Path
    seconds: float
    clock: str
    cores: tuple[int, ...]
    moments: int
    num_images: int
    seed: int

    def folder(self, contender: Contender) -> Path:
        """Returns the folder of a contender."""
        return self.out / contender.name

    @property
    def identity(self) -> dict[str, Any]:
        """Facts on which a result depends."""
        facts = dataclasses.asdict(self) | {"cores": len(self.cores)}
        return {name: value for name, value in facts.items() if name != "out"}


def measure(contender: Contender, plan: Plan) -> dict[str, Any]:
    """Trains a contender, evaluates it at every moment, and writes its result.

    Returns:
        The result: `name`, `command`, `moments` (each with step, seconds, images_seen and metrics), `steps`, `batch`,
        `images_per_sec`, `peak_memory_mib`, `precision`, the `plan` and the `machine`.

    Raises:
        TrainerError: If a command failed.
    """
    folder = plan.folder(contender)
    shutil.rmtree(folder, ignore_errors=True)  # an unfinished measurement cannot be continued within its budget
    folder.mkdir(parents=True)
    train = _train_torch if contender.recipe == TORCH_DCGAN else _train_recipe
    result = train(contender, plan, folder / "log.txt")
    for moment in result["moments"]:
        moment["images_seen"] = moment["step"] * result["batch"]
        images = folder / moment.pop("images")
        moment |= _evaluate(images, plan, folder / "log.txt")
        images.unlink()
    result = {"name": contender.name, **result, "plan": plan.identity, "machine": machine_facts()}
    write_atomically(folder / "result.json", (json.dumps(result, indent=1) + "\n").encode())
    return result


def _train_recipe(contender: Contender, plan: Plan, log: Path) -> dict[str, Any]:
    """Trains a recipe for as many steps as fit, and generates the images of every moment."""
    trainer = [sys.executable, "-m", "trainer.task", f"--recipe={contender.recipe}", f"--dataset={plan.data}"]

    def command(num_steps: int, job_dir: Path) -> list[str]:
        every = max(1, -(-num_steps // plan.moments))
        cadence = [f"--steps={num_steps}", f"--checkpoint_every_steps={every}", f"--max_to_keep={plan.moments + 1}"]
        return [
            *trainer,
            f"--seed={plan.seed}",
            *contender.flags,
            *budget.TRAINING_ONLY,
            *cadence,
            f"--job_dir={job_dir}",
        ]

    cost = budget.calibrate(command, log, plan.clock, plan.cores)
    steps, job_dir = cost.num_steps(plan.seconds), log.parent / "run"
    training = command(steps, job_dir)
    usage = budget.run_checked(training, log, plan.cores)
    config = json.loads(RunDirectory(job_dir).config.read_text())
    seconds = usage.seconds(plan.clock)
    every = max(1, -(-steps // plan.moments))
    moments = []
    for step in sorted({min(steps, every * number) for number in range(1, plan.moments + 1)}):
        images = f"images-{step:08}.npz"
        generate = [sys.executable, "-m", "trainer", "generate", f"--job_dir={job_dir}", f"--checkpoint={step}"]
        out = [f"--num_images={plan.num_images}", f"--out={log.parent / images}"]
        budget.run_checked([*generate, *out], log, plan.cores)
        elapsed = cost.start + (seconds - cost.start) * step / steps
        moments.append({"step": step, "seconds": elapsed, "images": images})
    return {
        "command": shlex.join(["python", *training[1:]]),
        "precision": config["precision"],
        "batch": config["global_batch_size"],
        "steps": steps,
        **_speed(config["global_batch_size"] * steps, seconds - cost.start, usage),
        "moments": moments,
    }


def _train_torch(contender: Contender, plan: Plan, log: Path) -> dict[str, Any]:
    """Trains the DCGAN in PyTorch, which generates the images of every moment itself."""
    from trainer.data.loading import load

    arrays = log.parent / "data.npy"
    np.save(arrays, load(plan.data).images)
    command = [sys.executable, "-m", "benchmarks.peers.pytorch_dcgan", f"--images={arrays}", f"--out={log.parent}"]
    command += [f"--seconds={plan.seconds}", f"--clock={plan.clock}", f"--moments={plan.moments}"]
    command += [f"--num_images={plan.num_images}", f"--seed={plan.seed}"]
    usage = budget.run_checked(command, log, plan.cores)
    arrays.unlink()
    result = json.loads((log.parent / "result.json").read_text())
    facts = _speed(result["batch"] * result["steps"], result["moments"][-1]["seconds"], usage)
    return {"command": shlex.join(["python", *command[1:]]), **result, **facts}


def _speed(num_images: int, seconds: float, usage: Usage) -> dict[str, float]:
    return {
        "images_per_sec": num_images / seconds,
        "wall_seconds": usage.wall_seconds,
        "processor_seconds": usage.processor_seconds,
        "peak_memory_mib": usage.peak_memory_mib,
    }


def _evaluate(images: Path, plan: Plan, log: Path) -> dict[str, Any]:
    """Returns the metrics of images, and those of real against real images."""
    command = [sys.executable, "-m", "trainer", "evaluate", f"--images={images}", f"--against={plan.data}"]
    output = log.parent / "evaluation.json"
    with output.open("wb") as out, log.open("ab") as errors:
        usage = budget.run([*command, "--metrics=photos"], out, plan.cores, errors=errors)
    if usage.exit_code:
        raise TrainerError(f"evaluate exited with code {usage.exit_code}; see {log}.")
    evaluation = json.loads(output.read_text())
    output.unlink()
    return {"metrics": evaluation["metrics"], "real_vs_real": evaluation["real_vs_real"]}


def results(out: Path) -> list[dict[str, Any]]:
    """Returns all results in a folder, the best first."""
    stored = [json.loads(path.read_text()) for path in sorted(out.glob("*/result.json"))]
    complete = [result for result in stored if "plan" in result]
    return sorted(complete, key=lambda result: _metric(result["moments"][-1], "frechet"))


def table(measured: list[dict[str, Any]]) -> str:
    """Returns a table of results: metrics at the end, speed, memory, and the curve of the Fréchet distance."""
    if not measured:
        return "There is no result yet."
    header = ["contender", "frechet", "ratio", "precision", "recall", "images/s", "images seen", "MiB", "computes in"]
    best = _metric(measured[0]["moments"][-1], "frechet")
    header.append(f"frechet by minute of {measured[0]['plan']['clock']} time")
    rows = []
    for result in measured:
        end = result["moments"][-1]
        curve = [f"{moment['seconds'] / 60:.1f}: {_metric(moment, 'frechet'):.3g}" for moment in result["moments"]]
        scores = [_metric(end, name) for name in ("frechet", "precision", "recall")]
        rows.append(
            (
                result["name"],
                f"{scores[0]:.3g}",
                f"{scores[0] / best:.2f}",
                *(f"{value:.3g}" for value in scores[1:]),
                f"{result['images_per_sec']:,.0f}",
                f"{end['images_seen']:,}",
                f"{result['peak_memory_mib']:,.0f}",
                result["precision"],
                ", ".join(curve),
            )
        )
    real = _metric(measured[0]["moments"][-1], "frechet", "real_vs_real")
    return "\n".join([*markdown.table(header, rows), "", f"Real against real images: {real:.3g}."])


def _metric(moment: dict[str, Any], prefix: str, part: str = "metrics") -> float:
    """Returns the value of a metric such as `frechet_photos_5k`."""
    return next(value for name, value in moment[part].items() if name.startswith(f"{prefix}_"))


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string("data", None, "Folder that prepare wrote.", flag_values=values)
    absl_flags.DEFINE_string("out", None, "Folder of the results.", required=True, flag_values=values)
    absl_flags.DEFINE_multi_string(
        "contender", _DEFAULT_CONTENDERS, "NAME, or NAME=RECIPE FLAGS. Repeat it for several.", flag_values=values
    )
    absl_flags.DEFINE_list("only", [], "Names of contenders to run now; empty for all.", flag_values=values)
    absl_flags.DEFINE_float("minutes", 30.0, "Budget per contender and core.", lower_bound=0.0, flag_values=values)
    absl_flags.DEFINE_enum("clock", "wall", budget.CLOCKS, "Clock of the budget.", flag_values=values)
    absl_flags.DEFINE_list("cores", [], "Numbers of the cores to use; empty for all.", flag_values=values)
    absl_flags.DEFINE_integer("moments", 6, "Number of evaluations.", lower_bound=1, flag_values=values)
    absl_flags.DEFINE_integer("num_images", 5000, "Images per evaluation.", lower_bound=12, flag_values=values)
    absl_flags.DEFINE_integer("seed", 0, "Seed of all contenders.", lower_bound=0, flag_values=values)
    absl_flags.DEFINE_bool("table", False, "Print the table and exit.", flag_values=values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Measures contenders without a result, and prints the table."""
    out = Path(values.out).absolute()
    if not values.table:
        contenders = _choose(values.contender, values.only)
        plan = _plan(values, out)
        for contender in contenders:
            path = plan.folder(contender) / "result.json"
            stored = json.loads(path.read_text()) if path.exists() else {}
            if stored.get("plan") == plan.identity:
                continue
            print(
                f"{contender.name}: {plan.seconds / 60:.3g} minutes; the log is {path.with_name('log.txt')}.",
                flush=True,
            )
            measure(contender, plan)
    measured = results(out)
    print(table(measured))
    if measured:
        write_atomically(out / _RESULTS, (json.dumps(measured, indent=1) + "\n").encode())


def _choose(texts: list[str], only: list[str]) -> list[Contender]:
    contenders = {contender.name: contender for contender in map(Contender.parse, texts)}
    for name in only:
        if name not in contenders:
            raise ConfigError(f"only={name} is not a contender; choose from {', '.join(contenders)}.")
    return [contenders[name] for name in only] if only else list(contenders.values())


def _plan(values: absl_flags.FlagValues, out: Path) -> Plan:
    if values.data is None:
        raise ConfigError("--data is missing; pass the folder of a prepared dataset.")
    cores = budget.parse_cores(values.cores)
    num_cores = len(cores) or len(budget.available_cores())
    return Plan(
        data=str(Path(values.data).absolute()),
        out=out,
        seconds=60 * values.minutes * (num_cores if values.clock == "processor" else 1),
        clock=values.clock,
        cores=cores,
        moments=values.moments,
        num_images=values.num_images,
        seed=values.seed,
    )


main = app.command(_USAGE, define_flags, run_command)


if __name__ == "__main__":
    sys.exit(main(sys.argv))

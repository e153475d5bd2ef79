"""Process with one contender: `python -m benchmarks.worker NAME FOLDER PRECISIONS`, controlled by lines of JSON.

The worker builds the contender for the case in FOLDER, keeps the fastest of its variants in the given precisions
(separated by commas) and prints `{"label": ..., "precision": ..., "num_parameters": [...], "images_per_sec": ...,
"trials": {label: images per second, ...}, "omitted": {label: reason, ...}}`. Its answer to `{"steps": N}` is
`{"seconds": ...}`, measured after some untimed steps that warm the caches. Its answer to `{"products": N}` is the
result of `products.measure`.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, Contender, VariantError

_WARM_UP_STEPS = 2
_STEPS_PER_UNTIMED_STEP = 8
_TRIAL_SECONDS = 1.0
_TRIALS = 3

Factory = Callable[[], Contender]


def _variants(name: str, case: Case, precisions: Sequence[str]) -> dict[str, Factory]:
    if not name.startswith("ours"):
        return _peer(name).variants(case, precisions)
    from benchmarks.ours import Engine

    settings = {"constant_input": name == "ours-constant", "checkpoints": name == "ours-checkpoint"}
    return {f"GAN.fit's loop, {precision}": partial(Engine, case, precision, **settings) for precision in precisions}


def _refinements(name: str, case: Case, fastest: Contender) -> dict[str, Factory]:
    make = None if name.startswith("ours") else getattr(_peer(name), "refinements", None)
    return {} if make is None else make(case, fastest)


def _peer(name: str) -> Any:
    module = {"tf": "tensorflow_loop", "keras": "keras_fit", "torch": "pytorch"}[name]
    return importlib.import_module(f"benchmarks.peers.{module}")


def _seconds(contender: Contender, num_steps: int) -> float:
    started = time.perf_counter()
    contender.run(num_steps)
    return time.perf_counter() - started


def _steps_per_sec(contenders: dict[str, Contender], omitted: dict[str, str]) -> dict[str, float]:
    """Returns the best speed of each contender that runs, from trials in turn, and adds reasons to `omitted`."""
    num_steps = {}
    for label, contender in contenders.items():
        try:
            contender.run(_WARM_UP_STEPS)
        except VariantError as error:
            omitted[label] = str(error)
            continue
        secs_per_step = _seconds(contender, _WARM_UP_STEPS) / _WARM_UP_STEPS
        num_steps[label] = max(1, round(_TRIAL_SECONDS / secs_per_step))
    best = dict.fromkeys(num_steps, 0.0)
    for _ in range(_TRIALS):
        for label, count in num_steps.items():
            best[label] = max(best[label], count / _seconds(contenders[label], count))
    return best


def _fastest(
    name: str, case: Case, precisions: Sequence[str]
) -> tuple[str, Contender, dict[str, float], dict[str, str]]:
    """Returns label and contender of the fastest variant, the steps per second of all, and why others do not run."""
    omitted: dict[str, str] = {}
    built = {label: make() for label, make in _variants(name, case, precisions).items()}
    speeds = _steps_per_sec(built, omitted)
    fastest = max(speeds, key=speeds.__getitem__)
    if refined := {label: make() for label, make in _refinements(name, case, built[fastest]).items()}:
        finalists = {fastest: built[fastest], **refined}
        final_speeds = _steps_per_sec(finalists, omitted)
        fastest = max(final_speeds, key=final_speeds.__getitem__)
        built, speeds = finalists, speeds | final_speeds
    return fastest, built[fastest], speeds, omitted


def _answer(request: dict[str, int], contender: Any, case: Case) -> dict[str, Any]:
    if "products" in request:
        from benchmarks import products

        return products.measure(contender, case.batch_size, request["products"])
    contender.run(max(1, request["steps"] // _STEPS_PER_UNTIMED_STEP))
    return {"seconds": _seconds(contender, request["steps"])}


def main() -> None:
    """Answers requests until the input ends."""
    name, folder, precisions = sys.argv[1:]
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # so that output of libraries is not read as a reply
    case = Case.load(Path(folder))
    label, contender, speeds, omitted = _fastest(name, case, precisions.split(","))
    trials = {variant: speed * case.batch_size for variant, speed in speeds.items()}
    ready = {
        "label": label,
        "precision": contender.precision,
        "num_parameters": contender.num_parameters,
        "images_per_sec": trials[label],
        "trials": trials,
        "omitted": omitted,
    }
    print(json.dumps(ready), file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line), contender, case)), file=replies, flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)  # a thread with Keras's `fit` may still wait for steps

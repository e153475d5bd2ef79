"""Process with one contender: `python -m benchmarks.worker NAME FOLDER`, controlled by lines of JSON.

The worker builds the contender for the case in FOLDER, keeps the fastest of its variants and prints
`{"label": ..., "num_parameters": [...], "images_per_sec": ...}`. Its answer to `{"steps": N}` is `{"seconds": ...}`,
measured after some untimed steps that warm the caches. Its answer to `{"products": N}` is the result of
`products.measure`.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, Contender

_WARM_UP_STEPS = 2
_STEPS_PER_UNTIMED_STEP = 8
_TRIAL_SECONDS = 1.0
_TRIALS = 3


def _variants(name: str, case: Case) -> dict[str, Callable[[], Contender]]:
    if not name.startswith("ours"):
        module = {"tf": "tensorflow_loop", "keras": "keras_fit", "torch": "pytorch"}[name]
        return importlib.import_module(f"benchmarks.peers.{module}").variants(case)
    from benchmarks.ours import Engine

    settings = {"constant_input": name == "ours-constant", "checkpoints": name == "ours-checkpoint"}
    return {"GAN.fit's loop": partial(Engine, case, **settings)}


def _seconds(contender: Contender, num_steps: int) -> float:
    started = time.perf_counter()
    contender.run(num_steps)
    return time.perf_counter() - started


def _fastest(variants: dict[str, Callable[[], Contender]]) -> tuple[str, Contender, float]:
    """Returns label, contender and steps per second of the fastest variant, from trials in turn."""
    built = {label: make() for label, make in variants.items()}
    num_steps = {}
    for label, contender in built.items():
        contender.run(_WARM_UP_STEPS)
        secs_per_step = _seconds(contender, _WARM_UP_STEPS) / _WARM_UP_STEPS
        num_steps[label] = max(1, round(_TRIAL_SECONDS / secs_per_step))
    best = dict.fromkeys(built, 0.0)
    for _ in range(_TRIALS):
        for label, contender in built.items():
            best[label] = max(best[label], num_steps[label] / _seconds(contender, num_steps[label]))
    label = max(best, key=best.__getitem__)
    return label, built[label], best[label]


def _answer(request: dict[str, int], contender: Any, case: Case) -> dict[str, Any]:
    if "products" in request:
        from benchmarks import products

        return products.measure(contender, case.batch_size, request["products"])
    contender.run(max(1, request["steps"] // _STEPS_PER_UNTIMED_STEP))
    return {"seconds": _seconds(contender, request["steps"])}


def main() -> None:
    """Answers requests until the input ends."""
    name, folder = sys.argv[1:]
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # so that output of libraries is not read as a reply
    case = Case.load(Path(folder))
    label, contender, steps_per_sec = _fastest(_variants(name, case))
    ready = {
        "label": label,
        "num_parameters": contender.num_parameters,
        "images_per_sec": steps_per_sec * case.batch_size,
    }
    print(json.dumps(ready), file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line), contender, case)), file=replies, flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)  # a thread with Keras's `fit` may still wait for steps

"""What a hyperparameter tuning job searches: its metrics, and its parameters with their conditional children."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from trainer.cloud.jobs.schema_validation import fail, specified

Value = float | int | str
ValueKind = Literal["double", "integer", "discrete", "categorical"]
Scale = Literal["linear", "log", "reverse_log"]
Stopping = Literal["decay_curve", "median", "convex"]

_VALUE_SPECS: dict[str, ValueKind] = {
    "doubleValueSpec": "double",
    "integerValueSpec": "integer",
    "discreteValueSpec": "discrete",
    "categoricalValueSpec": "categorical",
}
_SCALES: dict[str | None, Scale] = {
    None: "linear",
    "UNIT_LINEAR_SCALE": "linear",
    "UNIT_LOG_SCALE": "log",
    "UNIT_REVERSE_LOG_SCALE": "reverse_log",
}
_CONDITIONS: dict[ValueKind, str] = {
    "discrete": "parentDiscreteValues",
    "integer": "parentIntValues",
    "categorical": "parentCategoricalValues",
}
_STOPPINGS: dict[str, Stopping] = {
    "decayCurveStoppingSpec": "decay_curve",
    "medianAutomatedStoppingSpec": "median",
    "convexAutomatedStoppingSpec": "convex",
}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What trials report, and where it should go."""

    metric_id: str
    goal: Literal["MAXIMIZE", "MINIMIZE"]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One flag that trials vary."""

    parameter_id: str
    kind: ValueKind
    bounds: tuple[float, float] | None
    """Least and greatest value of a double or an integer, both included. None: it has `values`."""
    values: tuple[Value, ...]
    """What a discrete (ascending) or a categorical parameter can be. Empty: it has `bounds`."""
    scale: Scale
    """How to sample: evenly in the value, in its logarithm, or in the logarithm of the distance from the top."""
    children: tuple["Child", ...]
    """Parameters that exist in some trials alone."""

    def allows(self, value: Value) -> bool:
        """Whether this parameter can have a value."""
        if self.bounds is None:
            return value in self.values
        if isinstance(value, str) or (self.kind == "integer" and value != int(value)):
            return False
        return self.bounds[0] <= value <= self.bounds[1]

    def walk(self) -> Iterator["Parameter"]:
        """Yields this parameter, then all that depend on it."""
        yield self
        for child in self.children:
            yield from child.parameter.walk()


@dataclass(frozen=True, kw_only=True)
class Child:
    """A parameter that exists where its parent has one of these values."""

    parent_values: tuple[Value, ...]
    parameter: Parameter


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """The search."""

    metrics: tuple[Metric, ...]
    parameters: tuple[Parameter, ...]
    """Those of every trial; conditional ones are their `children`."""
    algorithm: Literal["GRID_SEARCH", "RANDOM_SEARCH"] | None
    """None: Vertex AI's Bayesian optimisation."""
    measurement_selection: Literal["LAST_MEASUREMENT", "BEST_MEASUREMENT"]
    """Which of a trial's measurements counts; where the file says nothing the last, as the API has it."""
    early_stopping: Stopping | None
    """How trials without hope are found. None: all run to their end."""
    raw: Mapping[str, Any]
    """What is sent."""

    def all_parameters(self) -> Iterator[Parameter]:
        """Yields every parameter, conditional ones after their parents."""
        for parameter in self.parameters:
            yield from parameter.walk()


def parse_study(raw: dict[str, Any], path: str) -> StudySpec:
    """The study of an object that conforms to its message.

    Args:
        raw: As `conform` returned it.
        path: Where it stands in the file.

    Raises:
        ConfigError: Names are not unique, bounds or values contradict each other, or the algorithm cannot search them.
    """
    metrics = tuple(_metric(metric, f"{path}.metrics[{n}]") for n, metric in enumerate(raw["metrics"]))
    for one, other in itertools.combinations(metrics, 2):
        if one.metric_id == other.metric_id:
            fail(f"{path}.metrics", f"has metricId {one.metric_id} twice; keep one.")
    parameters = tuple(_parameter(one, f"{path}.parameters[{n}]") for n, one in enumerate(raw["parameters"]))
    _check_ids([Child(parent_values=(), parameter=parameter) for parameter in parameters], f"{path}.parameters")
    algorithm = specified(raw.get("algorithm"))
    doubles = [one for parameter in parameters for one in parameter.walk() if one.kind == "double"]
    if algorithm == "GRID_SEARCH" and doubles:
        fail(
            f"{path}.algorithm", f"is GRID_SEARCH, and {doubles[0].parameter_id} is a double; give it discrete values."
        )
    return StudySpec(
        metrics=metrics,
        parameters=parameters,
        algorithm=algorithm,
        measurement_selection=specified(raw.get("measurementSelectionType")) or "LAST_MEASUREMENT",
        early_stopping=next((stopping for key, stopping in _STOPPINGS.items() if key in raw), None),
        raw=raw,
    )


def _metric(raw: dict[str, Any], path: str) -> Metric:
    goal = specified(raw["goal"])
    if goal is None:
        fail(f"{path}.goal", f"is {raw['goal']}, which maximizes; write MINIMIZE or MAXIMIZE.")
    return Metric(metric_id=raw["metricId"], goal=goal)


def _parameter(raw: dict[str, Any], path: str) -> Parameter:
    key = next(key for key in _VALUE_SPECS if key in raw)
    spec, scale = raw[key], specified(raw.get("scaleType"))
    parameter = Parameter(
        parameter_id=raw["parameterId"],
        kind=_VALUE_SPECS[key],
        bounds=(spec["minValue"], spec["maxValue"]) if "minValue" in spec else None,
        values=tuple(spec.get("values", ())),
        scale=_SCALES[scale],
        children=(),
    )
    if scale is not None and parameter.kind == "categorical":
        fail(f"{path}.scaleType", "is for numbers, and this parameter is categorical; remove it.")
    _check_domain(parameter, f"{path}.{key}")
    children = enumerate(raw.get("conditionalParameterSpecs", ()))
    return replace(
        parameter,
        children=tuple(_child(child, parameter, f"{path}.conditionalParameterSpecs[{n}]") for n, child in children),
    )


def _check_domain(parameter: Parameter, path: str) -> None:
    """Refuses bounds and values that contradict each other or cannot be scaled as asked."""
    values = parameter.values
    if parameter.bounds is not None and parameter.bounds[0] > parameter.bounds[1]:
        fail(path, f"has minValue {parameter.bounds[0]:g} above maxValue {parameter.bounds[1]:g}; exchange them.")
    if parameter.kind == "discrete" and sorted(set(values)) != list(values):
        fail(f"{path}.values", f"are {_told(values)}; write them in ascending order, each once.")
    if len(set(values)) < len(values):
        fail(f"{path}.values", f"are {_told(values)}; write each once.")
    least = parameter.bounds[0] if parameter.bounds is not None else values[0]
    if parameter.scale in ("log", "reverse_log") and float(least) <= 0:
        fail(path, f"begins at {least:g}, and a logarithmic scale needs values above 0; raise it, or scale linearly.")


def _child(raw: dict[str, Any], parent: Parameter, path: str) -> Child:
    key = next(key for key in _CONDITIONS.values() if key in raw)
    right = _CONDITIONS.get(parent.kind)
    if right is None:
        fail(path, f"depends on {parent.parameter_id}, which is a double; give that discrete values.")
    if key != right:
        fail(f"{path}.{key}", f"does not fit {parent.parameter_id}, which is {parent.kind}; write {right}.")
    values = tuple(raw[key]["values"])
    for value in values:
        if not parent.allows(value):
            fail(f"{path}.{key}", f"has {value}, which {parent.parameter_id} never is; it is {_domain(parent)}.")
    return Child(parent_values=values, parameter=_parameter(raw["parameterSpec"], f"{path}.parameterSpec"))


def _check_ids(siblings: Sequence[Child], path: str) -> None:
    """Refuses a parameter that some trial would get twice; under parent values that exclude each other it may recur."""
    for one, other in itertools.combinations(siblings, 2):
        shared = _ids(one.parameter) & _ids(other.parameter)
        if shared and (not one.parent_values or set(one.parent_values) & set(other.parent_values)):
            fail(path, f"have parameterId {min(shared)} twice in one trial; rename one.")
    for child in siblings:
        below = set().union(*(_ids(grandchild.parameter) for grandchild in child.parameter.children))
        if child.parameter.parameter_id in below:
            fail(path, f"have parameterId {child.parameter.parameter_id} twice in one trial; rename one.")
        _check_ids(child.parameter.children, path)


def _ids(parameter: Parameter) -> set[str]:
    return {one.parameter_id for one in parameter.walk()}


def _domain(parameter: Parameter) -> str:
    if parameter.bounds is not None:
        return "from {:g} to {:g}".format(*parameter.bounds)
    return f"one of {_told(parameter.values)}"


def _told(values: Sequence[Value]) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)

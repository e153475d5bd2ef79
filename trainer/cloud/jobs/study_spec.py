"""Study of a hyperparameter tuning job: its metrics, and its parameters with their conditional children."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from trainer.cloud.jobs.schema_validation import enum_or_none, fail

Value = float | int | str
ValueKind = Literal["double", "integer", "discrete", "categorical"]
Scale = Literal["linear", "log", "reverse_log"]
Stopping = Literal["decay_curve", "median", "convex"]

VALUE_SPECS: dict[str, ValueKind] = {
    "doubleValueSpec": "double",
    "integerValueSpec": "integer",
    "discreteValueSpec": "discrete",
    "categoricalValueSpec": "categorical",
}
"""Kinds of parameters by the keys of their values in the API."""
SCALES: dict[str | None, Scale] = {
    None: "linear",
    "UNIT_LINEAR_SCALE": "linear",
    "UNIT_LOG_SCALE": "log",
    "UNIT_REVERSE_LOG_SCALE": "reverse_log",
}
"""Scales by their names in the API."""
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
    """A metric that trials report, and its goal."""

    metric_id: str
    goal: Literal["MAXIMIZE", "MINIMIZE"]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A flag that trials vary."""

    parameter_id: str
    kind: ValueKind
    bounds: tuple[float, float] | None
    """Minimum and maximum of a double or an integer, both included. None if the parameter has `values`."""
    values: tuple[Value, ...]
    """Values of a discrete (in ascending order) or a categorical parameter. Empty if the parameter has `bounds`."""
    scale: Scale
    """Scale on which to sample evenly: the value, its logarithm, or the logarithm of its distance from the maximum."""
    children: tuple["Child", ...]
    """Conditional parameters, which only some trials have."""

    def allows(self, value: Value) -> bool:
        """Returns whether the parameter can have a value."""
        if self.bounds is None:
            return value in self.values
        if isinstance(value, str) or (self.kind == "integer" and value != int(value)):
            return False
        return self.bounds[0] <= value <= self.bounds[1]

    def walk(self) -> Iterator["Parameter"]:
        """Yields the parameter, then its conditional parameters at every depth."""
        yield self
        for child in self.children:
            yield from child.parameter.walk()


@dataclass(frozen=True, kw_only=True)
class Child:
    """A conditional parameter: a trial has it if its parent has one of `parent_values`."""

    parent_values: tuple[Value, ...]
    parameter: Parameter


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """A `StudySpec`."""

    metrics: tuple[Metric, ...]
    parameters: tuple[Parameter, ...]
    """Parameters of every trial. Conditional parameters are their `children`."""
    algorithm: Literal["GRID_SEARCH", "RANDOM_SEARCH"] | None
    """None: Vertex AI's Bayesian optimization."""
    measurement_selection: Literal["LAST_MEASUREMENT", "BEST_MEASUREMENT"]
    """Measurement that counts for a trial. The API's default is the last one."""
    early_stopping: Stopping | None
    """Rule that stops unpromising trials early. None: all trials run to their end."""
    raw: Mapping[str, Any]
    """Validated content, as the request sends it."""

    def all_parameters(self) -> Iterator[Parameter]:
        """Yields every parameter; conditional parameters follow their parents."""
        for parameter in self.parameters:
            yield from parameter.walk()


def parse_study(raw: dict[str, Any], path: str) -> StudySpec:
    """Parses a validated `StudySpec`.

    Args:
        raw: Validated content.
        path: Path to it in the file.

    Raises:
        ConfigError: If names are not unique, bounds or values are invalid, or the algorithm cannot search them.
    """
    metrics = tuple(_parse_metric(metric, f"{path}.metrics[{index}]") for index, metric in enumerate(raw["metrics"]))
    for metric, other in itertools.combinations(metrics, 2):
        if metric.metric_id == other.metric_id:
            fail(f"{path}.metrics", f"has metricId {metric.metric_id} twice; keep one.")
    parameters = tuple(
        _parse_parameter(parameter, f"{path}.parameters[{index}]") for index, parameter in enumerate(raw["parameters"])
    )
    _check_ids([Child(parent_values=(), parameter=parameter) for parameter in parameters], f"{path}.parameters")
    algorithm = enum_or_none(raw.get("algorithm"))
    doubles = [parameter for top in parameters for parameter in top.walk() if parameter.kind == "double"]
    if algorithm == "GRID_SEARCH" and doubles:
        fail(
            f"{path}.algorithm", f"is GRID_SEARCH, but {doubles[0].parameter_id} is a double; give it discrete values."
        )
    return StudySpec(
        metrics=metrics,
        parameters=parameters,
        algorithm=algorithm,
        measurement_selection=enum_or_none(raw.get("measurementSelectionType")) or "LAST_MEASUREMENT",
        early_stopping=next((stopping for key, stopping in _STOPPINGS.items() if key in raw), None),
        raw=raw,
    )


def _parse_metric(raw: dict[str, Any], path: str) -> Metric:
    goal = enum_or_none(raw["goal"])
    if goal is None:
        fail(f"{path}.goal", f"is {raw['goal']}, which would maximize; write MINIMIZE or MAXIMIZE.")
    return Metric(metric_id=raw["metricId"], goal=goal)


def _parse_parameter(raw: dict[str, Any], path: str) -> Parameter:
    key = next(key for key in VALUE_SPECS if key in raw)
    spec, scale = raw[key], enum_or_none(raw.get("scaleType"))
    parameter = Parameter(
        parameter_id=raw["parameterId"],
        kind=VALUE_SPECS[key],
        bounds=(spec["minValue"], spec["maxValue"]) if "minValue" in spec else None,
        values=tuple(spec.get("values", ())),
        scale=SCALES[scale],
        children=(),
    )
    if scale is not None and parameter.kind == "categorical":
        fail(f"{path}.scaleType", "is for numbers, but this parameter is categorical; remove it.")
    _check_domain(parameter, f"{path}.{key}")
    children = enumerate(raw.get("conditionalParameterSpecs", ()))
    return replace(
        parameter,
        children=tuple(
            _parse_child(child, parameter, f"{path}.conditionalParameterSpecs[{index}]") for index, child in children
        ),
    )


def _check_domain(parameter: Parameter, path: str) -> None:
    """Rejects bounds and values that contradict each other or do not fit the scale."""
    values = parameter.values
    if parameter.bounds is not None and parameter.bounds[0] > parameter.bounds[1]:
        fail(path, f"has minValue {parameter.bounds[0]:g} above maxValue {parameter.bounds[1]:g}; swap them.")
    if parameter.kind == "discrete" and sorted(set(values)) != list(values):
        fail(f"{path}.values", f"are {_format_values(values)}; write them in ascending order, each once.")
    if len(set(values)) < len(values):
        fail(f"{path}.values", f"are {_format_values(values)}; write each once.")
    minimum = parameter.bounds[0] if parameter.bounds is not None else values[0]
    if parameter.scale in ("log", "reverse_log") and float(minimum) <= 0:
        fail(
            path,
            f"has the minimum {minimum:g}, but a logarithmic scale needs values above 0; raise it.",
        )


def _parse_child(raw: dict[str, Any], parent: Parameter, path: str) -> Child:
    key = next(key for key in _CONDITIONS.values() if key in raw)
    expected = _CONDITIONS.get(parent.kind)
    if expected is None:
        fail(path, f"depends on {parent.parameter_id}, which is a double; give that parameter discrete values.")
    if key != expected:
        fail(f"{path}.{key}", f"does not fit {parent.parameter_id}, which is {parent.kind}; write {expected}.")
    values = tuple(raw[key]["values"])
    for value in values:
        if not parent.allows(value):
            fail(
                f"{path}.{key}",
                f"has {value}, but {parent.parameter_id} is {_describe_domain(parent)}; correct one of them.",
            )
    return Child(parent_values=values, parameter=_parse_parameter(raw["parameterSpec"], f"{path}.parameterSpec"))


def _check_ids(siblings: Sequence[Child], path: str) -> None:
    """Rejects two parameters of one name in a trial. Under different parent values, a name may occur again."""
    for child, other in itertools.combinations(siblings, 2):
        shared = _ids(child.parameter) & _ids(other.parameter)
        if shared and (not child.parent_values or set(child.parent_values) & set(other.parent_values)):
            fail(path, f"have parameterId {min(shared)} twice in one trial; rename one.")
    for child in siblings:
        descendants = set().union(*(_ids(grandchild.parameter) for grandchild in child.parameter.children))
        if child.parameter.parameter_id in descendants:
            fail(path, f"have parameterId {child.parameter.parameter_id} twice in one trial; rename one.")
        _check_ids(child.parameter.children, path)


def _ids(parameter: Parameter) -> set[str]:
    return {descendant.parameter_id for descendant in parameter.walk()}


def _describe_domain(parameter: Parameter) -> str:
    if parameter.bounds is not None:
        return "from {:g} to {:g}".format(*parameter.bounds)
    return f"one of {_format_values(parameter.values)}"


def _format_values(values: Sequence[Value]) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)

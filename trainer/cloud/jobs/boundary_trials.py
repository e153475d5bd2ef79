"""Trials at the boundaries of a study: a small set in which each parameter takes its extreme values."""

from collections.abc import Iterator, Mapping, Sequence

from trainer.cloud.jobs.study_spec import Parameter, Value


def boundary_trials(parameters: Sequence[Parameter]) -> Iterator[Mapping[str, Value]]:
    """Yields the parameter values of trials.

    Each parameter in turn takes all of its `boundary_values` while the others keep their first one. A conditional
    parameter is present if its parent has one of the values that it requires.

    Args:
        parameters: Parameters of every trial.
    """
    if not parameters:
        yield {}
    for varied in parameters:
        others: dict[str, Value] = {}
        for other in parameters:
            others |= {} if other is varied else next(_with_children(other))
        for values in _with_children(varied):
            yield others | values


def boundary_values(parameter: Parameter) -> list[Value]:
    """Returns all values of a list, or the bounds of a range and the values that conditional parameters require.

    For a range of whole numbers, the second value is also returned.
    """
    if parameter.bounds is None:
        return [*parameter.values]
    minimum, maximum = parameter.bounds
    second = [min(minimum + 1, maximum)] if parameter.kind == "integer" else []
    required = [value for child in parameter.children for value in child.parent_values]
    return [*dict.fromkeys([minimum, *second, maximum, *required])]


def _with_children(parameter: Parameter) -> Iterator[dict[str, Value]]:
    for value in boundary_values(parameter):
        active = [child.parameter for child in parameter.children if value in child.parent_values]
        for child_values in boundary_trials(active):
            yield {parameter.parameter_id: value, **child_values}

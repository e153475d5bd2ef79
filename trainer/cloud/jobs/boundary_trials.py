"""Trials that a study may have: few of them, in which each parameter is seen at its ends."""

from collections.abc import Iterator, Mapping, Sequence

from trainer.cloud.jobs.study_spec import Parameter, Value


def trials(parameters: Sequence[Parameter]) -> Iterator[Mapping[str, Value]]:
    """Yields the parameters of trials: each parameter in turn at its ends or at each of its values, the others at the
    first of theirs; conditional ones where their parents have the values for it.

    Args:
        parameters: Those of every trial.
    """
    if not parameters:
        yield {}
    for varied in parameters:
        rest: dict[str, Value] = {}
        for other in parameters:
            rest |= {} if other is varied else next(_with_children(other))
        for some in _with_children(varied):
            yield rest | some


def _with_children(parameter: Parameter) -> Iterator[dict[str, Value]]:
    for value in values(parameter):
        below = [child.parameter for child in parameter.children if value in child.parent_values]
        for some in trials(below):
            yield {parameter.parameter_id: value, **some}


def values(parameter: Parameter) -> list[Value]:
    """The ends of a parameter, or each of its values; of whole numbers the second too, and what children wait for."""
    if parameter.bounds is None:
        return [*parameter.values]
    least, most = parameter.bounds
    second = [min(least + 1, most)] if parameter.kind == "integer" else []
    waited_for = [value for child in parameter.children for value in child.parent_values]
    return [*dict.fromkeys([least, *second, most, *waited_for])]

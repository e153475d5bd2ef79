"""Optuna as the search algorithm of a local study: a Vertex AI study as a study of Optuna's."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from trainer.cloud.jobs.study_spec import Parameter, StudySpec, Value
from trainer.cloud.tuning.trial_store import TrialRecord
from trainer.errors import ConfigError

_NamedParameter = tuple[str, Parameter]
"""A parameter and its name in Optuna. The name of a child contains the values of its parent, because the same
parameterId may have another range under another value."""


class Suggester:
    """Suggests parameters for trials, and learns from their results. An instance belongs to one thread.

    A suggestion depends only on the ID of the trial and on the earlier results, so that an interrupted study continues
    as if it had not been interrupted. GRID_SEARCH visits all points in order and skips those that differ only in
    inactive children.

    Args:
        study: Study with one metric.
        ended: Trials that ended before this process started.

    Raises:
        ConfigError: If Optuna is not installed, or the study has several metrics.
    """

    def __init__(self, study: StudySpec, ended: Iterable[TrialRecord]):
        if len(study.metrics) > 1:
            names = ", ".join(metric.metric_id for metric in study.metrics)
            raise ConfigError(f"studySpec.metrics has {names}, but a local study supports one metric; keep one.")
        optuna = _import_optuna()
        self._algorithm = study.algorithm
        self._top: tuple[_NamedParameter, ...] = tuple(
            (parameter.parameter_id, parameter) for parameter in study.parameters
        )
        median = study.early_stopping == "median"
        self._study = optuna.create_study(
            direction=study.metrics[0].goal.lower(),
            pruner=optuna.pruners.MedianPruner() if median else optuna.pruners.NopPruner(),
        )
        self._active: dict[str, Any] = {}
        for record in ended:
            self._add_ended_trial(record)

    def ask(self, trial_id: str) -> Mapping[str, Value] | None:
        """Returns parameters for a new trial. None: all points of the grid have been visited."""
        if self._algorithm == "GRID_SEARCH":
            point = next(itertools.islice(_grid(self._top), int(trial_id) - 1, None), None)
            if point is None:
                return None
            self._study.enqueue_trial(point)
        return self._start_trial(trial_id)

    def resume(self, record: TrialRecord) -> None:
        """Starts an interrupted trial again with its parameters."""
        fixed: dict[str, Value] = {}

        def recorded_value(name: str, parameter: Parameter) -> Value:
            value = record.parameters[parameter.parameter_id]
            fixed[name] = _mirror(parameter, value)
            return value

        _choose_all(self._top, recorded_value)
        self._study.enqueue_trial(fixed)
        self._start_trial(record.id)

    def report(self, trial_id: str, step: int, value: float) -> bool:
        """Reports a measurement of a running trial, and returns whether the trial should stop early."""
        trial = self._active[trial_id]
        trial.report(value, step)
        return trial.should_prune()

    def tell(self, trial_id: str, value: float | None) -> None:
        """Reports the result of a trial. None: the trial failed."""
        trial = self._active.pop(trial_id)
        self._study.tell(trial, value, state=_trial_state(value is not None))

    def _start_trial(self, trial_id: str) -> Mapping[str, Value]:
        self._study.sampler = _create_sampler(self._algorithm, seed=int(trial_id))
        trial = self._active[trial_id] = self._study.ask()

        def suggested_value(name: str, parameter: Parameter) -> Value:
            return _mirror(parameter, _suggest(trial, name, parameter))

        return _choose_all(self._top, suggested_value)

    def _add_ended_trial(self, record: TrialRecord) -> None:
        parameters, distributions = {}, {}

        def recorded_value(name: str, parameter: Parameter) -> Value:
            value = record.parameters[parameter.parameter_id]
            parameters[name], distributions[name] = _mirror(parameter, value), _distribution(parameter)
            return value

        _choose_all(self._top, recorded_value)
        final = record.final_measurement
        self._study.add_trial(
            _import_optuna().trial.create_trial(
                state=_trial_state(final is not None),
                value=final and final.value,
                params=parameters,
                distributions=distributions,
                intermediate_values={measurement.step: measurement.value for measurement in record.measurements},
            )
        )


def _import_optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ConfigError(
            "a local study needs Optuna, which is not installed; run pip install 'gan-trainer[tune]'."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # the study runner logs the trials
    return optuna


def _trial_state(has_succeeded: bool) -> Any:
    states = _import_optuna().trial.TrialState
    return states.COMPLETE if has_succeeded else states.FAIL


def _create_sampler(algorithm: str | None, seed: int) -> Any:
    """Returns the sampler of an algorithm. In a grid search all values are fixed, so that it samples nothing."""
    samplers = _import_optuna().samplers
    return samplers.TPESampler(seed=seed) if algorithm is None else samplers.RandomSampler(seed=seed)


def _choose_all(parameters: tuple[_NamedParameter, ...], choose: Callable[[str, Parameter], Value]) -> dict[str, Value]:
    """Returns values by parameterId: chooses a value for each parameter, then for the children of that value."""
    values: dict[str, Value] = {}
    for name, parameter in parameters:
        value = values[parameter.parameter_id] = choose(name, parameter)
        values |= _choose_all(_children(name, parameter, value), choose)
    return values


def _children(name: str, parameter: Parameter, value: Value) -> tuple[_NamedParameter, ...]:
    return tuple(
        (f"{name}={'|'.join(map(str, child.parent_values))}/{child.parameter.parameter_id}", child.parameter)
        for child in parameter.children
        if value in child.parent_values
    )


def _grid(parameters: tuple[_NamedParameter, ...]) -> Iterator[dict[str, Value]]:
    """Yields every point of the grid: values by their names in Optuna."""
    if not parameters:
        yield {}
        return
    (name, parameter), *rest = parameters
    low, high = parameter.bounds or (0, -1)
    for value in parameter.values or range(int(low), int(high) + 1):
        for point in _grid((*_children(name, parameter, value), *rest)):
            yield {name: _mirror(parameter, value), **point}


def _mirror(parameter: Parameter, value: Value) -> Value:
    """Converts a value to the one in Optuna, or back. A number that rounding has moved out of the bounds is clipped.

    Optuna has no reverse logarithmic scale. Such a parameter has a logarithmic scale there, with its range reversed.
    """
    if parameter.bounds is None or isinstance(value, str):
        return value
    low, high = parameter.bounds
    return min(max(low + high - value if parameter.scale == "reverse_log" else value, low), high)


def _distribution(parameter: Parameter) -> Any:
    distributions = _import_optuna().distributions
    if parameter.bounds is None:
        return distributions.CategoricalDistribution(parameter.values)
    log = parameter.scale != "linear"
    low, high = parameter.bounds
    if parameter.kind == "integer":
        return distributions.IntDistribution(int(low), int(high), log=log)
    return distributions.FloatDistribution(float(low), float(high), log=log)


def _suggest(trial: Any, name: str, parameter: Parameter) -> Value:
    distribution = _distribution(parameter)
    if parameter.bounds is None:
        return trial.suggest_categorical(name, distribution.choices)
    suggest = trial.suggest_int if parameter.kind == "integer" else trial.suggest_float
    return suggest(name, distribution.low, distribution.high, log=distribution.log)

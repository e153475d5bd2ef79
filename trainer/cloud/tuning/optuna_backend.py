"""Which parameters a local study tries next: Vertex AI's study as one of Optuna's."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from trainer.cloud.jobs.study_spec import Parameter, StudySpec, Value
from trainer.cloud.tuning.trial_store import TrialRecord
from trainer.errors import ConfigError

_Keyed = tuple[str, Parameter]
"""A parameter under the name that Optuna knows it by: a child's has its parent's values in it, since the same
parameterId may mean another range under another value."""


class Suggester:
    """Asks Optuna for parameters, and tells it how trials do. It belongs to one thread.

    What a trial gets depends on its id and on what was told before, so that a study that was interrupted goes on as if
    it had not been. GRID_SEARCH takes the points in order, each once, without those that differ in absent children.

    Args:
        study: What is searched, with one metric.
        ended: The trials that ended before this process began.

    Raises:
        ConfigError: Optuna is not installed, or the study has several metrics.
    """

    def __init__(self, study: StudySpec, ended: Iterable[TrialRecord]):
        if len(study.metrics) > 1:
            told = ", ".join(metric.metric_id for metric in study.metrics)
            raise ConfigError(f"studySpec.metrics has {told}, and a local study follows one metric; keep one.")
        optuna = _optuna()
        self._algorithm = study.algorithm
        self._top: tuple[_Keyed, ...] = tuple((one.parameter_id, one) for one in study.parameters)
        median = study.early_stopping == "median"
        self._study = optuna.create_study(
            direction=study.metrics[0].goal.lower(),
            pruner=optuna.pruners.MedianPruner() if median else optuna.pruners.NopPruner(),
        )
        self._asked: dict[str, Any] = {}
        for record in ended:
            self._add(record)

    def ask(self, trial_id: str) -> Mapping[str, Value] | None:
        """Parameters for a new trial. None: the grid is used up."""
        if self._algorithm == "GRID_SEARCH":
            point = next(itertools.islice(_grid(self._top), int(trial_id) - 1, None), None)
            if point is None:
                return None
            self._study.enqueue_trial(point)
        return self._begin(trial_id)

    def ask_again(self, record: TrialRecord) -> None:
        """Begins a trial with the parameters that it had when it was interrupted."""
        fixed: dict[str, Value] = {}

        def given(key: str, parameter: Parameter) -> Value:
            value = record.parameters[parameter.parameter_id]
            fixed[key] = _mirrored(parameter, value)
            return value

        _walk(self._top, given)
        self._study.enqueue_trial(fixed)
        self._begin(record.id)

    def report(self, trial_id: str, step: int, value: float) -> bool:
        """Tells how a running trial does; returns whether it should end early."""
        trial = self._asked[trial_id]
        trial.report(value, step)
        return trial.should_prune()

    def tell(self, trial_id: str, value: float | None) -> None:
        """Tells how a trial ended; None is a trial that failed."""
        trial = self._asked.pop(trial_id)
        self._study.tell(trial, value, state=_states()[value is not None])

    def _begin(self, trial_id: str) -> Mapping[str, Value]:
        self._study.sampler = _sampler(self._algorithm, seed=int(trial_id))
        trial = self._asked[trial_id] = self._study.ask()

        def drawn(key: str, parameter: Parameter) -> Value:
            return _mirrored(parameter, _draw(trial, key, parameter))

        return _walk(self._top, drawn)

    def _add(self, record: TrialRecord) -> None:
        parameters, distributions = {}, {}

        def given(key: str, parameter: Parameter) -> Value:
            value = record.parameters[parameter.parameter_id]
            parameters[key], distributions[key] = _mirrored(parameter, value), _distribution(parameter)
            return value

        _walk(self._top, given)
        self._study.add_trial(
            _optuna().trial.create_trial(
                state=_states()[record.final is not None],
                value=record.final and record.final.value,
                params=parameters,
                distributions=distributions,
                intermediate_values={one.step: one.value for one in record.measurements},
            )
        )


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ConfigError("a local study needs Optuna; run pip install 'gan-trainer[tune]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # the trainer has sentences of its own
    return optuna


def _states() -> tuple[Any, Any]:
    """Optuna's words for a trial that failed and one that did not."""
    states = _optuna().trial.TrialState
    return states.FAIL, states.COMPLETE


def _sampler(algorithm: str | None, seed: int) -> Any:
    """Of the grid too, which leaves it nothing to choose."""
    samplers = _optuna().samplers
    return samplers.TPESampler(seed=seed) if algorithm is None else samplers.RandomSampler(seed=seed)


def _walk(pending: tuple[_Keyed, ...], choose: Callable[[str, Parameter], Value]) -> dict[str, Value]:
    """Values by parameterId: chooses each, then the children that exist with it."""
    values: dict[str, Value] = {}
    for key, parameter in pending:
        value = values[parameter.parameter_id] = choose(key, parameter)
        values |= _walk(_children(key, parameter, value), choose)
    return values


def _children(key: str, parameter: Parameter, value: Value) -> tuple[_Keyed, ...]:
    return tuple(
        (f"{key}={'|'.join(map(str, child.parent_values))}/{child.parameter.parameter_id}", child.parameter)
        for child in parameter.children
        if value in child.parent_values
    )


def _grid(pending: tuple[_Keyed, ...]) -> Iterator[dict[str, Value]]:
    """Every point by Optuna's names."""
    if not pending:
        yield {}
        return
    (key, parameter), *rest = pending
    least, most = parameter.bounds or (0, -1)
    for value in parameter.values or range(int(least), int(most) + 1):
        for point in _grid((*_children(key, parameter, value), *rest)):
            yield {key: _mirrored(parameter, value), **point}


def _mirrored(parameter: Parameter, value: Value) -> Value:
    """A value as Optuna has it, and back.

    It knows no reverse logarithmic scale: such a parameter is exchanged top for bottom on a logarithmic one.
    """
    if parameter.scale != "reverse_log" or parameter.bounds is None or isinstance(value, str):
        return value
    least, most = parameter.bounds
    return min(max(least + most - value, least), most)


def _distribution(parameter: Parameter) -> Any:
    distributions = _optuna().distributions
    if parameter.bounds is None:
        return distributions.CategoricalDistribution(parameter.values)
    log = parameter.scale != "linear"
    least, most = parameter.bounds
    if parameter.kind == "integer":
        return distributions.IntDistribution(int(least), int(most), log=log)
    return distributions.FloatDistribution(float(least), float(most), log=log)


def _draw(trial: Any, key: str, parameter: Parameter) -> Value:
    space = _distribution(parameter)
    if parameter.bounds is None:
        return trial.suggest_categorical(key, space.choices)
    suggest = trial.suggest_int if parameter.kind == "integer" else trial.suggest_float
    return suggest(key, space.low, space.high, log=space.log)

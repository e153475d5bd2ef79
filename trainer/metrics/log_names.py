"""Names of metrics in the logs of a run: `metric/frechet_digits_5k` for the metric `frechet_digits_5k`."""

LOG_PREFIX = "metric/"
"""Prefix of the names. It is part of the stored `metrics.jsonl` and of checkpoints."""


def log_name(metric: str) -> str:
    """Returns the name in the logs of a metric."""
    return f"{LOG_PREFIX}{metric}"


def own_name(name: str) -> str:
    """Returns the name of a metric from that in the logs. A name without the prefix is returned as it is."""
    return name.removeprefix(LOG_PREFIX)


def is_metric(name: object) -> bool:
    """Returns whether a key of the logs, to which any callback may add, is the name of a metric."""
    return isinstance(name, str) and name.startswith(LOG_PREFIX)

"""Measurements of speed, cost and robustness. Tests of correctness are in `tests/`."""

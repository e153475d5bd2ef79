"""Measurements of speed; correctness has its home in `tests/`."""

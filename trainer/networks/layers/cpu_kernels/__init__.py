"""Implementations of convolutions that are used on CPUs only."""

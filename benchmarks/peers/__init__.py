"""Other implementations of the same GAN, each written like the examples of its framework.

Every module has a function `variants(case) -> {label: factory}`. A factory returns a `benchmarks.cases.Contender`; the
worker keeps the fastest variant.
"""

"""The other ways to train the same GAN, each written as its own documentation writes it.

Every module has `variants(case) -> {label: make}`: settings of which the worker keeps the fastest. `make()` returns a
`benchmarks.cases.Contender`.
"""

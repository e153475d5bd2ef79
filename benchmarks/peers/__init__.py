"""Other implementations of the same GAN, each written like the examples of its framework.

Every module has a function `variants(case, precisions) -> {label: factory}`. A factory returns a
`benchmarks.cases.Contender`; the worker keeps the fastest variant. A module may also have a function
`refinements(case, fastest) -> {label: factory}`: further forms of the fastest variant, which take long to build.
`Case.peers` names the peers that implement a case.
"""

import os
import shutil


def cpp_compiler() -> str | None:
    """Returns the C++ compiler that `torch.compile` uses on CPUs, or None if there is none."""
    return shutil.which(os.environ.get("CXX", "g++"))

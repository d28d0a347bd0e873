"""Build the optional C libraries; everything else is declared in pyproject.toml."""

import sys

from setuptools import Extension, setup

FLAGS = ["-std=gnu99", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]


def library(name: str) -> Extension:
    """One C file of the clocked engine, as a library."""
    return Extension(
        f"threefactor.clocked.{name}",
        [f"src/threefactor/clocked/{name}.c"],
        extra_compile_args=[] if sys.platform == "win32" else FLAGS,
        # Without a C compiler the package installs all the same and uses PyTorch operations.
        optional=True,
    )


setup(ext_modules=[library("_kernels"), library("_winograd")])

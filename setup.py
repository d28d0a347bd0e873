"""Build the optional C kernels; everything else is declared in pyproject.toml."""

import sys

from setuptools import Extension, setup

FLAGS = ["-std=gnu99", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]

setup(
    ext_modules=[
        Extension(
            "threefactor.clocked._kernels",
            ["src/threefactor/clocked/_kernels.c"],
            extra_compile_args=[] if sys.platform == "win32" else FLAGS,
            # Without a C compiler the package installs all the same and uses PyTorch operations.
            optional=True,
        )
    ]
)

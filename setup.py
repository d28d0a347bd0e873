"""Build the C libraries; everything else is declared in pyproject.toml."""

import sys
from collections.abc import Sequence
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = ["-std=gnu99", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
# PyTorch's threads, which are GCC's on Linux; elsewhere these kernels run on one.
OPENMP = ["-fopenmp"] if sys.platform == "linux" else None
PORTABLE = "src/threefactor/portable.h"
CLOCKED = "src/threefactor/clocked"
EVENTS = "src/threefactor/events/kernels"


def library(
    module: str,
    sources: list[str],
    headers: Sequence[str] = (),
    threads: list[str] | None = None,
) -> Extension:
    """C files as one library."""
    return Extension(
        module,
        sources,
        depends=[PORTABLE, *headers],
        extra_compile_args=["/O2", "/std:c11"]
        if sys.platform == "win32"
        else FLAGS + (threads or []),
        extra_link_args=threads or [],
        # Without a C compiler the package installs all the same: networks on a time grid use
        # PyTorch operations, and those of exact spike times say what is missing.
        optional=True,
    )


class Libraries(build_ext):
    """Builds libraries that are no Python modules: Windows must not look for an initialiser."""

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """Name what a library exports beside what its sources say."""
        return list(ext.export_symbols)


setup(
    cmdclass={"build_ext": Libraries},
    ext_modules=[
        library("threefactor.clocked._kernels", [f"{CLOCKED}/_kernels.c"], threads=OPENMP),
        library("threefactor.clocked._winograd", [f"{CLOCKED}/_winograd.c"]),
        library("threefactor.clocked._products", [f"{CLOCKED}/_products.c"], threads=OPENMP),
        library(
            "threefactor.events.kernels._library",
            sorted(glob(f"{EVENTS}/*.c")),
            sorted(glob(f"{EVENTS}/*.h")),
        ),
    ],
)

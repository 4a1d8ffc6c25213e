"""Builds the compiled kernel of slicing; everything else is in pyproject.toml."""

import sys
import sysconfig

from setuptools import Extension, setup

# No fused multiply-add and no fast mathematics: the loops give what torch gives, to the last bit.
GCC_OR_CLANG = (
    "-std=c++17 -O3 -fno-fast-math -ffp-contract=off -fno-exceptions -fno-rtti "
    "-fvisibility=hidden -Wno-psabi"
).split()
STABLE = not sysconfig.get_config_var("Py_GIL_DISABLED")  # one file for every Python from 3.11 on

setup(
    ext_modules=[
        Extension(
            "fairneuron._kernel",
            ["src/fairneuron/_kernel.cpp"],
            depends=["src/fairneuron/_rows.h"],
            extra_compile_args=[] if sys.platform == "win32" else GCC_OR_CLANG,
            py_limited_api=STABLE,
            optional=True,  # without a compiler slicing runs in torch, slower
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE else {},
)

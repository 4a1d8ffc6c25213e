"""Builds the compiled kernel of slicing; everything else is in pyproject.toml."""

import sys

from setuptools import Extension, setup

# No fused multiply-add: the compiled loops give what torch gives, to the last bit.
GCC_OR_CLANG = [
    "-std=c++17",
    "-O3",
    "-ffp-contract=off",
    "-fno-exceptions",
    "-fno-rtti",
    "-Wno-psabi",
]

setup(
    ext_modules=[
        Extension(
            "fairneuron._kernel",
            ["src/fairneuron/_kernel.cpp"],
            depends=["src/fairneuron/_rows.h"],
            extra_compile_args=[] if sys.platform == "win32" else GCC_OR_CLANG,
            py_limited_api=True,  # one file for every Python from 3.11 on
            optional=True,  # without a compiler slicing runs in torch, slower
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)

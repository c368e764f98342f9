"""The tests of the CuPy modules once more, with the real CuPy in the stand-in's place, on host memory."""

import os
import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HERE = sys.platform == "linux" and platform.machine() == "x86_64"
PARTS = {
    "modules": ("tests/test_cupy_modules.py", "-m", "not slow"),
    "matrices": ("tests/test_cupy_matrices.py", "-m", "not slow"),
    "storage": ("tests/test_cupy_modules.py", "-m", "slow", "-k", "sixteen_bits"),
    "further cells": ("tests/test_cupy_modules.py", "-m", "slow", "-k", "every_cell_of_the_tests"),
    "stretches": (
        "tests/test_stretches.py",
        "-m",
        "not slow",
        "-k",
        "any_shape or thousand or finite or bits_s",
    ),
    "layers": ("tests/test_layers.py", "-k", "cupy or backend"),
    "CuPy itself": ("tests/real_cupy",),
}


@pytest.mark.slow
@pytest.mark.skipif(not HERE, reason="the CUDA runtime within CuPy is replaced by jumps of x86-64, on Linux")
@pytest.mark.parametrize("part", PARTS)
def test_the_real_cupy_on_host_memory_passes_the_tests_of_the_modules(part: str) -> None:
    """In a process of its own, since it takes the stand-in's place."""
    assert find_spec("cupy"), "pip install -e '.[real-cupy]'"
    own = "-p real_cupy.plugin -o addopts=--strict-markers --tb=short".split()
    command = [sys.executable, "-m", "pytest", *own, *PARTS[part]]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    environment["PYTHONPATH"] = str(ROOT / "tests")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-5000:]

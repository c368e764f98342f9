"""The target languages. A backend lowers a plan to strings and lays them out with its templates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from gategen.errors import SpecError
from gategen.plan import Plan

NAMES = ("numpy", "cupy")  # what is built where nobody names one
FURTHER = ("c", "numpy_jvp", "cupy_jvp")
SECOND = "_jvp"  # how those end that make second derivatives, for the modules of the same language


@dataclass(frozen=True)
class Backend:
    """A target language: `files(plan)` gives the text of each generated file by its name.

    `arrays`: whether it works on whole arrays, so that a call is dear and memory cheap.
    """

    name: str
    files: Callable[[Plan], dict[str, str]]
    arrays: bool


def find(name: str) -> Backend:
    """The backend called `name`."""
    if name not in (*NAMES, *FURTHER):
        raise SpecError(f"there is no backend {name!r}", hint=f"backends: {', '.join((*NAMES, *FURTHER))}")
    module = import_module(f"gategen.backends.{name.removesuffix(SECOND)}")
    return Backend(name, module.second_files if name.endswith(SECOND) else module.files, module.ARRAYS)

"""What is found by its name when it is used: modules that can be called, and methods of a higher floor."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any


def make_callable(name: str, function: Callable[..., Any]) -> None:
    """Let a call of the module `name` be one of its function of the same name.

    `gategen.build(...)` then works also where that name was bound to the module.
    """

    class Callable_(ModuleType):
        def __call__(self, *args: Any, **options: Any) -> Any:
            return function(*args, **options)

    sys.modules[name].__class__ = Callable_


def method_of(module: str, function: str, doc: str = "") -> Callable[..., Any]:
    """A method that is a function of another module, imported when it is first called.

    So a value can show itself in a notebook, while the module that shows it stands on a floor above.
    """

    def method(self: Any, *args: Any) -> Any:
        return getattr(import_module(f"gategen.{module}"), function)(self, *args)

    method.__name__, method.__doc__ = function, doc or None
    return method

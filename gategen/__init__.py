"""gategen: recurrent cells from equations, with derived and tested gradients, as standalone NumPy and CUDA.

The names of the spec language and of the pipeline are loaded on first use, so that `import gategen` (and with
it `gategen --help` and `gategen.layers`) costs neither SymPy nor NumPy.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

__version__ = "0.1.0"

_LANGUAGE = """
Eq inputs states gates matrices vectors scalars constants size concat outer sum_ mean var max_ layer_norm
softmax logsumexp cumsum shifted conv t batch_norm identity lower strict_lower shift rotation blocks inv expm
norm row_norms
""".split()

_HOME = {
    **dict.fromkeys(_LANGUAGE, "spec.language"),
    "Cell": "spec.cell",
    "load": "spec.load",
    "build": "build",
    "compile": "compiled",
    "diff": "diff",
    "verify": "judge.verify",
    "GategenError": "errors",
    "SpecError": "errors",
    "UnsupportedError": "errors",
}


def _functions() -> dict[str, Any]:
    """The elementwise functions that specs may use, by name: those of the table."""
    table = import_module("gategen.spec.functions").TABLE
    return {row.name: row.apply for row in table if row.public}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted({*_HOME, *_functions()})
    if name in _HOME:
        value = getattr(import_module(f"gategen.{_HOME[name]}"), name)
    elif not name.startswith("_") and not find_spec(f"gategen.{name}") and name in (known := _functions()):
        value = known[name]
    else:
        raise AttributeError(f"module 'gategen' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_functions()})

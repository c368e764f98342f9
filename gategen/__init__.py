"""gategen: recurrent cells from equations, with derived and tested gradients, as standalone NumPy and CUDA.

The names of the spec language and of the pipeline are loaded on first use, so that `import gategen` (and with
it `gategen --help` and `gategen.layers`) costs neither SymPy nor NumPy.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LANGUAGE = """
Eq inputs states gates matrices vectors scalars constants sigmoid tanh relu leaky_relu elu silu gelu
softplus log_sigmoid softsign hard_sigmoid hard_tanh exp log log1p sqrt abs sign sin cos square maximum
minimum where equal clip mod stop_gradient concat sum_ mean var layer_norm batch_norm
""".split()

_HOME = {
    **dict.fromkeys(_LANGUAGE, "spec.language"),
    "Cell": "spec.cell",
    "load": "spec.load",
    "build": "build",
    "diff": "diff",
    "verify": "judge.verify",
    "GategenError": "errors",
    "SpecError": "errors",
    "UnsupportedError": "errors",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gategen' has no attribute {name!r}")
    value = getattr(import_module(f"gategen.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])

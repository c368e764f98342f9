"""What gategen found on this machine, and what to install where something is missing."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version

NOT_FOUND = "not found"


def findings() -> list[tuple[str, str, str]]:
    """What, what was found of it, and what it is for or how to get it."""
    return [
        ("NumPy", _numpy(), "runs the NumPy modules"),
        ("SymPy", version("sympy"), "reads the equations"),
        _cupy(),
        _gpu(),
        _compiler(),
        _c_compiler(),
        _package("PyTorch", "torch", "runs `gategen.torch`", "pip install 'gategen[torch]'"),
        _package("ONNX", "onnx", "`export` writes models with it", "pip install 'gategen[onnx]'"),
    ]


def _numpy() -> str:
    import numpy as np

    return f"{np.__version__}, BLAS: {_blas()}"


def _blas() -> str:
    import numpy as np

    found = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    words = str(found.get("name", "")), str(found.get("version", ""))
    return " ".join(word for word in words if word and word != "unknown") or "none, products will be slow"


def _cupy() -> tuple[str, str, str]:
    try:
        import cupy
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "cupy"
        found = NOT_FOUND if missing else f"does not load: {_first_line(error)}"
        return "CuPy", found, "runs the CuPy modules: pip install 'gategen[cuda13]' or 'gategen[cuda12]'"
    return "CuPy", str(cupy.__version__), "runs the CuPy modules"


def _gpu() -> tuple[str, str, str]:
    from gategen.judge.host import gpu

    name = gpu()
    if name:
        return "GPU", name, "runs the CuPy modules"
    return (
        "GPU",
        NOT_FOUND,
        "an NVIDIA GPU with its driver and CuPy; without one `verify` emulates it on the CPU",
    )


def _compiler() -> tuple[str, str, str]:
    from gategen import emulator

    path = emulator.compiler()
    if path is None:
        return "C++ compiler", NOT_FOUND, "checks CUDA without a GPU: install g++ or clang++, or set CXX"
    return "C++ compiler", _said(path), "checks CUDA without a GPU"


def _c_compiler() -> tuple[str, str, str]:
    from gategen.judge.host import c_compiler

    path = c_compiler()
    if path is None:
        return "C compiler", NOT_FOUND, "compiles the C modules: install gcc or clang, or set CC"
    return "C compiler", _said(path), "compiles the C modules"


def _said(compiler: str) -> str:
    said = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    return said.partition("\n")[0] or compiler


def _package(name: str, package: str, use: str, how: str) -> tuple[str, str, str]:
    try:
        return name, version(package), use
    except PackageNotFoundError:
        return name, NOT_FOUND, f"{use}: {how}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

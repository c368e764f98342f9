"""ONNX: nets of layers as models that onnxruntime and others run, one `Scan` for every layer and direction.

    nodes        how nodes are made, and names for their values
    expressions  SymPy -> nodes
    steps        the ops of a graph -> nodes
    scan         a layer in one direction
    native       a layer as an operator of ONNX: GRU, LSTM, RNN
    model        the inputs, the outputs and the layers of a model

Models compute outputs and final states; there is no training in them. `RNN.to_onnx` of layers calls `export`.
"""

from __future__ import annotations

import os
import re

from gategen.backends.interface import sha_of
from gategen.compiled import cells
from gategen.errors import GategenError
from gategen.files import write_file
from gategen.onnx.model import OPSET, Net, model
from gategen.onnx.native import Native
from gategen.spec.cell import Cell
from gategen.spec.load import Target, find_builtin, load_one

__all__ = ["OPSET", "Native", "Net", "cell_of", "export", "model"]

MARK = re.compile(rb"\x08.\x12\x07gategen", re.S)  # how every file begins: a version, and who produced it


def export(path: str | os.PathLike[str], net: Net, *, opset: int = OPSET, force: bool = False) -> None:
    """Write a net as an ONNX model, whole or not at all.

    Raises `GategenError` where that cannot be: without the package onnx, for a path that cannot be written,
    and for a file there that is not gategen's unless `force` is given.
    """
    target = os.fspath(path)
    data = model(net, opset).SerializeToString()
    try:
        if not force and os.path.isfile(target) and not _ours(target):
            raise GategenError(f"{target} was not written by gategen: only force overwrites it")
        write_file(target, data)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = getattr(error, "strerror", None) or error
        raise GategenError(f"cannot write {target}: {reason}") from error


def _ours(path: str) -> bool:
    with open(path, "rb") as file:
        return MARK.match(file.read(64)) is not None


def cell_of(name: str, sha: str, given: Target | None = None) -> Cell:
    """The cell whose module says `name` and `SPEC_SHA256`: the one that is given, or that `compile` was
    given, or the built-in one.

    Raises `GategenError` where that is another, or where there is none.
    """
    cell = load_one(given) if given is not None else cells.get(sha) or find_builtin(name)
    if cell is not None and sha_of(cell) == sha:
        return cell
    if given is None:
        raise GategenError(f"the module {name} is not of a built-in cell: give its cell, cell=")
    assert cell is not None
    raise GategenError(f"the module {name} is of another cell than {cell.name}, or of another version of it")

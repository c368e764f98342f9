"""The weights of a net as a C header, for programs without Python.

It has what the functions of the backend `c` are given: for every layer and direction the arrays of
`CELL_params` in its order, a `CELL_params` of them, running statistics where there are some, and all sizes.
Numbers have the digits that give the same number back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gategen.backends.c.functions import CFile, letters_of, shape_of
from gategen.backends.c.lines import KEYWORDS, CModule
from gategen.backends.folding import WIDTH
from gategen.backends.interface import members_of
from gategen.build import HEAD, HEADER
from gategen.errors import GategenError
from gategen.files import write_file
from gategen.layers import RNN
from gategen.onnx import cell_of
from gategen.plan import Plan, plan
from gategen.render import render
from gategen.spec.cell import Cell

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Stored:
    """An array in C."""

    name: str
    count: int
    comment: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """What a layer holds in one direction."""

    name: str
    title: str
    arrays: tuple[Stored, ...]  # as `CELL_params` points to them
    statistics: tuple[Stored, ...]  # as `CELL_buffers` does


def write(
    path: str | os.PathLike[str], net: RNN, *, cell: Any = None, prefix: str = "", force: bool = False
) -> None:
    """Write the header of a net, whole or not at all; a file that gategen wrote is replaced.

    cell: the cell of the net's module, its name or its file, where it is not a built-in one.
    prefix: what the names of the header begin with; by default the name of the cell.
    force: also replace a file that gategen did not write.

    Raises `GategenError`.
    """
    target = os.fspath(path)
    data = header(net, cell_of(net.module.NAME, net.module.SPEC_SHA256, cell), prefix).encode()
    try:
        if not force and os.path.isfile(target) and not _ours(target):
            raise GategenError(f"{target} was not written by gategen (no header): only force overwrites it")
        write_file(target, data)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = getattr(error, "strerror", None) or error
        raise GategenError(f"cannot write {target}: {reason}") from error


def header(net: RNN, cell: Cell, prefix: str = "") -> str:
    """The text of the header. Raises `GategenError`."""
    prefix = prefix or cell.name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", prefix) or prefix in KEYWORDS:
        raise GategenError(f"names in C cannot begin with {prefix!r}: give letters, digits and _")
    made = plan(cell)
    file = CFile(CModule(made))
    layers = tuple(_layers(net, made, file, prefix))
    names = {letter: size for size, letter in file.names.sizes.items()}
    sizes = {"LAYERS": net.num_layers, "DIRECTIONS": 2 if net.bidirectional else 1}
    for layer, width in enumerate(net.widths):
        known = {**net.sizes, "input": width}
        sizes |= {f"{letter}_L{layer}": known[names[letter]] for letter in letters_of(file.module)}
    dtypes = {array.dtype.name for array in net.state_dict().values()}
    return render(
        "c/weights.h.jinja",
        {
            "cell": cell.name,
            "title": cell.title,
            "prefix": prefix,
            "guard": f"{prefix.upper()}_WEIGHTS_H",
            "double": "float64" in dtypes,
            "sizes": [(f"{prefix.upper()}_{name}", number) for name, number in sizes.items()],
            "layers": layers,
            "statistics": any(layer.statistics for layer in layers),
        },
    )


def _layers(net: RNN, made: Plan, file: CFile, prefix: str) -> Iterator[Layer]:
    state = net.state_dict()
    directions = ("", "forward", "backward") if net.bidirectional else ("",)
    for k, cell in enumerate(net.cells):
        layer, direction = divmod(k, len(directions[1:]) or 1)
        arrays = []
        for f in made.fields:
            parts = {name + cell.suffix: state[name + cell.suffix] for name in f.packed}
            comment = f"{shape_of(file, f)}  {members_of(file.module, f)}"
            arrays.append(_stored(f"{prefix}_{f.name}{cell.suffix}", parts, comment))
        statistics = []
        for s in made.step.forward.graph.statistics:
            name = f"{s.value.name}{cell.suffix}"
            size = file.names.letter(s.value.size)
            statistics.append(_stored(f"{prefix}_{name}", {name: state[name]}, f"({size},)"))
        said = [f"layer {layer}", *directions[1:][direction : direction + 1]]
        yield Layer(f"{prefix}{cell.suffix}", ", ".join(said), tuple(arrays), tuple(statistics))


def _stored(name: str, parts: Mapping[str, Array], comment: str) -> Stored:
    """Arrays one below the other."""
    for called, part in parts.items():
        if not np.isfinite(part).all():
            raise GategenError(f"{called} holds what is no finite number, which C has no words for")
    whole = np.concatenate([np.ravel(part) for part in parts.values()])
    return Stored(name, whole.size, comment, lines(whole))


def lines(array: Array) -> tuple[str, ...]:
    """The numbers of an array in C, of float64 or as float32, several a line."""
    digits, mark = (17, "") if array.dtype == np.float64 else (9, "f")
    found = [""]
    for value in np.ravel(array).astype(np.float64).tolist():
        text = f"{value:.{digits}g}"
        text += f"{'' if '.' in text or 'e' in text else '.0'}{mark},"
        if len(found[-1]) + len(text) + 5 > WIDTH:
            found.append("")
        found[-1] += f" {text}" if found[-1] else text
    return tuple(found)


def _ours(path: str) -> bool:
    with open(path, "rb") as file:
        return HEADER in file.read(HEAD)

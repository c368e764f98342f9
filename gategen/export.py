"""Nets for `gategen export`: of a cell, with the weights of a file, or random ones as `init` draws them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np

from gategen.backends.interface import sha_of
from gategen.compiled import compile
from gategen.errors import GategenError
from gategen.layers import RNN
from gategen.layers.files import RECORD, read, read_record
from gategen.spec.cell import Cell


@dataclass(frozen=True)
class Asked:
    """What is asked of a net; None where weights may tell it."""

    sizes: Mapping[str, int] = field(default_factory=dict)  # `input`, `hidden` and others by name
    num_layers: int | None = None
    bidirectional: bool = False
    batch_first: bool = False
    dtype: str | None = None
    seed: int = 0


def net_of(cell: Cell, asked: Asked, weights: str | None = None) -> RNN:
    """The net, ready for inference.

    With `weights`, a file that `RNN.save` wrote, everything is as there, and what is asked must agree with
    it. Sizes that nobody tells are that of `hidden`. Raises `GategenError`.
    """
    try:
        if weights:
            arrays = read(weights)
            return _made(cell, _agreed(cell, asked, weights, arrays), arrays).eval()
        for size in ("hidden", *["input"] * cell.has_input_size):
            if size not in asked.sizes:
                raise ValueError(f"nothing tells the size {size}: give --{size}, or --weights")
        return _made(cell, asked, {}).eval()
    except OSError as error:
        raise GategenError(f"cannot read {weights}: {error.strerror}") from error
    except (TypeError, ValueError) as error:
        raise GategenError(str(error)) from error


def _agreed(cell: Cell, asked: Asked, weights: str, arrays: Mapping[str, Any]) -> Asked:
    """What the record in a file says. Raises `GategenError` where that is not what is asked."""
    record = read_record(arrays[RECORD]) if RECORD in arrays else {}
    if not {"spec_sha256", "sizes", "num_layers", "bidirectional"} <= set(record):
        raise GategenError(f"{weights} does not say of which net it is: save the net again, with RNN.save")
    if record["spec_sha256"] != sha_of(cell):
        raise GategenError(
            f"{weights} holds the weights of the cell {record.get('cell')}, and {cell.name} is another one, "
            "or has other constants: give the cell that the net is of"
        )
    sizes, layers = record["sizes"], record["num_layers"]
    for size, length in asked.sizes.items():
        if sizes.get(size) != length:
            raise GategenError(
                f"{size} is to be {length}, and in {weights} it is {sizes.get(size, 'not there')}"
            )
    if asked.num_layers not in (None, layers):
        raise GategenError(f"there are to be {asked.num_layers} layers, and in {weights} there are {layers}")
    if asked.bidirectional and not record["bidirectional"]:
        raise GategenError(f"the net is to be bidirectional, and that in {weights} is not")
    dtypes = {array.dtype for name, array in arrays.items() if name != RECORD}
    dtype = asked.dtype or ("float64" if np.dtype("float64") in dtypes else "float32")
    return Asked(sizes, layers, record["bidirectional"], asked.batch_first, dtype, asked.seed)


def _made(cell: Cell, asked: Asked, arrays: Mapping[str, Any]) -> RNN:
    """The net. Raises TypeError and ValueError."""
    module = compile(cell)
    hidden = asked.sizes["hidden"]
    sizes = {size: asked.sizes.get(size, hidden) for size in cell.sizes}
    if unknown := sorted(set(asked.sizes) - set(sizes)):
        raise ValueError(f"{cell.name} has no size {unknown[0]}; its sizes: {', '.join(sizes)}")
    further = {size: length for size, length in sizes.items() if size not in ("input", "hidden")}
    fixed = [array for array in cell.arrays if not array.trainable and not array.contents]
    if fixed and not arrays:
        names = ", ".join(array.name for array in fixed)
        raise ValueError(f"nothing tells what {names} of {cell.name} holds: give --weights")
    wanted = [name for name in signature(module.init).parameters if name not in _ALWAYS]
    blank = [np.ones(array.lengths(sizes)) for array in fixed]
    contents: dict[str, Any] = dict(zip(wanted, [*further.values(), *blank], strict=True))
    net = RNN(
        module,
        asked.sizes.get("input"),
        hidden,
        asked.num_layers or 1,
        asked.bidirectional,
        asked.batch_first,
        dtype=asked.dtype or "float32",
        seed=asked.seed,
        **contents,
    )
    if arrays:
        net.load_state_dict(arrays)
    return net


_ALWAYS = ("input_size", "hidden_size", "seed", "dtype")  # of `init`

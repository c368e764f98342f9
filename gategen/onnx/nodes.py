"""`Nodes`: how nodes of an ONNX graph are made, one after the other, and names for their values.

The package onnx is imported when nodes are made, not when this module is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from gategen.errors import MissingError
from gategen.graph import fresh

Array = np.ndarray[Any, Any]
AXES_ARE_GIVEN = 18  # the first opset whose ReduceMax takes its axes as an input


def package(module: str = "") -> Any:
    """The package onnx, or a module of it. Raises `MissingError`."""
    try:
        return import_module(f"onnx.{module}" if module else "onnx")
    except ModuleNotFoundError as error:
        if error.name not in ("onnx", f"onnx.{module}"):
            raise
        raise MissingError("writing ONNX needs the package onnx: pip install 'gategen[onnx]'") from error


class Nodes:
    """Nodes in order, of the model or of the body of a loop in it, which shares names and constants.

    A body reads what the nodes before its loop made by name. `dtype` is that of all numbers, `opset` the
    version of the operators.
    """

    def __init__(self, dtype: Any, around: Nodes | None = None, opset: int = AXES_ARE_GIVEN - 1) -> None:
        self.dtype = np.dtype(dtype)
        self.opset: int = around.opset if around else opset
        self.helper = package("helper")
        self.type = self.helper.np_dtype_to_tensor_dtype(self.dtype)
        self.nodes: list[Any] = []
        self.root: Nodes = around.root if around else self
        self.taken: set[str] = around.taken if around else set()
        self.constants: dict[str, Array] = around.constants if around else {}
        self.memo: dict[Any, Any] = around.memo if around else {}

    def inside(self) -> Nodes:
        """Nodes of a body."""
        return Nodes(self.dtype, self)

    def name(self, wish: str) -> str:
        name = fresh(wish, self.taken)
        self.taken.add(name)
        return name

    def __call__(self, op: str, *inputs: str | float, wish: str = "", **attributes: Any) -> str:
        """The value of a new node. Inputs are values, or numbers of the dtype of all."""
        (value,) = self.several(op, inputs, [wish or op.lower()], **attributes)
        return value

    def several(
        self, op: str, inputs: Iterable[str | float], wishes: Sequence[str], **attributes: Any
    ) -> list[str]:
        """The values of a new node that has several."""
        outputs = [self.name(wish) for wish in wishes]
        given = [value if isinstance(value, str) else self.number(value) for value in inputs]
        self.nodes.append(self.helper.make_node(op, given, outputs, name=outputs[0], **attributes))
        return outputs

    def named(self, value: str, wish: str) -> str:
        """A value under a name of its own, where the last node made it."""
        last = self.nodes[-1] if self.nodes else None
        if last is None or list(last.output) != [value] or value in self.memo.values():
            return value
        self.taken.discard(value)
        last.name = last.output[0] = self.name(wish)
        return str(last.name)

    def once(self, op: str, *inputs: str, wish: str = "", **attributes: Any) -> str:
        """The same outside of all bodies, and made once."""
        key = (op, *inputs, *sorted((name, str(value)) for name, value in attributes.items()))
        if key not in self.memo:
            self.memo[key] = self.root(op, *inputs, wish=wish, **attributes)
        return str(self.memo[key])

    def largest(self, value: str, keep: int, axis: int = -1) -> str:
        """The largest of an axis, which goes if `keep` is 0."""
        if self.opset < AXES_ARE_GIVEN:
            return self("ReduceMax", value, axes=[axis], keepdims=keep)
        return self("ReduceMax", value, self.integers(axis), keepdims=keep)

    # ------------------------------------------------------------------------------------------ constants

    def array(self, array: Array, wish: str) -> str:
        """A constant."""
        name = self.name(wish)
        self.constants[name] = array
        return name

    def number(self, value: float) -> str:
        """A number of the dtype of all; every number is there once."""
        return self._constant(np.asarray(value, self.dtype), repr(float(value)))

    def integers(self, *values: int) -> str:
        """Sizes, positions, axes: one axis of integers."""
        return self._constant(np.array(values, np.int64), ",".join(map(str, values)))

    def integer(self, value: int) -> str:
        return self._constant(np.array(value, np.int64), f"the {value}")

    def _constant(self, array: Array, wish: str) -> str:
        key = wish, array.dtype.str
        if key not in self.memo:
            self.memo[key] = self.array(array, wish)
        return str(self.memo[key])

    # ------------------------------------------------------------------------------------------ loops

    def scan(
        self,
        body: Nodes,
        given: Sequence[tuple[str, tuple[int, ...]]],
        masks: Sequence[str],
        made: Sequence[tuple[str, tuple[int, ...]]],
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        states: int,
        backwards: bool,
    ) -> None:
        """A `Scan` over the first axis of all inputs but the first, which are `states`.

        given, made: what the body is given and makes, the states first: names, and the shape of a row.
        masks: names of the last inputs of the body, truth values (B, 1).
        """

        def infos(pairs: Iterable[tuple[str, tuple[int, ...]]]) -> list[Any]:
            info = self.helper.make_tensor_value_info
            return [info(name, self.type, ["B", *shape]) for name, shape in pairs]

        truth = package().TensorProto.BOOL
        bools = [self.helper.make_tensor_value_info(mask, truth, ["B", 1]) for mask in masks]
        graph = self.helper.make_graph(body.nodes, "step", [*infos(given), *bools], infos(made))
        scanned, histories = len(inputs) - states, len(outputs) - states
        turned = {"scan_input_directions": [1] * scanned, "scan_output_directions": [1] * histories}
        self.nodes.append(
            self.helper.make_node(
                "Scan",
                inputs,
                outputs,
                name=self.name("scan"),
                body=graph,
                num_scan_inputs=scanned,
                **{name: ones for name, ones in turned.items() if backwards and ones},
            )
        )

    def choice(self, condition: str, one: str, other: str, shape: list[Any]) -> str:
        """One of two values, whose shapes may differ: nothing is broadcast."""
        branches = []
        for value in (one, other):
            inside = self.inside()
            name = inside("Identity", value)
            info = self.helper.make_tensor_value_info(name, self.type, [shape[0], None, *shape[2:]])
            branches.append(self.helper.make_graph(inside.nodes, "choice", [], [info]))
        return self("If", condition, then_branch=branches[0], else_branch=branches[1])

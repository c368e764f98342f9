"""A net of layers as an ONNX model: its inputs and outputs, its parameters, and the way through the layers.

    x            (T, B, input), where the batch comes first (B, T, input)
    lengths      (B,) integers; may be left out: all sequences have T steps
    initial_h    (layers * directions, B, hidden), one for every state; may be left out: the cell's own start
    ...          the further inputs by name, laid out as x, or (B, size) where they are constant in time

    y            laid out as x, the directions side by side; y_a, y_b where there are several outputs
    final_h      as initial_h: the states of each sequence at its own end

T and B are open, and what may be left out has a default value in the model. Where the cell itself has an
input of such a name, that of the model gets a number: `lengths_2`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from gategen.errors import GategenError
from gategen.graph import Graph, Value, evaluate, flatten, shape_of, start, with_computed
from gategen.onnx.native import Native, run_native
from gategen.onnx.nodes import Array, Nodes, package
from gategen.onnx.scan import Direction, Frame, Rules, run
from gategen.onnx.steps import inference
from gategen.spec.cell import Cell
from gategen.spec.names import Extent, extent_of, names_of_size

OPSETS = range(13, 28)  # those whose models onnxruntime has run
OPSET = 17
LIMIT = 2**31 - 2**24  # bytes of parameters in a file, beside all else that is in it
FOREVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Net:
    """What a model is made of: a cell, its sizes, and parameters as `RNN.state_dict` of layers has them."""

    cell: Cell
    sizes: Mapping[str, int]  # by name; `input` is that of the lowest layer
    parameters: Mapping[str, Array]  # by name, layer and direction: `W_z_l0_reverse`; statistics too
    num_layers: int = 1
    bidirectional: bool = False
    batch_first: bool = False
    native: tuple[Native, ...] = ()  # the operators for the layers, where those of ONNX are to be used
    constant: tuple[str, ...] = ()  # the further inputs that are (B, size)
    lengths: bool = True  # whether the model has that input
    initial: bool = True  # whether it has the initial states

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the parameters; float32 where there are none."""
        return next((array.dtype for array in self.parameters.values()), np.dtype("float32"))


def model(net: Net, opset: int = OPSET) -> Any:
    """The net as an `onnx.ModelProto`. Raises `GategenError`."""
    if opset not in OPSETS:
        raise GategenError(f"the opset is {opset}, expected {OPSETS[0]} to {OPSETS[-1]}")
    if net.dtype not in (np.float32, np.float64):
        raise GategenError(f"the parameters have dtype {net.dtype}, expected float32 or float64")
    if (size := sum(array.nbytes for array in net.parameters.values())) > LIMIT:
        raise GategenError(f"the parameters take {size} bytes, and a file of ONNX has at most 2 GiB")
    further = [symbol.name for symbol in net.cell.inputs[1:]]
    for name in net.constant:
        if name not in further:
            known = ", ".join(further) or "none"
            raise GategenError(f"{net.cell.name} has no further input {name!r}; further inputs: {known}")
    return _Maker(net, opset).model()


class _Maker:
    """The nodes of a model in the making, its inputs and its outputs."""

    def __init__(self, net: Net, opset: int) -> None:
        self.net = net
        self.cell = net.cell
        self.opset = opset
        self.nodes = Nodes(net.dtype, opset=opset)
        self.helper = self.nodes.helper
        step, first = flatten(net.cell), flatten(net.cell, first=True) if net.cell.first else None
        self.rules = Rules(inference(step), inference(first) if first else None)
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def model(self) -> Any:
        """All of it."""
        helper = self.helper
        sequence, *further = self.cell.inputs
        self.nodes.taken |= {symbol.name for symbol in further}
        row = self.features(sequence.size, 0)
        x = self.given("x", self.laid_out(*row))
        lengths = self.given_lengths()
        starts = {symbol.name: self.given_state(symbol) for symbol in self.cell.states}
        others = {symbol.name: self.given_input(symbol) for symbol in further}

        x = self.turned(x, 2 + len(row))
        self.shape = self.nodes("Shape", x, wish="shape")
        batch = self.nodes("Gather", self.shape, self.nodes.integers(1), axis=0, wish="batch")
        if lengths:
            lengths = self.nodes("Expand", self.nodes("Min", lengths, self.extent(0)), batch, wish="ends")
        frame, starts = self.framed(batch, lengths, starts)
        others = {name: self.over_time(name, value) for name, value in others.items()}
        y, final = self.layers({sequence.name: x, **others}, lengths, starts, frame)

        for (name, value), output in zip(self.rules.step.outputs, y, strict=True):
            *axes, last = self.features(value.size, self.net.num_layers - 1)
            shape = self.laid_out(*axes, self.net.directions * last)
            self.result(name, self.turned(output, len(shape)), shape)
        for symbol in self.cell.states:
            self.result(f"final_{symbol.name}", final[symbol.name], self.stacked(symbol.size))
        constants = [package("numpy_helper").from_array(a, n) for n, a in self.nodes.constants.items()]
        graph = helper.make_graph(
            self.nodes.nodes,
            self.cell.name,
            self.inputs,
            self.outputs,
            constants,
            "\n".join(self.cell.text()),
        )
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=self.version(opsets), producer_name="gategen"
        )

    def version(self, opsets: list[Any]) -> int:
        """Of the format: as old as the opset allows, for the sake of old runtimes."""
        try:
            return max(8, int(self.helper.find_min_ir_version_for(opsets)))
        except ValueError as error:
            known = package().__version__
            raise GategenError(f"onnx {known} does not know opset {opsets[0].version}") from error

    # ------------------------------------------------------------------------------------------ layers

    def layers(
        self, given: Mapping[str, str], lengths: str, starts: Mapping[str, str], frame: Frame
    ) -> tuple[tuple[str, ...], dict[str, str]]:
        """The outputs of the highest layer, and the final states of all."""
        net, nodes = self.net, self.nodes
        sequence = self.cell.inputs[0].name
        D = net.directions
        final: dict[str, list[str]] = {name: [] for name in starts}
        y: tuple[str, ...] = (given[sequence],)
        for layer in range(net.num_layers):
            if net.native:
                part = {
                    name: nodes("Slice", value, *map(nodes.integers, (D * layer, D * layer + D, 0)))
                    for name, value in starts.items()
                }
                output, ends = run_native(nodes, net.native[layer], f"l{layer}", y[0], lengths, part)
                y = (output,)
                for name, value in ends.items():
                    final[name].append(value)
                continue
            sides = []
            for turned in range(D):
                direction = self.direction(layer, turned, {**given, sequence: y[0]}, starts)
                found = run(nodes, self.rules, frame, direction)
                sides.append(found.outputs)
                for name, value in found.final.items():
                    final[name].append(nodes("Unsqueeze", value, nodes.integers(0)))
            y = tuple(self.joined(parts, -1) for parts in zip(*sides, strict=True))
        return y, {name: self.joined(values, 0) for name, values in final.items()}

    def direction(
        self, layer: int, turned: int, given: Mapping[str, str], starts: Mapping[str, str]
    ) -> Direction:
        """One layer in one direction: its parameters, its inputs, its start."""
        suffix = suffix_of(layer, turned)
        sizes = {**self.net.sizes, "input": self.width(layer)}
        graphs = [graph for graph in (self.rules.step, self.rules.first) if graph]
        known = {v: given[v.name] for graph in graphs for v in graph.inputs if v.name in given}
        for graph in graphs:
            for value, (source, array) in held(graph, self.cell, self.net.parameters, suffix, sizes).items():
                known[value] = self.parameter(f"{source}{suffix}", array)
        k = self.nodes.integer(self.net.directions * layer + turned)
        start_ = {name: self.nodes("Gather", value, k, axis=0) for name, value in starts.items()}
        return Direction(known, start_, sizes, bool(turned), suffix)

    def parameter(self, name: str, array: Array) -> str:
        """A constant that is there once under its name."""
        if name not in self.nodes.memo:
            self.nodes.memo[name] = self.nodes.array(array, name)
        return str(self.nodes.memo[name])

    def joined(self, values: Any, axis: int) -> str:
        first, *others = values
        return self.nodes("Concat", first, *others, axis=axis) if others else str(first)

    # ------------------------------------------------------------------------------------------ what is given

    def given(self, wish: str, shape: list[Any], default: Array | None = None) -> str:
        """An input of the model; with a default value it may be left out."""
        name, kind = self.nodes.name(wish), self.nodes.type
        if default is not None:
            self.nodes.constants[name] = default
            kind = self.helper.np_dtype_to_tensor_dtype(default.dtype)
        self.inputs.append(self.helper.make_tensor_value_info(name, kind, shape))
        return name

    def given_lengths(self) -> str:
        """The lengths, which are above T where they are left out; empty where the model has none."""
        return self.given("lengths", ["B"], np.array([FOREVER], np.int64)) if self.net.lengths else ""

    def given_input(self, symbol: Any) -> str:
        features = self.features(symbol.size, 0)
        shape = ["B", *features] if symbol.name in self.net.constant else self.laid_out(*features)
        self.nodes.taken.discard(symbol.name)
        return self.given(symbol.name, shape)

    def given_state(self, symbol: Any) -> str:
        """The initial state: by default the cell's own, or nothing where it has a rule for the first step."""
        stack, *shape = self.stacked(symbol.size)
        default = self.own_start(symbol)
        if not self.net.initial:
            return self.nodes.array(default, f"start_{symbol.name}")
        if self.rules.first:
            stack, default = None, default[:0]
        return self.given(f"initial_{symbol.name}", [stack, *shape], default)

    def own_start(self, symbol: Any) -> Array:
        """(layers * directions, 1, size): where each layer and direction begins by itself."""
        graph, parts = start(self.cell), []
        for layer in range(self.net.num_layers):
            for turned in range(self.net.directions):
                sizes = {**self.net.sizes, "input": self.width(layer)}
                if graph is None:
                    parts.append(np.full((1, *self.features(symbol.size, layer)), float(symbol.initial)))
                    continue
                suffix = suffix_of(layer, turned)
                found = held(graph, self.cell, self.net.parameters, suffix, sizes)
                arrays = {value.name: np.asarray(array, float) for value, (_, array) in found.items()}
                parts.append(evaluate(graph, arrays, {}, sizes=sizes, steps=1).outputs[symbol.name][0])
        return np.stack(parts).astype(self.net.dtype)

    def result(self, wish: str, value: str, shape: list[Any]) -> None:
        """An output of the model."""
        name = self.nodes("Identity", value, wish=wish)
        self.outputs.append(self.helper.make_tensor_value_info(name, self.nodes.type, shape))

    # ------------------------------------------------------------------------------------------ shared

    def framed(self, batch: str, lengths: str, starts: Mapping[str, str]) -> tuple[Frame, dict[str, str]]:
        """The frame of all layers, and the initial states (layers * directions, B, size)."""
        nodes, zero, one = self.nodes, self.nodes.integer(0), self.nodes.integer(1)
        lead = nodes("Gather", self.shape, nodes.integers(0, 1), axis=0, wish="lead")
        steps = nodes("Unsqueeze", nodes("Range", zero, self.extent(0), one), nodes.integers(1))
        alive = ""
        if lengths:
            alive = nodes("Unsqueeze", nodes("Less", steps, lengths), nodes.integers(-1), wish="alive")

        filled, chosen = {}, ""
        for symbol in self.cell.states:
            stack = nodes.integers(self.net.num_layers * self.net.directions)
            features = nodes.integers(*self.features(symbol.size, 0))
            shape = nodes.once("Concat", stack, batch, features, axis=0)
            value = starts[symbol.name]
            if self.rules.first and self.net.initial:
                there = nodes("Greater", nodes("Size", value), zero)
                own = nodes("Expand", self.nodes.array(self.own_start(symbol), f"start_{symbol.name}"), shape)
                value = nodes.choice(there, value, own, self.stacked(symbol.size))
                chosen = nodes("Or", chosen, there) if chosen else there
            else:
                value = nodes("Expand", value, shape)
            filled[symbol.name] = value
        if not self.rules.first:
            return Frame(lead, batch, alive, ()), filled
        begins = []
        for place in (zero, nodes("Sub", lengths or self.extent(0), one)):
            at = nodes("Equal", steps, place)
            at = nodes("And", at, nodes("Not", chosen)) if chosen else at
            begins.append(nodes("Unsqueeze", at, nodes.integers(-1), wish="begins"))
        return Frame(lead, batch, alive, (begins[0], begins[1])), filled

    def over_time(self, name: str, value: str) -> str:
        """A further input as (T, B, size)."""
        symbol = next(symbol for symbol in self.cell.inputs if symbol.name == name)
        if name not in self.net.constant:
            return self.turned(value, 2 + len(self.features(symbol.size, 0)))
        features = self.nodes.integers(*self.features(symbol.size, 0))
        lead = self.nodes("Gather", self.shape, self.nodes.integers(0, 1), axis=0)
        return self.nodes("Expand", value, self.nodes("Concat", lead, features, axis=0))

    def extent(self, axis: int) -> str:
        """T or B, as a number."""
        return self.nodes.once("Gather", self.shape, self.nodes.integer(axis), axis=0)

    def turned(self, value: str, axes: int = 3) -> str:
        """From the order of axes outside to that inside, and back."""
        perm = [1, 0, *range(2, axes)]
        return self.nodes("Transpose", value, perm=perm) if self.net.batch_first else value

    # ------------------------------------------------------------------------------------------ sizes

    def laid_out(self, *features: int) -> list[Any]:
        """The shape of a sequence, as the caller sees it."""
        return ["B", "T", *features] if self.net.batch_first else ["T", "B", *features]

    def stacked(self, size: Extent) -> list[Any]:
        """The shape of a state of all layers and directions."""
        return [self.net.num_layers * self.net.directions, "B", *self.features(size, 0)]

    def width(self, layer: int) -> int:
        """The size of x in a layer, of matrices that of their rows."""
        *_, sequence = shape_of(self.cell.inputs[0].size)
        if layer:
            *_, features = self.features(self.rules.step.outputs[0][1].size, layer - 1)
            return self.net.directions * features
        return self.net.sizes["input"] if sequence == "input" else self.features(sequence, 0)[0]

    def features(self, size: Extent, layer: int) -> tuple[int, ...]:
        """The shape of a row of what has this size."""
        own = size if isinstance(size, tuple) else (size,)
        told = "input" in (name for part in own for name in names_of_size(part))
        sizes = {**self.net.sizes, "input": self.width(layer)} if told else self.net.sizes
        return tuple(extent_of(part, sizes) for part in own)


# ---------------------------------------------------------------------------------------------- parameters


def suffix_of(layer: int, turned: int) -> str:
    return f"_l{layer}{'_reverse' * turned}"


def held(
    graph: Graph, cell: Cell, parameters: Mapping[str, Array], suffix: str, sizes: Mapping[str, int]
) -> dict[Value, tuple[str, Array]]:
    """The parameters that a graph reads: how each is called, and its array."""
    needed = {value for op in graph.ops for value in op.reads}
    own = dict(_members(cell, parameters, suffix, sizes))
    made = with_computed(cell, own, sizes).items() if cell.computed else ()  # once, as the model is made
    arrays = own | {name: np.asarray(a, own[cell.computed[0].reads[0].name].dtype) for name, a in made}
    columns = dict(_columns(graph, arrays, sizes))
    statistics = {name.removesuffix(suffix): a for name, a in parameters.items() if name.endswith(suffix)}
    found = {}
    for value in (value for value in graph.parameters if value in needed):
        name = value.name
        array = columns[value] if value in columns else arrays.get(name, statistics.get(name))
        assert array is not None, f"{name} of {cell.name} has no array"
        found[value] = (name, array)
    return found


def _members(
    cell: Cell, parameters: Mapping[str, Array], suffix: str, sizes: Mapping[str, int]
) -> Iterator[tuple[str, Array]]:
    """Every parameter of the equations; stacked rows are one array outside."""
    for array in cell.arrays:
        whole = parameters[array.name + suffix]
        if not array.stacked:
            yield array.name, whole
            continue
        rows = array.shape[0]
        assert isinstance(rows, tuple)
        heights = [extent_of(size, sizes) for size in rows]
        for member, part in zip(array.members, np.split(whole, [*accumulate(heights)][:-1]), strict=True):
            yield member.name, part


def _columns(
    graph: Graph, arrays: Mapping[str, Array], sizes: Mapping[str, int]
) -> Iterator[tuple[Value, Array]]:
    """The blocks of columns of matrices that meet several vectors."""
    for name, blocks in graph.blocks:
        widths = [extent_of(v.shape[1], sizes) for v in blocks]
        parts = np.split(arrays[name], [*accumulate(widths)][:-1], axis=1)
        yield from zip(blocks, parts, strict=True)

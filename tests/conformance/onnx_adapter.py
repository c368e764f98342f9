"""An ONNX RNN, GRU or LSTM node as a net of `gategen.layers`: the node's equations, its weights, its layout.

The equations are those of the operators' documentation (onnx.ai/onnx/operators). What only changes numbers
(weights, the bound of `clip`, alpha and beta of the activations) is a parameter of the cell; what changes the
equations is a `Structure`, and nodes of one structure share one generated module.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import onnx

from gategen import (
    Cell,
    Eq,
    clip,
    elu,
    gates,
    hard_sigmoid,
    inputs,
    leaky_relu,
    matrices,
    relu,
    scalars,
    sigmoid,
    softplus,
    softsign,
    states,
    tanh,
    vectors,
    where,
)
from gategen.layers import RNN

Array = np.ndarray

# The gates in the order of W, R and B, and the activations f, g, h of each operator.
GATES = {"RNN": "i", "GRU": "zrh", "LSTM": "iofc"}
PEEPHOLES = "iof"
DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}

# Every activation as a function of (v, alpha, beta), and the default values of those of the two it takes.
ACTIVATIONS: dict[str, tuple[Callable[..., Any], tuple[float, ...]]] = {
    "Relu": (lambda v: relu(v), ()),
    "Tanh": (lambda v: tanh(v), ()),
    "Sigmoid": (lambda v: sigmoid(v), ()),
    "Softsign": (lambda v: softsign(v), ()),
    "Softplus": (lambda v: softplus(v), ()),
    "LeakyRelu": (lambda v, alpha: leaky_relu(v, alpha), (0.01,)),
    "ThresholdedRelu": (lambda v, alpha: where(v > alpha, v, 0), (1.0,)),
    "Elu": (lambda v, alpha: elu(v, alpha), (1.0,)),
    "Affine": (lambda v, alpha, beta: alpha * v + beta, (1.0, 0.0)),
    "ScaledTanh": (lambda v, alpha, beta: alpha * tanh(beta * v), (1.0, 1.0)),
    "HardSigmoid": (lambda v, alpha, beta: hard_sigmoid(v, alpha, beta), (0.2, 0.5)),
}


@dataclass(frozen=True)
class Structure:
    """What decides the equations of one direction of a node."""

    operator: str
    activations: tuple[str, ...]  # f, g, h
    clipped: bool = False
    linear_before_reset: bool = False
    input_forget: bool = False
    peepholes: bool = False

    @property
    def states(self) -> tuple[str, ...]:
        return ("h", "c") if self.operator == "LSTM" else ("h",)

    @property
    def name(self) -> str:
        flags = ("clipped", "linear_before_reset", "input_forget", "peepholes")
        return "_".join(["onnx", self.operator, *self.activations, *(f for f in flags if getattr(self, f))])

    def cell(self) -> Cell:
        x, h = inputs("x"), states("h")
        limit = scalars("limit")

        def activated(place: int, v: Any, bounded: bool = True) -> Any:
            function, defaults = ACTIVATIONS[self.activations[place]]
            v = clip(v, -limit, limit) if self.clipped and bounded else v
            return function(v, *(scalars(f"{kind}_{place}") for kind in ("alpha", "beta")[: len(defaults)]))

        def of_x(gate: str) -> Any:
            return matrices(f"W_{gate}") @ x + vectors(f"Wb_{gate}")

        def of_h(gate: str, h: Any = h) -> Any:
            return matrices(f"R_{gate}") @ h + vectors(f"Rb_{gate}")

        if self.operator == "RNN":
            return Cell(self.name, Eq(h.next, activated(0, of_x("i") + of_h("i"))))
        if self.operator == "GRU":
            z, r, n = gates("z r n")
            reset = r * of_h("h") if self.linear_before_reset else of_h("h", r * h)
            return Cell(
                self.name,
                Eq(z, activated(0, of_x("z") + of_h("z"))),
                Eq(r, activated(0, of_x("r") + of_h("r"))),
                Eq(n, activated(1, of_x("h") + reset)),
                Eq(h.next, (1 - z) * n + z * h),
            )
        c = states("c")
        i, o, f, g = gates("i o f g")

        def peeped(gate: str, c: Any) -> Any:
            seen = vectors(f"P_{gate}") * c if self.peepholes else 0
            return activated(0, of_x(gate) + of_h(gate) + seen)

        return Cell(
            self.name,
            Eq(i, peeped("i", c)),
            Eq(f, 1 - i if self.input_forget else peeped("f", c)),
            Eq(g, activated(1, of_x("c") + of_h("c"))),
            Eq(c.next, f * c + i * g),
            Eq(o, peeped("o", c.next)),
            Eq(h.next, o * activated(2, c.next, bounded=False)),
        )


@dataclass(frozen=True)
class Direction:
    """One direction of a node: its equations, and the numbers in them."""

    structure: Structure
    numbers: Mapping[str, float]


def run(
    node: onnx.NodeProto, given: Mapping[str, Array], module_of: Callable[[Structure], ModuleType]
) -> list[Array]:
    """The outputs of the node, those it names: Y, Y_h, and Y_c of an LSTM.

    `given` has arrays under ONNX's names of the inputs: X, W, R, B, sequence_lens, initial_h, initial_c, P.
    """
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    batch_first = attributes.get("layout", 0) == 1
    # A net runs forward, or both ways; of a node that runs in reverse alone, half of the net is read.
    side_of = {b"forward": (0,), b"reverse": (1,), b"bidirectional": (0, 1)}[
        attributes.get("direction", b"forward")
    ]
    parts = list(directions(node.op_type, attributes, len(side_of), "P" in given))
    outputs: dict[int, tuple[Array, ...]] = {}  # Y and the final states of each direction of the node
    for structure in dict.fromkeys(part.structure for part in parts):
        mine = [k for k, part in enumerate(parts) if part.structure == structure]
        taken = [next((k for k in mine if side_of[k] == side), mine[0]) for side in range(max(side_of) + 1)]
        y, final = run_net(structure, parts, taken, given, batch_first, module_of)
        for k in mine:
            half = np.split(y, len(taken), axis=-1)[side_of[k]]
            outputs[k] = (half, *(state[side_of[k]] for state in final))
    Y, *final = (np.stack(arrays) for arrays in zip(*(outputs[k] for k in range(len(parts))), strict=True))
    if batch_first:
        found = [np.moveaxis(Y, 0, 2), *(state.swapaxes(0, 1) for state in final)]
    else:
        found = [np.moveaxis(Y, 0, 1), *final]
    return [array for array, name in zip(found, node.output, strict=False) if name]


def run_net(
    structure: Structure,
    parts: Sequence[Direction],
    taken: Sequence[int],
    given: Mapping[str, Array],
    batch_first: bool,
    module_of: Callable[[Structure], ModuleType],
) -> tuple[Array, Any]:
    """One net of a structure; `taken` says which direction of the node each direction of the net is given."""
    X, R = given["X"], given["R"]
    net = RNN(
        module_of(structure),
        X.shape[-1],
        R.shape[-1],
        bidirectional=len(taken) == 2,
        batch_first=batch_first,
        dtype=X.dtype,
    )
    net.load_state_dict(
        {
            name + suffix: array
            for suffix, k in zip(("_l0", "_l0_reverse"), taken, strict=False)
            for name, array in parameters(parts[k], given, k)
        }
    )
    starts = {}
    for state in structure.states:
        array = given.get(f"initial_{state}")
        if array is not None:
            starts[state] = (array.swapaxes(0, 1) if batch_first else array)[list(taken)]
    if starts:
        blank = np.zeros_like(next(iter(starts.values())))
        starts = {state: starts.get(state, blank) for state in structure.states}
    return net(X, starts or None, given.get("sequence_lens"))


def directions(
    operator: str, attributes: Mapping[str, Any], count: int, peepholes: bool
) -> Iterator[Direction]:
    """What the attributes say of each direction."""
    named = [name.decode() for name in attributes.get("activations", [])] or DEFAULTS[operator] * count
    # alpha and beta are lists over the activations that take them
    lists = {kind: iter(attributes.get(f"activation_{kind}", [])) for kind in ("alpha", "beta")}
    clipped = {"limit": attributes["clip"]} if "clip" in attributes else {}
    width = len(DEFAULTS[operator])
    for k in range(count):
        activations = named[k * width : (k + 1) * width]
        numbers = {
            f"{kind}_{place}": next(lists[kind], default)
            for place, name in enumerate(activations)
            for kind, default in zip(("alpha", "beta"), ACTIVATIONS[name][1], strict=False)
        }
        structure = Structure(
            operator,
            tuple(activations),
            bool(clipped),
            bool(attributes.get("linear_before_reset", 0)),
            bool(attributes.get("input_forget", 0)),
            peepholes,
        )
        yield Direction(structure, numbers | clipped)


def parameters(part: Direction, given: Mapping[str, Array], k: int) -> Iterator[tuple[str, Any]]:
    """The arrays of one direction, gate by gate, under the names of the cell."""
    order = GATES[part.structure.operator]
    W, R = given["W"][k], given["R"][k]
    Wb, Rb = np.split(given["B"][k] if "B" in given else np.zeros(2 * len(W), W.dtype), 2)
    stacks = {"W": W, "R": R, "Wb": Wb, "Rb": Rb}
    unused = "f" if part.structure.input_forget else ""
    for letter, stack in stacks.items():
        for gate, array in zip(order, np.split(stack, len(order)), strict=True):
            if gate not in unused:
                yield f"{letter}_{gate}", array
    if part.structure.peepholes:
        for gate, array in zip(PEEPHOLES, np.split(given["P"][k], len(PEEPHOLES)), strict=True):
            if gate not in unused:
                yield f"P_{gate}", array
    yield from part.numbers.items()

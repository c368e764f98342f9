"""How PyTorch, Keras and ONNX lay out the weights of a GRU, an LSTM and a simple RNN, and gategen its own.

    state_dict      torch_to_named    W_z_l0, U_z_l0, b_z_l0, ...    named_to_torch    state_dict
    get_weights     keras_to_named    by the names of                named_to_keras    set_weights
    W, R, B, P      onnx_to_named     `RNN.state_dict`               named_to_onnx     W, R, B, P

All are functions of plain arrays: anything that NumPy can read, and tensors of PyTorch. `CELLS` says which
cells others have as well, and the three `Library` how each stacks the gates. In between stands `Weights`: one
layer in one direction, gate by gate. What a cell does not have it cannot take: there must be zeros; and what
only the cell has begins as zeros. Two biases that are only added become one.

Nothing here imports those libraries, or knows of nets: `foreign.py` reads layers, models and nodes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Gates = Mapping[str, Array]  # an array for every gate, by its letter

# ---------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class Known:
    """A cell that other libraries have as well, up to how its arrays are stacked and its gates are called.

    A parameter is called by what it is and its gate: `W_z` meets x, `U_z` the state; `b_z` is the bias, and
    where there are two, `c_z` the one beside the state; `p_z` looks at the cell state.
    """

    name: str
    kind: str  # GRU, LSTM or RNN
    gates: str
    equations: tuple[str, ...]  # as modules have them in EQUATIONS
    recurrent: str = "U"
    biases: int = 1
    peepholes: str = ""  # the gates that have one
    projection: str = ""  # the matrix that makes the state smaller
    flipped: str = ""  # the gates that are 1 minus those of the libraries
    after: bool = False  # of a GRU: whether it resets after the product
    activation: str = "tanh"
    coupled: bool = False  # of an LSTM: whether the forget gate is 1 - i


_GRU = ("z = sigmoid(W_z @ x + U_z @ h + b_z)", "r = sigmoid(W_r @ x + U_r @ h + b_r)")
_N = "n = tanh(W_h @ x + U_h @ (r * h) + b_h)"
_G = "g = tanh(W_g @ x + U_g @ h + b_g)"
_PEEPING = (
    "i = sigmoid(W_i @ x + U_i @ h + p_i * c + b_i)",
    "f = sigmoid(W_f @ x + U_f @ h + p_f * c + b_f)",
    "o = sigmoid(W_o @ x + U_o @ h + p_o * c' + b_o)",
)

CELLS = (
    Known(
        "gru_after",
        "GRU",
        "zrh",
        (
            "z = sigmoid(W_z @ x + U_z @ h + b_z + c_z)",
            "r = sigmoid(W_r @ x + U_r @ h + b_r + c_r)",
            "n = tanh(W_h @ x + r * (U_h @ h + c_h) + b_h)",
            "h' = (1 - z) * n + z * h",
        ),
        biases=2,
        after=True,
    ),
    Known("gru_before", "GRU", "zrh", (*_GRU, _N, "h' = (1 - z) * n + z * h")),
    Known("gru", "GRU", "zrh", (*_GRU, _N, "h' = (1 - z) * h + z * n"), flipped="z"),
    Known(
        "lstm",
        "LSTM",
        "ifgo",
        (
            "i = sigmoid(W_i @ x + U_i @ h + b_i)",
            "f = sigmoid(W_f @ x + U_f @ h + b_f)",
            _G,
            "o = sigmoid(W_o @ x + U_o @ h + b_o)",
            "c' = f * c + i * g",
            "h' = o * tanh(c')",
        ),
    ),
    Known(
        "lstm_peephole",
        "LSTM",
        "ifgo",
        (*_PEEPING, _G, "c' = f * c + i * g", "h' = o * tanh(c')"),
        peepholes="ifo",
    ),
    Known(
        "lstm_cifg",
        "LSTM",
        "igo",
        (_PEEPING[0], _PEEPING[2], _G, "c' = (1 - i) * c + i * g", "h' = o * tanh(c')"),
        peepholes="io",
        coupled=True,
    ),
    Known(
        "lstm_sak",
        "LSTM",
        "ifgo",
        (
            *(line.replace("U_", "R_").replace("@ h", "@ r") for line in (*_PEEPING, _G)),
            "c' = f * c + i * g",
            "r' = P @ (o * tanh(c'))",
        ),
        recurrent="R",
        peepholes="ifo",
        projection="P",
    ),
    Known("rnn", "RNN", "h", ("h' = tanh(W_h @ x + U_h @ h + b_h)",)),
    Known("irnn", "RNN", "h", ("h' = relu(W_h @ x + U_h @ h + b_h)",), activation="relu"),
)


@dataclass(frozen=True)
class Library:
    """What another library stacks in which order, in our letters, and what it knows of."""

    name: str
    orders: Mapping[str, str]
    peepholes: str = ""  # their order; empty where there are none
    projection: bool = False
    coupled: bool = False
    before: bool = True  # whether it has the GRU that resets before the product


TORCH = Library("PyTorch", {"GRU": "rzh", "LSTM": "ifgo", "RNN": "h"}, projection=True, before=False)
KERAS = Library("Keras", {"GRU": "zrh", "LSTM": "ifgo", "RNN": "h"})
ONNX = Library("ONNX", {"GRU": "zrh", "LSTM": "iofg", "RNN": "h"}, peepholes="iof", coupled=True)


def known(equations: Iterable[str], name: str = "this cell") -> Known:
    """The cell of these equations. Raises ValueError where other libraries have none such."""
    wanted = frozenset(equations)
    for cell in CELLS:
        if frozenset(cell.equations) == wanted:
            return cell
    names = ", ".join(cell.name for cell in CELLS)
    raise ValueError(f"{name} is no cell whose weights other libraries have; those are {names}")


def named_cell(name: str) -> Known:
    """The cell of this name among `CELLS`."""
    return next(cell for cell in CELLS if cell.name == name)


def suffix(layer: int, direction: int) -> str:
    """How the names of the parameters of a layer and direction end: `_l0`, `_l0_reverse`."""
    return f"_l{layer}{'_reverse' * direction}"


# ---------------------------------------------------------------------------------------------- in between


@dataclass(frozen=True)
class Weights:
    """One layer in one direction, with the gates of a library: arrays by the letter of the gate.

    H is the hidden size, I that of x, S that of the state: H, or the size of the projection.
    """

    W: Gates  # (H, I) each
    U: Gates  # (H, S)
    b: Gates = field(default_factory=dict)  # (H,), or none at all
    c: Gates = field(default_factory=dict)  # (H,), or none at all: the bias beside the state
    p: Gates = field(default_factory=dict)  # (H,), or none at all
    P: Array | None = None  # (S, H)


def to_named(cell: Known, weights: Weights, label: str) -> dict[str, Array]:
    """The parameters of a cell by their names. Raises ValueError for what the cell does not have.

    `label` names the layer in what is raised.
    """
    found: dict[str, Array] = {}
    for gate in cell.gates:
        H = len(weights.W[gate])
        zeros = np.zeros(H, weights.W[gate].dtype)
        sign = -1 if gate in cell.flipped else 1
        b, c = weights.b.get(gate, zeros), weights.c.get(gate, zeros)
        found[f"W_{gate}"] = sign * weights.W[gate]
        found[f"{cell.recurrent}_{gate}"] = sign * weights.U[gate]
        found |= {f"b_{gate}": b, f"c_{gate}": c} if cell.biases == 2 else {f"b_{gate}": sign * (b + c)}
        if gate in cell.peepholes:
            found[f"p_{gate}"] = weights.p.get(gate, zeros)
    seen = [gate for gate, array in weights.p.items() if gate in cell.gates and gate not in cell.peepholes]
    if any(np.any(weights.p[gate]) for gate in seen):
        raise ValueError(f"{label} has peepholes, and {cell.name} has none")
    if weights.P is not None:
        found[cell.projection] = weights.P
    return found


def of_named(cell: Known, named: Mapping[str, Any], label: str) -> Weights:
    """The same the other way round: the weights of a cell, from its parameters by their names."""

    def gates(letter: str) -> dict[str, Array]:
        signed = "" if letter == "p" else cell.flipped
        found = {gate: named.get(f"{letter}_{gate}") for gate in cell.gates}
        return {g: (-1 if g in signed else 1) * np.asarray(a) for g, a in found.items() if a is not None}

    wanted = {f"W_{gate}" for gate in cell.gates} | {f"{cell.recurrent}_{gate}" for gate in cell.gates}
    wanted |= {f"{letter}_{gate}" for letter in "bc"[: cell.biases] for gate in cell.gates}
    wanted |= {f"p_{gate}" for gate in cell.peepholes} | ({cell.projection} - {""})
    if wanted != set(named):
        raise ValueError(f"{label} of {cell.name} has {sorted(named)}, expected {sorted(wanted)}")
    P = np.asarray(named[cell.projection]) if cell.projection else None
    return Weights(gates("W"), gates(cell.recurrent), gates("b"), gates("c"), gates("p"), P)


def refuse(cell: Known, library: Library) -> None:
    """A ValueError where a library cannot have a cell, whatever its weights."""
    if cell.kind == "GRU" and not cell.after and not library.before:
        reason = "a GRU that resets before the product; that of gru_after it has"
    elif cell.projection and not library.projection:
        reason = "an LSTM with a projection"
    elif cell.coupled and not library.coupled:
        reason = "an LSTM of which two gates are one"
    else:
        return
    raise ValueError(f"{library.name} does not have {cell.name}, {reason}")


def grouped(named: Mapping[str, Any]) -> dict[tuple[int, int], dict[str, Any]]:
    """Parameters by layer and direction, in that order, and then by the names of the cell."""
    groups: dict[tuple[int, int], dict[str, Any]] = {}
    for full, array in named.items():
        found = re.fullmatch(r"(\w+?)_l(\d+)(_reverse)?", full)
        if not found:
            raise ValueError(f"{full!r} is not the name of a parameter in a layer, such as W_z_l0")
        groups.setdefault((int(found[2]), int(bool(found[3]))), {})[found[1]] = array
    return dict(sorted(groups.items()))


def _stack(gates: Gates, order: str, like: Gates, axis: int = 0) -> Array:
    """The arrays of all gates as one; zeros where there is none, of the shape and dtype of `like`."""
    blank = np.zeros_like(next(iter(like.values())))
    return np.concatenate([gates.get(gate, blank) for gate in order], axis)


def _split(array: Array, order: str, axis: int = 0) -> dict[str, Array]:
    return dict(zip(order, np.split(array, len(order), axis), strict=True))


def _zero(library: Library, cell: Known, weights: Weights, label: str) -> None:
    """A ValueError where there are numbers that a library has no place for."""
    if not library.peepholes and any(np.any(array) for array in weights.p.values()):
        raise ValueError(f"{label}: {library.name} has no peepholes, and those of {cell.name} are not 0")


# ---------------------------------------------------------------------------------------------- PyTorch


def torch_kind(state: Mapping[str, Any]) -> str:
    """GRU, LSTM or RNN: what a `state_dict` is of, as the shapes tell. Raises ValueError."""
    name = next((name for name in state if name.startswith("weight_hh")), None)
    if name is None:
        raise ValueError(f"there is no weight_hh_l0, but {sorted(map(str, state))}")
    projection = state.get(name.replace("_hh", "_hr"))
    rows, columns = _shape(name, state[name], 2)
    units = columns if projection is None else _shape("weight_hr", projection, 2)[1]
    kinds = {len(order) * units: kind for kind, order in TORCH.orders.items()}
    if rows not in kinds:
        shapes = " or ".join(f"{(n, columns)} for {kind}" for n, kind in sorted(kinds.items()))
        raise ValueError(f"{name} has shape {(rows, columns)}, expected {shapes}")
    return kinds[rows]


def torch_to_named(state: Mapping[str, Any], cell: Known) -> dict[str, Array]:
    """The `state_dict` of an `nn.GRU`, `nn.LSTM` or `nn.RNN` (or its `Cell`) by the names of ours.

    state: `weight_ih_l0` (G*H, I), `weight_hh_l0` (G*H, S), perhaps `bias_ih_l0` and `bias_hh_l0` (G*H,),
        with a projection `weight_hr_l0` (S, H); also `_l0_reverse`, `_l1`, ...; those of a `Cell` have no
        `_l0`. G is the number of gates.

    Raises ValueError for other names and shapes.
    """
    refuse(cell, TORCH)
    order = TORCH.orders[cell.kind]
    groups = _torch_groups(state)
    H = _shape(*_first(groups, "weight_hr" if cell.projection else "weight_hh"), 2)[1]
    S = _shape(*_first(groups, "weight_hr"), 2)[0] if cell.projection else H
    what = f"{_a(cell.kind)} of {H}" + (f" with a projection to {S}" if cell.projection else "")
    directions = 1 + any(direction for _, direction in groups)
    I = _shape(*_first(groups, "weight_ih"), 2)[1]  # noqa: E741
    named: dict[str, Array] = {}
    for layer, direction in _all_places(groups):
        end, held = suffix(layer, direction), dict(groups[layer, direction])
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (len(order) * H, directions * S if layer else I),
            "weight_hh": (len(order) * H, S),
        }
        shapes |= {name: (len(order) * H,) for name in ("bias_ih", "bias_hh") if name in held}
        shapes |= {"weight_hr": (S, H)} if cell.projection else {}
        if set(held) != set(shapes):
            found = sorted(name + end for name in held)
            raise ValueError(f"there are {found}, expected {sorted(name + end for name in shapes)}")
        arrays = {name: _array(name + end, held[name], shape, what) for name, shape in shapes.items()}
        W, U, b, c = (_split(arrays[n], order) if n in arrays else {} for n in _TORCH_NAMES)
        weights = Weights(W, U, b, c, P=arrays.get("weight_hr"))
        named |= {name + end: a for name, a in to_named(cell, weights, f"layer {layer}").items()}
    return named


def named_to_torch(named: Mapping[str, Any], cell: Known) -> dict[str, Array]:
    """The `state_dict` for `nn.GRU`, `nn.LSTM` or `nn.RNN` of parameters by our names, always with biases.

    The second bias is 0 where the cell has one. Raises ValueError for a cell or for numbers that PyTorch does
    not have, and for other names.
    """
    refuse(cell, TORCH)
    order = TORCH.orders[cell.kind]
    state: dict[str, Array] = {}
    for (layer, direction), held in grouped(named).items():
        label, end = f"layer {layer}", suffix(layer, direction)
        weights = of_named(cell, held, label)
        _zero(TORCH, cell, weights, label)
        parts = weights.W, weights.U, weights.b, weights.c
        for name, part, like in zip(_TORCH_NAMES, parts, (*parts[:2], weights.b, weights.b), strict=True):
            state[name + end] = _stack(part, order, like)
        if weights.P is not None:
            state[f"weight_hr{end}"] = weights.P
    return state


_TORCH_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")  # as the fields of `Weights`


def _torch_groups(state: Mapping[str, Any]) -> dict[tuple[int, int], dict[str, Any]]:
    """The arrays of a `state_dict` by layer and direction, and by their names without these."""
    names = {str(name): array for name, array in state.items()}
    if set(names) <= {*_TORCH_NAMES}:  # of a Cell
        names = {f"{name}_l0": array for name, array in names.items()}
    other = [n for n in names if not re.fullmatch(r"(weight_(ih|hh|hr)|bias_(ih|hh))_l\d+(_reverse)?", n)]
    if other or not names:
        raise ValueError(
            f"there is {other[0] if other else 'nothing'}, expected weight_ih_l0, weight_hh_l0, ..."
        )
    return grouped(names)


def _first(groups: Mapping[tuple[int, int], Mapping[str, Any]], name: str) -> tuple[str, Any]:
    """An array of the first layer, and how it is called in all."""
    held = groups.get((0, 0), {})
    if name not in held:
        raise ValueError(f"there is no {name}_l0")
    return f"{name}_l0", held[name]


def _all_places(groups: Mapping[tuple[int, int], Any]) -> list[tuple[int, int]]:
    """Every layer and direction, each of which must be there."""
    directions = 1 + max(direction for _, direction in groups)
    places = [divmod(k, directions) for k in range(len(groups) + 1)]
    there = list(itertools.takewhile(groups.__contains__, places))
    if len(there) < len(groups) or len(there) % directions:
        raise ValueError(f"there is nothing that ends in {suffix(*places[len(there)])}")
    return there


# ---------------------------------------------------------------------------------------------- Keras


def keras_kind(arrays: Sequence[Any]) -> str:
    """GRU, LSTM or RNN: what the weights of a layer are of, as the shapes tell. Raises ValueError."""
    if len(arrays) not in (2, 3, 4, 6):
        raise ValueError(f"a layer has {len(arrays)} arrays, expected {_KERAS_COUNTS}")
    units, columns = _shape("recurrent_kernel", arrays[1], 2)
    kinds = {len(order) * units: kind for kind, order in KERAS.orders.items()}
    if columns not in kinds:
        shapes = " or ".join(f"{(units, n)} for {kind}" for n, kind in sorted(kinds.items()))
        raise ValueError(f"recurrent_kernel has shape {(units, columns)}, expected {shapes}")
    return kinds[columns]


_KERAS_COUNTS = "2 or 3: kernel, recurrent_kernel, perhaps bias; twice as many where it is bidirectional"


def keras_to_named(layers: Sequence[Sequence[Any]], cell: Known) -> dict[str, Array]:
    """What `get_weights` of layers gives, one list of arrays a layer, by the names of ours.

    layers: kernel (I, G*H), recurrent_kernel (H, G*H), perhaps bias: (G*H,), and (2, G*H) of a GRU that
        resets after the product. A bidirectional layer has those of both directions. G is the number of
        gates.

    Raises ValueError for other counts and shapes.
    """
    refuse(cell, KERAS)
    if not layers:
        raise ValueError("there is no layer")
    order = KERAS.orders[cell.kind]
    H = _shape("recurrent_kernel of layer 0", layers[0][1] if len(layers[0]) > 1 else None, 2)[0]
    I = _shape("kernel of layer 0", layers[0][0], 2)[0]  # noqa: E741
    rows = (2, len(order) * H) if cell.after else (len(order) * H,)
    what = f"{_a(cell.kind)} of {H}" + (f", {cell.name}" if cell.kind == "GRU" else "")
    directions = 2 if len(layers[0]) in (4, 6) else 1
    named: dict[str, Array] = {}
    for layer, arrays in enumerate(layers):
        count, uneven = divmod(len(arrays), directions)
        if uneven or count not in (2, 3):
            raise ValueError(f"layer {layer} has {len(arrays)} arrays, expected {_KERAS_COUNTS}")
        shapes = [(directions * H if layer else I, len(order) * H), (H, len(order) * H), rows]
        for direction in range(directions):
            W, U, *bias = (
                _array(f"{name} of layer {layer}", array, shape, what)
                for name, array, shape in zip(
                    ("kernel", "recurrent_kernel", "bias"),
                    arrays[direction * count : (direction + 1) * count],
                    shapes,
                    strict=False,
                )
            )
            biases: list[Gates] = [_split(row, order) for row in np.reshape(bias, (-1, len(order) * H))]
            b, c = [*biases, {}, {}][:2]
            weights = Weights(_split(W.T, order), _split(U.T, order), b, c)
            found = to_named(cell, weights, f"layer {layer}")
            named |= {name + suffix(layer, direction): array for name, array in found.items()}
    return named


def named_to_keras(named: Mapping[str, Any], cell: Known) -> list[list[Array]]:
    """What `set_weights` of layers takes, one list of arrays a layer, always with biases.

    Raises ValueError for a cell or for numbers that Keras does not have, and for other names.
    """
    refuse(cell, KERAS)
    order = KERAS.orders[cell.kind]
    layers: list[list[Array]] = []
    for (layer, direction), held in grouped(named).items():
        weights = of_named(cell, held, f"layer {layer}")
        _zero(KERAS, cell, weights, f"layer {layer}")
        bias = _stack(weights.b, order, weights.b)
        bias = np.stack([bias, _stack(weights.c, order, weights.b)]) if cell.after else bias
        arrays = [_stack(weights.W, order, weights.W).T, _stack(weights.U, order, weights.U).T, bias]
        layers += [] if direction else [[]]
        layers[layer] += map(np.ascontiguousarray, arrays)
    return layers


# ---------------------------------------------------------------------------------------------- ONNX


def onnx_to_named(layers: Sequence[Mapping[str, Any]], cell: Known) -> dict[str, Array]:
    """The inputs of nodes GRU, LSTM or RNN, one mapping a layer, by the names of ours.

    layers: W (D, G*H, I), R (D, G*H, H), perhaps B (D, 2*G*H) and P (D, 3*H), where D is the number of
        directions and G that of gates.

    Raises ValueError for other names and shapes, and for peepholes that are not 0 where the cell has none.
    """
    refuse(cell, ONNX)
    if not layers:
        raise ValueError("there is no layer")
    order = ONNX.orders[cell.kind]
    G = len(order)
    names = {"W", "R", "B", "P"} if cell.kind == "LSTM" else {"W", "R", "B"}
    for layer, held in enumerate(layers):
        if not {"W", "R"} <= set(held) <= names:
            raise ValueError(f"layer {layer} has {sorted(held)}, expected {sorted(names)}, or no B and P")
    D, _, H = _shape("R of layer 0", layers[0]["R"], 3)
    I = _shape("W of layer 0", layers[0]["W"], 3)[2]  # noqa: E741
    what = f"{_a(cell.kind)} of {H}"
    named: dict[str, Array] = {}
    for layer, held in enumerate(layers):
        shapes = {"W": (D, G * H, D * H if layer else I), "R": (D, G * H, H), "B": (D, 2 * G * H)}
        shapes["P"] = D, len(ONNX.peepholes) * H
        arrays = {
            name: _array(f"{name} of layer {layer}", array, shapes[name], what)
            for name, array in held.items()
        }
        for direction in range(D):
            mine = {name: array[direction] for name, array in arrays.items()}
            b, c = (_split(part, order) for part in np.split(mine["B"], 2)) if "B" in mine else ({}, {})
            peepholes = _split(mine["P"], ONNX.peepholes) if "P" in mine else {}
            weights = Weights(_split(mine["W"], order), _split(mine["R"], order), b, c, peepholes)
            found = to_named(cell, weights, f"layer {layer}")
            named |= {name + suffix(layer, direction): array for name, array in found.items()}
    return named


def named_to_onnx(named: Mapping[str, Any], cell: Known) -> list[dict[str, Array]]:
    """W, R, B and, where the cell has peepholes, P of a node for every layer, of parameters by our names.

    Raises ValueError for a cell that ONNX does not have, and for other names.
    """
    refuse(cell, ONNX)
    order = ONNX.orders[cell.kind]
    layers: list[dict[str, list[Array]]] = []
    for (layer, direction), held in grouped(named).items():
        weights = of_named(cell, held, f"layer {layer}")
        biases = [_stack(part, order, weights.b) for part in (weights.b, weights.c)]
        arrays = {
            "W": _stack(weights.W, order, weights.W),
            "R": _stack(weights.U, order, weights.U),
            "B": np.concatenate(biases),
        }
        arrays |= {"P": _stack(weights.p, ONNX.peepholes, weights.p)} if cell.peepholes else {}
        layers += [] if direction else [{name: [] for name in arrays}]
        for name, array in arrays.items():
            layers[layer][name].append(array)
    return [{name: np.stack(parts) for name, parts in layer.items()} for layer in layers]


def onnx_attributes(cell: Known, directions: int) -> dict[str, Any]:
    """The attributes of a node that is this cell, beside its size and direction."""
    found: dict[str, Any] = {"linear_before_reset": 1} if cell.after else {}
    found |= {"input_forget": 1} if cell.coupled else {}
    return found | ({"activations": ["Relu"] * directions} if cell.activation == "relu" else {})


# ---------------------------------------------------------------------------------------------- arrays


def as_array(value: Any) -> Array:
    """An array on the host: of NumPy, CuPy, PyTorch, or of numbers. bfloat16 becomes float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype).endswith("bfloat16") else value
    elif hasattr(value, "get"):
        value = value.get()
    return np.asarray(value)


def _shape(name: str, value: Any, ndim: int) -> tuple[int, ...]:
    shape = tuple(getattr(value, "shape", None) or np.shape(value))
    if len(shape) != ndim:
        raise ValueError(f"{name} has shape {shape}, expected {ndim} axes")
    return tuple(map(int, shape))


def _array(name: str, value: Any, shape: tuple[int, ...], what: str) -> Array:
    """An array of numbers of this shape. Raises TypeError and ValueError."""
    array = as_array(value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} has dtype {array.dtype}, expected numbers")
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape} for {what}")
    return array


def _a(kind: str) -> str:
    return f"{'a' if kind == 'GRU' else 'an'} {kind}"

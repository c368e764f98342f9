"""A layer as one of ONNX's own operators: GRU, LSTM or RNN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gategen.onnx.nodes import Array, Nodes, package


@dataclass(frozen=True)
class Native:
    """The operator, its attributes and its weights by ONNX's names: W, R, B, perhaps P."""

    operator: str
    attributes: Mapping[str, Any]
    arrays: Mapping[str, Array]


def run_native(
    nodes: Nodes, layer: Native, name: str, x: str, lengths: str, starts: Mapping[str, str]
) -> tuple[str, dict[str, str]]:
    """The outputs (T, B, directions * hidden), and for every state (directions, B, hidden).

    lengths: (B,) integers, none above T, or empty; `starts` are the states before, shaped as those after. A
    sequence of no step keeps its state, which the operator of onnxruntime sets to 0.
    """
    D, _, H = layer.arrays["R"].shape
    whole = nodes("Cast", lengths, to=package().TensorProto.INT32) if lengths else ""
    held = {n: nodes.array(array, f"{n}_{name}") for n, array in layer.arrays.items()}
    states = list(starts.values())
    inputs = [x, held["W"], held["R"], held["B"], whole, *states]
    inputs += [*[""] * (7 - len(inputs)), held["P"]] if "P" in held else []
    direction = "bidirectional" if D == 2 else "forward"
    Y, *ends = nodes.several(
        layer.operator,
        inputs,
        [f"Y_{name}", *(f"{state}_last_{name}" for state in starts)],
        direction=direction,
        hidden_size=H,
        **layer.attributes,
    )
    y = nodes("Reshape", nodes("Transpose", Y, perm=[0, 2, 1, 3]), nodes.integers(0, 0, D * H))
    if not lengths:
        return y, dict(zip(starts, ends, strict=True))
    none = nodes("Unsqueeze", nodes("Equal", lengths, nodes.integer(0)), nodes.integers(-1))
    kept = [nodes("Where", none, before, after) for before, after in zip(states, ends, strict=True)]
    return y, dict(zip(starts, kept, strict=True))

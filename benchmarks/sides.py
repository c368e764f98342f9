"""What `cpu.py` measures beside each other: the same layer by gategen, PyTorch, JAX and onnxruntime.

To be imported where the number of threads is set already, in a process of its own.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from cpu import FURTHER, SAMPLE, TORCH, TURNS, loaded, module_path  # the neighbour file

from gategen.build import generate
from gategen.spec.load import find_builtin

PAUSE = 0.04  # seconds; OpenBLAS's threads spin for about half of that


class Side(NamedTuple):
    """What is timed, in its order, and the results that must be the same on every side."""

    parts: Mapping[str, Callable[[], object]]
    results: Callable[[], list[Any]] = list


# ------------------------------------------------------------------------------------------ modules


def modules(name: str, folder: Path) -> dict[str, ModuleType]:
    """The module of NumPy, and that of C, compiled, where there is a compiler."""
    found = {"gategen": loaded(module_path(name))}
    cell = find_builtin(name)
    assert cell
    for file, text in generate(cell, "c").items():
        (folder / file).write_text(text)
    module = loaded(folder / f"{name}_c.py")
    try:
        module.library("float32")
    except RuntimeError as error:
        print(f"without C: {error}", file=sys.stderr)
        return found
    return found | {"c": module}


def all_modules() -> dict[str, dict[str, ModuleType]]:
    """Those of every cell; the folder is not needed once they are loaded."""
    with TemporaryDirectory(prefix="gategen-") as folder:
        return {name: modules(name, Path(folder)) for name in (*TORCH, *FURTHER)}


def parameters(module: ModuleType, H: int) -> Any:
    """Drawn at random, with an input as wide as the state."""
    sizes = [name for name in signature(module.init).parameters if name.endswith("_size")]
    return module.init(**dict.fromkeys(sizes, H), seed=0)


def as_of(module: ModuleType, params: Any) -> Any:
    """The same arrays as the `Params` of this module."""
    return module.Params(**params._asdict())


# ------------------------------------------------------------------------------------------ training


def training(
    found: Mapping[str, ModuleType], T: int, B: int, H: int, layer: Any, params: Any, jax: bool
) -> dict[str, Side]:
    """A training step on every side; their results are compared."""
    x, d_y = arrays(T, B, H)
    name = found["gategen"].NAME
    sides = {side: module_training(module, as_of(module, params), x, d_y) for side, module in found.items()}
    if layer is not None:
        sides["torch"] = torch_training(layer, x, d_y)
    if jax:
        from jax_cells import training as jax_training  # the neighbour file

        step, results = jax_training(name, params, x, d_y)
        sides["jax"] = Side({"both": step}, results)
    same({side: made.results() for side, made in sides.items()})
    steps = [field for field in params._fields if field.startswith("U")]
    return sides | {"products": products(T, B, H, width(params), sum(len(getattr(params, U)) for U in steps))}


def arrays(T: int, B: int, H: int) -> tuple[Any, Any]:
    """An input, and the gradients of the outputs."""
    rng = np.random.default_rng(0)
    x, d_y = (rng.standard_normal((T, B, H), np.float32) for _ in range(2))
    return x, d_y


def width(params: Any) -> int:
    """How wide all products with the input are together."""
    return sum(len(array) for field, array in params._asdict().items() if field.startswith("W"))


def module_training(module: ModuleType, params: Any, x: Any, d_y: Any) -> Side:
    """A generated module, with the memory of its tape reused."""
    _, _, tape = module.forward(params, x)

    def forward() -> Any:
        return module.forward(params, x, tape=tape)[0]

    def backward() -> Any:
        return module.backward(params, tape, d_y)

    def results() -> list[Any]:
        y, grads = forward(), backward()
        return [y, grads.x, *grads.params]

    return Side({"forward": forward, "backward": backward}, results)


def torch_training(layer: Any, x: Any, d_y: Any) -> Side:
    """PyTorch's layer, with the gradients of all its parameters and of the input."""
    import torch

    x, d_y = torch.from_numpy(x).requires_grad_(), torch.from_numpy(d_y)
    run = []

    def forward() -> Any:
        run[:] = [layer(x)[0]]
        return run[0].detach().numpy()

    def backward() -> Any:
        return torch.autograd.grad(run.pop(), [x, *layer.parameters()], d_y)[0].numpy()

    return Side({"forward": forward, "backward": backward}, lambda: [forward(), backward()])


def products(T: int, B: int, H: int, wide: int, recurrent: int) -> Side:
    """The matrix products of the step and nothing else; `wide` columns for all steps, `recurrent` in each."""
    rng = np.random.default_rng(1)
    x, y, d_w, d_u, W, U = (
        rng.standard_normal(shape, np.float32)
        for shape in ((T * B, H), (T, B, H), (T * B, wide), (T, B, recurrent), (wide, H), (recurrent, H))
    )
    U_T = np.ascontiguousarray(U.T)
    g, u, d_h = np.empty((T * B, wide), x.dtype), np.empty((B, recurrent), x.dtype), np.empty((B, H), x.dtype)
    d_x, d_W, d_U = np.empty_like(x), np.empty_like(W), np.empty_like(U)
    h, d_all = y.reshape(T * B, H), d_u.reshape(T * B, recurrent)

    def forward() -> None:
        np.matmul(x, W.T, out=g)
        for h_t in y if recurrent else ():
            np.matmul(h_t, U_T, out=u)

    def backward() -> None:
        for d_t in d_u if recurrent else ():
            np.matmul(d_t, U, out=d_h)
        np.matmul(d_w, W, out=d_x)
        np.matmul(d_w.T, x, out=d_W)
        if recurrent:
            np.matmul(d_all.T, h, out=d_U)

    return Side({"forward": forward, "backward": backward})


def torch_layer(name: str, H: int) -> Any:
    """PyTorch's layer of this cell; None where it has none."""
    if name not in TORCH:
        return None
    import torch

    torch.manual_seed(0)
    return getattr(torch.nn, TORCH[name])(H, H)


def from_torch(name: str, layer: Any) -> dict[str, Any]:
    """PyTorch's parameters under the cell's own names."""
    W, U, b, c = (p.detach().numpy().copy() for p in layer.parameters())
    H = U.shape[1]
    named: dict[str, Any] = {}
    for k, gate in enumerate("rzh" if name == "gru_after" else "ifgo"):
        rows = slice(k * H, (k + 1) * H)
        named |= {f"W_{gate}": W[rows], f"U_{gate}": U[rows]}
        named |= {f"b_{gate}": b[rows], f"c_{gate}": c[rows]} if name == "gru_after" else {}
        named |= {f"b_{gate}": b[rows] + c[rows]} if name == "lstm" else {}
    return named


# ------------------------------------------------------------------------------------------ inference


def inference(
    found: Mapping[str, ModuleType],
    T: int,
    B: int,
    H: int,
    layer: Any,
    params: Any,
    threads: int,
    jax: bool,
    onnx: bool,
) -> dict[str, Side]:
    """The forward pass alone, with nothing kept for a backward one; the outputs are compared."""
    x, _ = arrays(T, B, H)
    name = found["gategen"].NAME
    runs = {side: module_inference(module, as_of(module, params), x) for side, module in found.items()}
    if layer is not None:
        runs["torch"] = torch_inference(layer, x)
    if jax:
        from jax_cells import inference as jax_inference

        runs["jax"] = jax_inference(name, params, x)
    if onnx and layer is not None:
        runs["onnxruntime"] = onnx_inference(found["gategen"], params, x, threads)
    same({side: [run()] for side, run in runs.items()})
    return {side: Side({"forward": run}) for side, run in runs.items()}


def module_inference(module: ModuleType, params: Any, x: Any) -> Callable[[], Any]:
    return lambda: module.forward(params, x, tape=False)[0]


def torch_inference(layer: Any, x: Any) -> Callable[[], Any]:
    import torch

    given = torch.from_numpy(x)

    def run() -> Any:
        with torch.no_grad():
            return layer(given)[0].numpy()

    return run


def onnx_inference(module: ModuleType, params: Any, x: Any, threads: int) -> Callable[[], Any]:
    """The model that gategen exports, with the operator of ONNX, in onnxruntime."""
    import onnxruntime

    from gategen.layers import RNN

    net = RNN(module, x.shape[2], x.shape[2])
    net.load_state_dict({f"{name}_l0": array for name, array in module.unpack(params).items()})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    with TemporaryDirectory() as folder:
        net.to_onnx(path := Path(folder, "net.onnx"), native=True, lengths=False, initial=False)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(["y"], {"x": x})[0]


# ------------------------------------------------------------------------------------------ timing


def same(results: Mapping[str, list[Any]]) -> None:
    """All results are the first's, to rounding; PyTorch gives only the first ones."""
    (_, first), *others = results.items()
    for side, found in others:
        for k, (one, other) in enumerate(zip(first, found, strict=False)):
            one, other = np.asarray(one), np.asarray(other)
            if one.shape != other.shape or np.linalg.norm(one - other) > 1e-4 * np.linalg.norm(one):
                raise SystemExit(f"{side} computes something else: result {k}")


def in_turns(sides: Mapping[str, Side]) -> dict[str, dict[str, list[float]]]:
    """Seconds of every part of every side, a number a turn."""
    found: dict[str, dict[str, list[float]]] = {
        name: {p: [] for p in side.parts} for name, side in sides.items()
    }
    calls = {}
    for name, side in sides.items():
        timed(side, 1)
        calls[name] = max(1, round(SAMPLE / max(1e-7, sum(timed(side, 2)))))
    for _ in range(TURNS):
        for name, side in sides.items():
            time.sleep(PAUSE)
            if calls[name] > 1:
                timed(side, 1)
            for taken, seconds in zip(found[name].values(), timed(side, calls[name]), strict=True):
                taken.append(float(f"{seconds:.4g}"))
    return found


def timed(side: Side, calls: int) -> list[float]:
    """Seconds of each part, the mean of so many calls; a part that is alone is timed by the clock once."""
    clock = time.process_time if os.environ.get("OMP_NUM_THREADS") == "1" else time.perf_counter
    parts = list(side.parts.values())
    if len(parts) == 1:
        (part,) = parts
        began = clock()
        for _ in range(calls):
            part()
        return [(clock() - began) / calls]
    taken = [0.0] * len(parts)
    for _ in range(calls):
        for k, part in enumerate(parts):
            began = clock()
            part()
            taken[k] += clock() - began
    return [seconds / calls for seconds in taken]

"""For `gpu.py`: a layer by gategen beside PyTorch's on the same device, in turns.

All sides start from the same parameters and inputs and must give the same outputs and the same gradient of
the input before anything is timed. `forward` keeps nothing for a backward pass; `training` is forward and
backward, with the gradients of the input and of all parameters; our tape is reused, as a training loop does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
from counts import WAYS, Shape, counted, direction, work  # the neighbour files
from gpu_device import Device, in_turns, storage, tf32
from gpu_scale import COMPILED, EAGER, LAYER, OURS, Case, Scale
from model import plan_of
from sides import from_torch, torch_layer

DRAWN = (1 << 22) - 1  # numbers, no multiple of any size
COMPARED = 32  # steps: the last outputs, and the gradients of the first inputs, on which all steps tell
PARTS = ("forward", "training")
LIMITS = {"float32": 1e-3, "tf32": 2e-2, "float16": 2e-2, "bfloat16": 1e-1}  # of what sides may differ by
Run = Callable[[], Any]


@dataclass(frozen=True)
class Side:
    """What is timed, and the outputs and the gradient of the input, on the host."""

    forward: Run
    training: Run
    results: Callable[[], tuple[Any, Any]]  # of so many steps


@dataclass(frozen=True)
class Numbers:
    """What all sides begin with: parameters by name, an input, gradients of the outputs; on the host."""

    named: Mapping[str, Any]
    layer: Any  # PyTorch's on the host, in float32; None where there is none
    x: Any  # some numbers of it, which `filled` repeats: drawing them all takes long
    d_y: Any


def timed(on: Device, case: Case, scale: Scale) -> dict[str, Any]:
    """Seconds of every part of every side; what a side cannot do stands under `failed`."""
    with tf32(on, case.dtype == "tf32"):
        numbers = drawn(on, case)
        made, failed = sides(on, case, numbers)
        if OURS not in made:
            return {"failed": failed}
        differences = {name: differs(made[OURS], side) for name, side in made.items() if name != OURS}
        wrong = {name: off for name, off in differences.items() if not off <= LIMITS[case.dtype]}
        found: dict[str, dict[str, list[float]]] = {name: {} for name in made}
        for part in PARTS:
            runs = {name: getattr(side, part) for name, side in made.items()}
            for name, taken in in_turns(on, runs, scale.turns, scale.case_seconds / len(PARTS)).items():
                found[name][part] = taken
    return {
        **found,
        "differences": {name: float(f"{off:.2g}") for name, off in differences.items()},
        **({"failed": failed} if failed else {}),
        **({"differ": [*wrong]} if wrong else {}),
    }


def sides(on: Device, case: Case, numbers: Numbers) -> tuple[dict[str, Side], dict[str, str]]:
    """Those that can be made, called once, and why the others cannot."""
    makers = {OURS: ours, LAYER: layer, EAGER: eager, COMPILED: compiled}
    made, failed = {}, {}
    for name in case.sides:
        if name != OURS and on.torch is None:
            continue
        try:
            side = makers[name](on, case, numbers)
            side.forward()
            side.training()
            on.wait()
            made[name] = side
        except Exception as error:  # what libraries raise; a lost side is better than a lost run
            failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return made, failed


def drawn(on: Device, case: Case) -> Numbers:
    """With the parameters of PyTorch's layer where it has one, else those of `init`."""
    rng = np.random.default_rng(0)
    count = min(case.T * case.B * case.H, DRAWN)
    x, d_y = (rng.standard_normal(count, np.float32) for _ in range(2))
    layer = torch_layer(case.cell, case.H) if on.torch else None
    if layer is not None:
        return Numbers(from_torch(case.cell, layer), layer, x, d_y)
    module = on.module(case.cell)
    wanted = [name for name in signature(module.init).parameters if name.endswith("_size")]
    params = module.init(**dict.fromkeys(wanted, case.H), seed=0)
    return Numbers({name: on.get(array) for name, array in module.unpack(params).items()}, None, x, d_y)


def filled(case: Case, drawn: Any) -> Any:
    """An array of all steps, of these numbers again and again."""
    return np.resize(drawn, (case.T, case.B, case.H))


def differs(one: Side, other: Side) -> float:
    """The norm of the difference over the norm, of outputs or of gradients of the input, whatever is more."""
    worst = 0.0
    for a, b in zip(one.results(), other.results(), strict=True):
        off = float(np.linalg.norm((a - b).ravel())) / max(float(np.linalg.norm(b.ravel())), 1e-30)
        worst = max(worst, float(np.nan_to_num(off, nan=np.inf)))
    return worst


# ------------------------------------------------------------------------------------------ the sides


def ours(on: Device, case: Case, numbers: Numbers) -> Side:
    """The generated module. It asks once whether TF32 is allowed, so each case has a module of its own."""
    module, kind = on.module(case.cell), storage(case.dtype)
    x, d_y = (on.put(filled(case, array.astype(kind))) for array in (numbers.x, numbers.d_y))
    params = module.pack({name: on.put(array.astype(kind)) for name, array in numbers.named.items()})
    _, _, tape = module.forward(params, x)

    def training() -> Any:
        y, _, kept = module.forward(params, x, tape=tape)
        return y, module.backward(params, kept, d_y).x

    return Side(
        lambda: module.forward(params, x, tape=False),
        training,
        lambda: on_the_host(training, lambda array: np.asarray(on.get(array), np.float32)),
    )


def on_the_host(training: Run, get: Callable[[Any], Any]) -> tuple[Any, Any]:
    """What is compared of what a side gives."""
    y, d_x = training()
    return get(y[-COMPARED:]), get(d_x[:COMPARED])


def layer(on: Device, case: Case, numbers: Numbers) -> Side:
    """`torch.nn.GRU` or `nn.LSTM`, which is cuDNN on a GPU."""
    made = deepcopy(numbers.layer).to(on.place, torch_dtype(on, case))
    return of_torch(on, case, numbers, lambda x: made(x)[0], [*made.parameters()])


def eager(on: Device, case: Case, numbers: Numbers) -> Side:
    """The equations in PyTorch's own operations, in a loop over the steps."""
    params = {name: tensor(on, case, array).requires_grad_() for name, array in numbers.named.items()}
    run = loop(on, case, params)
    return of_torch(on, case, numbers, run, [*params.values()])


def compiled(on: Device, case: Case, numbers: Numbers) -> Side:
    """The same, by `torch.compile`; on the emulator without its own compiler."""
    params = {name: tensor(on, case, array).requires_grad_() for name, array in numbers.named.items()}
    backend = "aot_eager" if on.emulated else "inductor"
    run = on.torch.compile(loop(on, case, params), backend=backend)
    return of_torch(on, case, numbers, run, [*params.values()])


def of_torch(on: Device, case: Case, numbers: Numbers, run: Callable[[Any], Any], params: list[Any]) -> Side:
    torch = on.torch
    x, d_y = (tensor(on, case, filled(case, array)) for array in (numbers.x, numbers.d_y))
    x.requires_grad_()

    def forward() -> Any:
        with torch.no_grad():
            return run(x)

    def training() -> Any:
        y = run(x)
        return y, torch.autograd.grad(y, [x, *params], d_y)[0]

    def results() -> tuple[Any, Any]:
        return on_the_host(training, lambda array: array.detach().float().cpu().numpy())

    return Side(forward, training, results)


def tensor(on: Device, case: Case, array: Any) -> Any:
    """A copy on the device."""
    made = on.torch.from_numpy(np.array(array, np.float32))
    return made.to(on.place).to(torch_dtype(on, case))


def torch_dtype(on: Device, case: Case) -> Any:
    return getattr(on.torch, str(storage(case.dtype)))


# ------------------------------------------------------------------------------------------ loops of PyTorch


def loop(on: Device, case: Case, p: Mapping[str, Any]) -> Callable[[Any], Any]:
    """A cell as one writes it, with its parameters."""
    torch, step = on.torch, {"gru_after": gru_after, "lstm": lstm, "mgu": mgu}[case.cell]

    def run(x: Any) -> Any:
        zeros = x.new_zeros(x.shape[1], case.H)
        state, outputs = (zeros, zeros), []
        for x_t in x:
            state = step(torch, p, x_t, *state)
            outputs.append(state[0])
        return torch.stack(outputs)

    return run


def gru_after(torch: Any, p: Mapping[str, Any], x: Any, h: Any, _: Any) -> tuple[Any, Any]:
    z = torch.sigmoid(x @ p["W_z"].T + h @ p["U_z"].T + p["b_z"] + p["c_z"])
    r = torch.sigmoid(x @ p["W_r"].T + h @ p["U_r"].T + p["b_r"] + p["c_r"])
    n = torch.tanh(x @ p["W_h"].T + r * (h @ p["U_h"].T + p["c_h"]) + p["b_h"])
    return (1 - z) * n + z * h, _


def lstm(torch: Any, p: Mapping[str, Any], x: Any, h: Any, c: Any) -> tuple[Any, Any]:
    i, f, g, o = (x @ p[f"W_{k}"].T + h @ p[f"U_{k}"].T + p[f"b_{k}"] for k in "ifgo")
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def mgu(torch: Any, p: Mapping[str, Any], x: Any, h: Any, _: Any) -> tuple[Any, Any]:
    f = torch.sigmoid(x @ p["W_f"].T + h @ p["U_f"].T + p["b_f"])
    return (1 - f) * h + f * torch.tanh(x @ p["W_h"].T + (f * h) @ p["U_h"].T + p["b_h"]), _


# ------------------------------------------------------------------------------------------ the bound


def bound(case: Case, copied: float, rates: Mapping[str, float]) -> float:
    """Seconds that forward and backward take if nothing but counted bytes and products took time.

    `copied` is bytes a second of a copy, `rates` operations a second of products, both as measured. The loop
    moves its arrays once; what serves all steps takes its products or its bytes, whatever is more.
    """
    shape, total = Shape(case.T, case.B, case.H, case.H, case.dtype), 0.0
    made = plan_of(case.cell)
    for way in WAYS:
        d = direction(made, way, shape)
        total += counted(made, way, shape, "whole").loop.bytes / copied
        for stage in (*d.schedule.before, *d.schedule.after):
            done = work(d, stage, d.rows)
            total += max(done.products / rates[case.dtype], done.bytes / copied)
    return total

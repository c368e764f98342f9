"""For `cpu.py`: one step of one sequence, and cells whose recurrence is elementwise beside their bytes."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from sides import Side, arrays, as_of, in_turns, parameters, same, training  # the neighbour file

COPIED = 64 << 20  # entries of float32: far more than any cache holds


def step(found: Mapping[str, ModuleType], H: int) -> dict[str, Any]:
    """Seconds of a step, B 1: both modules from Python, and the function of C alone."""
    params = parameters(found["gategen"], H)
    x, _ = arrays(1, 1, H)
    sides = {}
    for side, module in found.items():
        sides[side] = module_step(module, as_of(module, params), x[0])
    if "c" in found:
        for side, packed in (("function", False), ("function, packed", True)):
            sides[side] = function_step(found["c"], as_of(found["c"], params), x[0], packed)
    same({side: made.results() for side, made in sides.items()})
    return {"cell": found["gategen"].NAME, "B": 1, "H": H, **flat(in_turns(sides))}


def module_step(module: ModuleType, params: Any, x: Any) -> Side:
    state = module.States(*(np.zeros_like(x) for _ in module.STATES))
    return Side({"step": lambda: module.step(params, x, state)}, lambda: [module.step(params, x, state)[0]])


def function_step(module: ModuleType, params: Any, x: Any, with_pack: bool) -> Side:
    """`NAME_step` by ctypes, its arguments made beforehand."""
    B, H = x.shape  # the input is as wide as the state
    library, dtype = module.library("float32"), x.dtype
    call = module.function("step", dtype)
    given = (ctypes.c_void_p * len(params))(*(array.ctypes.data for array in params))
    packed = None
    if with_pack:
        entries = getattr(library, f"{module.NAME}_packed")
        entries.argtypes, entries.restype = [ctypes.c_size_t] * 2, ctypes.c_size_t
        packed = np.empty(entries(H, H), dtype)
        pack = getattr(library, f"{module.NAME}_pack")
        pack.argtypes, pack.restype = [ctypes.c_size_t] * 2 + [ctypes.c_void_p] * 2, None
        pack(H, H, given, packed.ctypes.data)
    states = [np.zeros((B, H), dtype) for _ in module.STATES]
    y, work = np.empty((B, H), dtype), np.empty(module.entries("step_workspace", dtype, B, H, H), dtype)
    pointers = (ctypes.c_void_p * len(states))(*(array.ctypes.data for array in states))
    x_at, packed_at, y_at, work_at = (
        None if array is None else ctypes.c_void_p(array.ctypes.data) for array in (x, packed, y, work)
    )
    sizes = map(ctypes.c_size_t, (B, H, H))
    arguments = (*sizes, given, x_at, packed_at, pointers, y_at, work_at)
    held = (params, x, packed, states, y, work)  # what the arguments point to, as long as they do

    def run(held: object = held) -> object:
        return call(*arguments)

    def results() -> list[Any]:
        for state in states:
            state[...] = 0
        call(*arguments)
        return [y.copy()]

    return Side({"step": run}, results)


def elementwise(found: Mapping[str, ModuleType], T: int, B: int, H: int, jax: bool) -> dict[str, Any]:
    """Seconds of a training step beside those of a copy, and how many bytes the step and the copy move.

    Each pass reads or writes once: forward the parameters, the input, the outputs, the final states and the
    tape; backward the parameters, the input, the tape, the gradients that come and those that go.
    """
    module = found.get("c", found["gategen"])
    params = as_of(module, parameters(found["gategen"], H))
    x, d_y = arrays(T, B, H)
    y, final, tape = module.forward(params, x)
    grads = module.backward(params, tape, d_y)
    kept = [part for name, part in tape._asdict().items() if name != "x" and isinstance(part, np.ndarray)]
    forward = (*params, x, y, *final, *kept)
    backward = (*params, x, *kept, d_y, *grads.params, grads.x, *grads.initial)
    source = np.ones(COPIED, np.float32)
    target = np.zeros_like(source)
    sides = training(found, T, B, H, None, parameters(found["gategen"], H), jax)
    sides["copy"] = Side({"both": lambda: np.copyto(target, source)})
    return {
        "cell": module.NAME,
        "T": T,
        "B": B,
        "H": H,
        "bytes": sum(array.nbytes for array in (*forward, *backward)),
        "copied": source.nbytes + target.nbytes,
        **in_turns(sides),
    }


def flat(samples: Mapping[str, Mapping[str, list[float]]]) -> dict[str, list[float]]:
    """Those of the one part."""
    return {side: next(iter(parts.values())) for side, parts in samples.items()}

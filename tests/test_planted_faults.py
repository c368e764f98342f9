"""Faults planted in kernels whose blocks wait for each other: each is found.

A fault is an edit of the generated text, which must match. The text as it is has no race, in every order.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gategen import Cell, emulator
from gategen.build import generate
from gategen.emulator import EmulatorError
from gategen.emulator import cupy as cp
from gategen.spec.load import builtins

ORDERS = [("forward", 0), ("reverse", 0), ("shuffle", 1)]
STEPS, BATCH, INPUT, HIDDEN = 4, 9, 3, 7  # two groups, of 8 rows and of 1
LENGTHS = np.array([4, 0, 3, 4, 1, 2, 4, 3, 4])
# Two products a step, one, sums and a product, and one sum, before which alone the blocks of a step meet.
NAMES = ("gru", "lstm", "ln_gru", "rms")
RMS = Cell.parse("rms", "matrices: W\nh' = tanh(W @ x + h / sqrt(1 + mean(h**2)))")
CELLS = {**builtins(), "rms": RMS}
MEETS = {"gru": 4, "lstm": 2, "ln_gru": 6, "rms": 2}  # of both directions


@dataclass(frozen=True)
class Fault:
    """`pattern` becomes `other` in the kernels of a cell, or in the module; `words` are of the error."""

    name: str
    pattern: str
    other: str | Callable[[re.Match[str]], str] = ""
    words: str = "race for"
    module: bool = False
    count: int = 1  # how often it is there; 0: at least once


DEVICE, BLOCK = "__NV_THREAD_SCOPE_DEVICE", "__NV_THREAD_SCOPE_BLOCK"
COUNTERS = r"arrived = (cp\.zeros\(\(groups, 32\), np\.uint32\))"
FAULTS = {
    "no barrier before a block arrives": Fault(
        "ln_gru", r"(goal \+= gridDim\.y;\n)\s*__syncthreads\(\);", r"\1"
    ),
    "no barrier after the wait": Fault("ln_gru", r"(#endif\n    }\n)    __syncthreads\(\);\n", r"\1"),
    "no wait": Fault("lstm", r"while \(int\(__nv_atomic_load_n\(arrived.*\{\}"),
    "no release": Fault("lstm", "__NV_ATOMIC_RELEASE", "__NV_ATOMIC_RELAXED"),
    "no acquire": Fault("lstm", "__NV_ATOMIC_ACQUIRE", "__NV_ATOMIC_RELAXED"),
    "arrives in the scope of a block": Fault("lstm", f"RELEASE, {DEVICE}", f"RELEASE, {BLOCK}"),
    "waits in the scope of a block": Fault("lstm", f"ACQUIRE, {DEVICE}", f"ACQUIRE, {BLOCK}"),
    "a goal that is too small": Fault("lstm", r"goal \+= gridDim\.y;", "goal += gridDim.y - 1;"),
    "a goal that stays": Fault("gru", r"goal \+= gridDim\.y;", "goal = gridDim.y;"),
    "a goal that no block reaches": Fault(
        "lstm", r"goal \+= gridDim\.y;", "goal += gridDim.y + 1;", "no progress"
    ),
    "groups that count together": Fault("gru", r"arrived \+= blockIdx\.z \* 32;", count=2),
    "a counter of the launch before": Fault(
        "lstm", COUNTERS, r'arrived = globals().setdefault("left", \1)', module=True
    ),
    "one slot for a state": Fault(
        "lstm",
        r"\bh(\[\(at \+ B\) \* H \+ k\]| \+ \(t \* B \+ row\) \* H)",
        lambda found: "h[b * H + k]" if "at" in found[1] else "h + row * H",
        count=0,
    ),
    "one slot for the parts of a sum": Fault("rms", r"\(t & 1\)", "0", count=4),
    "a share of units that overlaps another's": Fault(
        "gru", r"k = blockIdx\.y \* own_H \+ q", "k = blockIdx.y * (own_H - 1) + q", count=0
    ),
    # Within a block; what lies in shared memory is a chunk of a long operand.
    "no barrier before a chunk": Fault("lstm", r"__syncthreads\(\);(?=\s*for \(Index j = .*rows \* count)"),
    "no barrier behind a chunk": Fault("lstm", r"__syncthreads\(\);(?=\s*for \(Index u = slice)"),
    "no barrier before parts are added up": Fault(
        "lstm", r"__syncthreads\(\);(?=\s*for \(Index j = .*here \*)"
    ),
    "no barrier behind a product": Fault("lstm", r"(    }\n)    __syncthreads\(\);\n(?=}\n)", r"\1", count=0),
    "no barrier before a sum": Fault("rms", r"(s_v_h\[.*\n *}\n) *__syncthreads\(\);\n", r"\1"),
    "no barrier behind a sum": Fault("rms", r"(s_p_h\[r\] = .*\n(.*;\n)* *}\n) *__syncthreads\(\);\n", r"\1"),
}


@cache
def texts(name: str) -> tuple[str, str]:
    """The kernels and the module, for three blocks of a warp, and chunks of four entries."""
    made = generate(CELLS[name], "cupy")
    kernels, module = made[f"{name}_cupy.cu"], made[f"{name}_cupy.py"]
    if "CHUNK = 128;" in kernels:
        kernels = replaced(kernels, r"CHUNK = 128;", "CHUNK = 4;")
    module = replaced(module, r"(?m)^ROWS, CHUNK = 8, 128", "ROWS, CHUNK = 8, 4")
    module = replaced(module, r"(?m)^BLOCKS = None", "BLOCKS = 3")
    return kernels, replaced(module, r"(?m)^THREADS = 256", "THREADS = 32")


def replaced(text: str, pattern: str, other: str | Callable[[re.Match[str]], str], count: int = 1) -> str:
    """The text with an edit at as many places as there must be."""
    made, found = re.subn(pattern, other, text)
    assert found == count if count else found, (pattern, found)
    return made


def planted(fault: Fault, folder: Path) -> ModuleType:
    """The module with a fault."""
    kernels, module = texts(fault.name)
    if fault.module:
        module = replaced(module, fault.pattern, fault.other, fault.count)
    else:
        kernels = replaced(kernels, fault.pattern, fault.other, fault.count)
    return written(fault.name, kernels, module, folder)


def written(name: str, kernels: str, module: str, folder: Path) -> ModuleType:
    (folder / f"{name}_cupy.cu").write_text(kernels, encoding="utf-8")
    (folder / f"{name}_cupy.py").write_text(module, encoding="utf-8")
    return emulator.load(folder / f"{name}_cupy.py")


def run(module: Any, order: tuple[str, int] = ORDERS[0]) -> None:
    """Forward and backward, in which races are looked for."""
    rng = np.random.default_rng(0)
    params = module.init(INPUT, HIDDEN, seed=0)
    x = cp.asarray(rng.standard_normal((STEPS, BATCH, INPUT)), "f4")
    with emulator.race_detector(), emulator.thread_order(*order):
        y, _, tape = module.forward(params, x, lengths=LENGTHS)
        module.backward(params, tape, cp.ones(y.shape, "f4"))


@pytest.mark.parametrize("name", NAMES)
def test_without_a_fault_there_is_no_race_in_any_order(name: str, tmp_path: Path) -> None:
    module = written(name, *texts(name), tmp_path)
    for order in ORDERS:
        run(module, order)


@pytest.mark.parametrize("what", FAULTS)
def test_a_planted_fault_is_found_in_every_order(what: str, tmp_path: Path) -> None:
    fault = FAULTS[what]
    for k, order in enumerate(ORDERS):
        (tmp_path / f"{k}").mkdir()
        module = planted(fault, tmp_path / f"{k}")  # the counters of another order are not left
        with pytest.raises(EmulatorError, match=fault.words):
            run(module, order)


@pytest.mark.parametrize(("name", "k"), [(name, k) for name, count in MEETS.items() for k in range(count)])
def test_where_blocks_do_not_meet_there_is_a_race(name: str, k: int, tmp_path: Path) -> None:
    """At one of the places; at the others they still do, and what a block learns there is not too much."""
    kernels, module = texts(name)
    parts = kernels.split("meet(arrived, goal);")
    assert len(parts) == MEETS[name] + 1
    text = "meet(arrived, goal);".join([*parts[:k], parts[k] + parts[k + 1], *parts[k + 2 :]])
    made = written(name, text, module, tmp_path)
    with pytest.raises(EmulatorError, match=r"race for entry \d+"):
        run(made, ORDERS[k % 3])

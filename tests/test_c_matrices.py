"""Sums along axes in C: for every way in which two values may share up to three axes, against NumPy."""

import ctypes
import itertools
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import MINUTES, assert_close
from points import CELLS

from gategen.backends.c.functions import CFile
from gategen.backends.c.lines import ONCE, CModule, Lines, Notes
from gategen.backends.comments import Remark
from gategen.backends.names import Scope
from gategen.graph import Value, length
from gategen.plan import Buffer, Contraction, InBuffer, Slot, Sum, plan
from gategen.render import render

SIZES = {"rows": 5, "columns": 3, "depth": 18}
LETTERS = {"rows": "R", "columns": "C", "depth": "D"}


def value(name: str, along: tuple[str, ...]) -> Value:
    return Value(name, along or (1,))


def stages() -> list[Contraction | Sum]:
    """Each axis is one of the left side, of the right one, or of both, and it is kept or summed."""
    made: list[Contraction | Sum] = []
    for shares in itertools.product(itertools.product(("left", "right", "both"), (True, False)), repeat=3):
        axes = dict(zip(SIZES, shares, strict=True))
        if all(kept for _, kept in shares):
            continue
        left, right = (
            tuple(axis for axis, (side, _) in axes.items() if side in (own, "both"))
            for own in ("left", "right")
        )
        out = tuple(axis for axis, (_, kept) in axes.items() if kept)
        made.append(Contraction(value("out", out), value("left", left), value("right", right)))
    for kept in itertools.product((True, False), repeat=3):
        out = tuple(itertools.compress(SIZES, kept))
        if not all(kept):
            whole = value("left", tuple(SIZES))
            made += [Sum(value("out", out), (whole,)), Sum(value("out", out), (whole,), add=True)]
    return made


def lines_of(stage: Contraction | Sum, notes: Notes) -> list[str]:
    """The lines of a stage for the first row of three arrays."""
    values = dict.fromkeys((*stage.reads, stage.out))
    names = Scope(set(), LETTERS)
    for v in values:
        names.of("memory", v.name, v.name)
    slot = {v: Slot(InBuffer(v.name), length(1) - 1, v.size) for v in values}
    buffers = {
        v.name: Buffer(v.name, "row", length(v.size), (v.name,), axes=v.shape if v.wide else ())
        for v in values
    }
    graph = SimpleNamespace(orders=(tuple(SIZES),), nexts=(), results=(), backwards=True, mask=None)
    way: Any = SimpleNamespace(
        rule=SimpleNamespace(buffers=buffers, name="step"),
        schedule=SimpleNamespace(graph=graph, stages=(), slot=slot, buffer=buffers),
        comments=SimpleNamespace(of=lambda *_: Remark()),
        name="way",
    )
    lines = Lines(notes, way, names, ONCE, ())
    lines.contraction(stage)
    return lines.program


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_all_ways_to_share_three_axes(tmp_path: Path) -> None:
    module = CModule(plan(CELLS["many_heads"]))
    made: Any = CFile(module).context()
    notes = Notes(module)
    sizes = ", ".join(f"size_t {letter}" for letter in LETTERS.values())
    functions = []
    for k, stage in enumerate(stages()):
        program = "\n    ".join(lines_of(stage, notes))
        unused = " ".join(f"(void){name};" for name in (*LETTERS.values(), "left", "right", "row"))
        functions.append(
            f"void case_{k}({sizes}, const real *left, const real *right, real *out)\n"
            f"{{\n    const size_t row = 0;\n    {unused}\n    {program}\n}}\n"
        )
    text = render("c/helpers.c.jinja", {**made, "helpers": dict.fromkeys(made["helpers"], True)})
    kernels = []
    for kernel in notes.kernels:
        head = f"static inline void {kernel.name}({' '.join(kernel.parameters)})"
        kernels.append("\n".join((head, "{", *kernel.body, "}")))
    source = ["#include <stddef.h>", "#include <math.h>", "#include <string.h>", "typedef double real;"]
    (tmp_path / "cases.c").write_text("\n".join([*source, text, *kernels, *functions]), "utf-8")
    line = "gcc -std=c99 -O1 -shared -fPIC cases.c -o cases.so -lm".split()
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=MINUTES)
    assert done.returncode == 0, done.stderr[:3000]
    library = ctypes.CDLL(str(tmp_path / "cases.so"))
    rng = np.random.default_rng(0)
    letters = dict(zip(SIZES, "abc", strict=True))
    for k, stage in enumerate(stages()):
        arrays = [rng.standard_normal([SIZES[a] for a in v.axes]) for v in stage.reads]
        out = rng.standard_normal([SIZES[a] for a in stage.out.axes])
        said = ["".join(letters[a] for a in v.axes) for v in (*stage.reads, stage.out)]
        wanted = np.einsum(f"{','.join(said[:-1])}->{said[-1]}", *arrays)
        wanted = wanted + out if isinstance(stage, Sum) and stage.add else wanted
        given = [a.ctypes.data_as(ctypes.c_void_p) for a in (*arrays, *arrays[: 2 - len(arrays)], out)]
        getattr(library, f"case_{k}")(*map(ctypes.c_size_t, SIZES.values()), *given)
        assert_close(out, wanted, 1e-13, f"{said}")

"""CUDA of cells that use a matrix twice, beside the NumPy module."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers import assert_close
from points import CELLS as SPECS
from points import LENGTHS, Point, forward, gradients, input_keys, named, random_point

from gategen import emulator
from gategen.build import generate
from gategen.emulator import cupy as cp
from gategen.judge.host import imported, written
from gategen.plan import MatMul, OuterSum, Plan, plan

CELLS = ("stacked", "twice", "tied", "chained")
ONCE_WRONG = ("narrow", "reduced", "opened", "opened_from_the_start")


def plan_of(name: str) -> Plan:
    return plan(SPECS[name])


def test_some_products_add_to_what_is_there() -> None:
    """Or else the test below would not test what it is for."""
    steps = [stage for name in CELLS for stage in plan_of(name).step.backward.stages]
    assert any(isinstance(stage, MatMul) and stage.add for stage in steps)
    assert any(isinstance(stage, OuterSum) and stage.add for stage in steps)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("products")


def on_device(point: Point, module: ModuleType) -> dict[str, Any]:
    """What `forward` and `backward` of a CuPy module return, by name."""

    def put(array: Any) -> Any:
        return cp.asarray(np.ascontiguousarray(array))

    params = module.pack({a.name: put(point.values[a.name]) for a in point.cell.arrays})
    others = [put(point.values[s.name]) for s in point.cell.inputs[1:]]
    further = dict(zip(input_keys(point)[1:], others, strict=True))
    initial = module.States(*map(put, point.states)) if point.initial else None
    y, final, tape = module.forward(params, put(point.x), initial=initial, lengths=point.lengths, **further)
    d_y, d_final = tuple(map(put, point.d_y)), module.States(*map(put, point.d_final))
    grads = module.backward(params, tape, d_y if len(d_y) > 1 else d_y[0], d_final)
    found = {f"y {k}": part for k, part in enumerate(y if isinstance(y, tuple) else (y,))}
    found |= {f"final {k}": part for k, part in enumerate(final)}
    given = Point(point.cell, module, point.values, point.d_y, point.d_final)
    return {key: cp.asnumpy(part) for key, part in (found | named(given, grads)).items()}


@pytest.mark.skipif(emulator.compiler() is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("name", [*CELLS, *ONCE_WRONG])
def test_the_cuda_of_cells_that_use_a_matrix_twice_agrees_with_numpy(name: str, folder: Path) -> None:
    cell = SPECS[name]
    plain = imported(written(cell, "numpy", folder))
    for file, text in generate(cell, "cupy").items():
        (folder / file).write_text(text, encoding="utf-8")
    cuda = emulator.load(folder / f"{name}_cupy.py")
    for initial, lengths in ((True, None), (False, LENGTHS)):
        point = random_point(name, plain, initial=initial, lengths=lengths)
        y, final, _ = forward(point)
        wanted = {f"y {k}": part for k, part in enumerate(y)}
        wanted |= {f"final {k}": part for k, part in enumerate(final)} | gradients(point)
        found = on_device(point, cuda)
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            assert_close(found[key], value, 1e-11, key)

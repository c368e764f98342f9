"""The stand-in does what CuPy does: the same types and errors, and as many operations on the device."""

import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import test_cupy_modules as modules

from gategen import emulator
from real_cupy import plugin

BF = np.dtype(ml_dtypes.bfloat16)
TYPES = ("f8", "f4", "f2", BF)


def ones(cp: ModuleType, *shape: int, dtype: Any = "f4") -> Any:
    return cp.asarray(np.ones(shape, dtype))


def mask(cp: ModuleType) -> Any:
    return cp.asarray(np.array([[True, False, True], [False, True, True]]))


def arithmetic(name: str, a: Any, b: Any) -> Any:
    def call(cp: ModuleType) -> Any:
        return getattr(cp, name)(
            *(v if isinstance(v, int | float) else ones(cp, 2, 3, dtype=v) for v in (a, b))
        )

    return call


def rows(cp: ModuleType) -> Any:
    """Columns 1 to 3 of six: with gaps."""
    return ones(cp, 4, 6)[:, 1:4]


PAIRS = [(BF, BF), (BF, "f4"), ("f2", "f4"), ("f2", 0), (BF, 0), (BF, 2.5), ("?", 0), ("i4", "f4"), (BF, "?")]
CALLS = {
    f"{name} {a} {b}": arithmetic(name, a, b)
    for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum")
    for a, b in PAIRS
    if not (name == "subtract" and a == "?")
}
for kind in TYPES:
    CALLS |= {
        f"where {kind} 0": lambda cp, k=kind: cp.where(mask(cp), 0, ones(cp, 2, 3, dtype=k)),
        f"where {kind} {kind}": lambda cp, k=kind: cp.where(mask(cp), *[ones(cp, 2, 3, dtype=k)] * 2),
        f"where {kind} f4": lambda cp, k=kind: cp.where(mask(cp), ones(cp, 2, 3, dtype=k), ones(cp, 2, 3)),
        f"sum {kind}": lambda cp, k=kind: ones(cp, 2, 3, dtype=k).sum(0),
        f"mean {kind}": lambda cp, k=kind: ones(cp, 2, 3, dtype=k).mean(1),
        f"negative {kind}": lambda cp, k=kind: -ones(cp, 2, 3, dtype=k),
        f"isfinite {kind}": lambda cp, k=kind: cp.isfinite(ones(cp, 2, 3, dtype=k)),
        f"greater {kind}": lambda cp, k=kind: ones(cp, 2, 3, dtype=k) > 0,
        f"product {kind}": lambda cp, k=kind: ones(cp, 2, 3, dtype=k) @ ones(cp, 3, 4, dtype=k),
    }
CALLS |= {
    "copy": lambda cp: ones(cp, 2, 3).copy(),
    "copy of T": lambda cp: ones(cp, 2, 3).T.copy(),
    "ascontiguousarray": lambda cp: cp.ascontiguousarray(ones(cp, 2, 3)),
    "ascontiguousarray of T": lambda cp: cp.ascontiguousarray(ones(cp, 2, 3).T),
    "asarray in order": lambda cp: cp.asarray(ones(cp, 2, 3).T, order="C"),
    "asarray": lambda cp: cp.asarray(ones(cp, 2, 3)),
    "asarray of another type": lambda cp: cp.asarray(ones(cp, 2, 3), "f8"),
    "asarray bfloat16": lambda cp: cp.asarray(np.ones(3), BF),
    "asarray of a list": lambda cp: cp.asarray([1, 2]),
    "array": lambda cp: cp.array(ones(cp, 2, 3)),
    "astype": lambda cp: ones(cp, 2, 3).astype("f8"),
    "astype of the same": lambda cp: ones(cp, 2, 3).astype("f4"),
    "astype without a copy": lambda cp: ones(cp, 2, 3).astype("f4", copy=False),
    "reshape": lambda cp: ones(cp, 2, 3).reshape(6),
    "reshape of T": lambda cp: ones(cp, 2, 3).T.reshape(6),
    "reshape of columns": lambda cp: ones(cp, 5, 2, 3)[..., :2].reshape(10, 2),
    "ravel": lambda cp: ones(cp, 2, 3).ravel(),
    "ravel of T": lambda cp: ones(cp, 2, 3).T.ravel(),
    "zeros": lambda cp: cp.zeros((2, 3)),
    "ones": lambda cp: cp.ones((2, 3), "f4"),
    "full": lambda cp: cp.full((2, 3), 2.0),
    "empty": lambda cp: cp.empty((2, 3)),
    "zeros_like": lambda cp: cp.zeros_like(ones(cp, 2, 3)),
    "arange": lambda cp: cp.arange(5),
    "broadcast_to": lambda cp: cp.broadcast_to(ones(cp, 3), (4, 3)),
    "concatenate": lambda cp: cp.concatenate([ones(cp, 2, 3), ones(cp, 3, 3)]),
    "concatenate one": lambda cp: cp.concatenate([ones(cp, 2, 3)]),
    "concatenate types": lambda cp: cp.concatenate([ones(cp, 2, 3), ones(cp, 2, 3, dtype="f8")], axis=-1),
    "stack": lambda cp: cp.stack([ones(cp, 2, 3), ones(cp, 2, 3)]),
    "numpy.add": lambda cp: np.add(ones(cp, 2, 3), ones(cp, 2, 3)),
    "numpy.concatenate": lambda cp: np.concatenate([ones(cp, 2, 3), ones(cp, 2, 3)]),
    "a scalar of NumPy": lambda cp: ones(cp, 2, 3) + np.float64(2),
    "an array of NumPy": lambda cp: ones(cp, 2, 3) + np.ones((2, 3), "f4"),
    "an array of NumPy without axes": lambda cp: ones(cp, 2, 3) + np.array(2.0),
    "numpy.asarray": lambda cp: np.asarray(ones(cp, 2, 3)),
    "float": lambda cp: np.asarray(float(ones(cp, 2, 3).sum())),
    "an entry": lambda cp: ones(cp, 2, 3)[0, 0],
    "float128": lambda cp: cp.asarray(np.ones(2, np.longdouble)),
    "object": lambda cp: cp.asarray(np.array([None])),
    "text": lambda cp: cp.asarray(np.array(["a"])),
    "empty of float128": lambda cp: cp.empty(3, np.longdouble),
    "complex": lambda cp: cp.zeros(3, complex),
    "product T": lambda cp: ones(cp, 2, 3) @ ones(cp, 4, 3).T,
    "product of columns": lambda cp: rows(cp) @ ones(cp, 3, 3),
    "product with columns": lambda cp: ones(cp, 2, 3) @ rows(cp).T,
    "product of rows": lambda cp: ones(cp, 4, 6)[1:3] @ ones(cp, 6, 2),
    "product of a row with gaps": lambda cp: ones(cp, 4, 6)[:1, 1:4] @ ones(cp, 3, 3),
    "product of two types": lambda cp: ones(cp, 2, 3) @ ones(cp, 3, 3, dtype="f8"),
    "product of no rows": lambda cp: ones(cp, 0, 3) @ ones(cp, 3, 2),
    "product over nothing": lambda cp: ones(cp, 2, 0) @ ones(cp, 0, 2),
    "product of one entry": lambda cp: ones(cp, 1, 3) @ ones(cp, 3, 1),
    "product that does not fit": lambda cp: ones(cp, 2, 3) @ ones(cp, 2, 3),
    "product into": lambda cp: cp.matmul(ones(cp, 2, 3), ones(cp, 3, 3), out=cp.empty((2, 3), "f4")),
    "product into rows": lambda cp: cp.matmul(ones(cp, 2, 3), ones(cp, 3, 3), out=ones(cp, 4, 3)[1:3]),
    "product into columns": lambda cp: cp.matmul(ones(cp, 4, 3), ones(cp, 3, 3), out=rows(cp)),
    "product into T": lambda cp: cp.matmul(ones(cp, 3, 3), ones(cp, 3, 3), out=ones(cp, 3, 3).T),
    "product into another type": lambda cp: cp.matmul(ones(cp, 2, 3), ones(cp, 3, 3), out=cp.empty((2, 3))),
    "product into another shape": lambda cp: cp.matmul(ones(cp, 2, 3), ones(cp, 3, 3), out=ones(cp, 3, 3)),
}


def elsewhere(call: Any) -> Any:
    """A call for an array on the current device, and for one and a mask on another."""

    def made(cp: ModuleType) -> Any:
        here = ones(cp, 2, 3)
        with cp.cuda.Device(1):
            there, holds = ones(cp, 2, 3), mask(cp)
        found = call(cp, here, there, holds)
        return cp.asarray(found) if found is not None and found.device != here.device else found

    return made


CALLS |= {
    f"elsewhere: {name}": elsewhere(call)
    for name, call in {
        "add": lambda cp, a, b, m: a + b,
        "add two": lambda cp, a, b, m: b + b,
        "negative": lambda cp, a, b, m: -b,
        "sum": lambda cp, a, b, m: b.sum(),
        "where": lambda cp, a, b, m: cp.where(m, 0, b),
        "asarray": lambda cp, a, b, m: cp.asarray(b),
        "ascontiguousarray": lambda cp, a, b, m: cp.ascontiguousarray(b),
        "ascontiguousarray of T": lambda cp, a, b, m: cp.ascontiguousarray(b.T),
        "array": lambda cp, a, b, m: cp.array(b),
        "copy": lambda cp, a, b, m: b.copy(),
        "astype": lambda cp, a, b, m: b.astype("f8"),
        "get": lambda cp, a, b, m: cp.asarray(b.get()),
        "reshape": lambda cp, a, b, m: b.reshape(6),
        "an entry": lambda cp, a, b, m: b[0, 0],
        "zeros_like": lambda cp, a, b, m: cp.zeros_like(b),
        "concatenate": lambda cp, a, b, m: cp.concatenate([a, b]),
        "stack": lambda cp, a, b, m: cp.stack([a, b]),
        "fill": lambda cp, a, b, m: b.fill(1),
        "set to a number": lambda cp, a, b, m: b.__setitem__(0, 1),
        "set from there": lambda cp, a, b, m: a.__setitem__(0, b[0]),
        "copyto here": lambda cp, a, b, m: cp.copyto(a, b),
        "copyto there": lambda cp, a, b, m: cp.copyto(b, a),
        "add in place": lambda cp, a, b, m: a.__iadd__(b),
        "within": lambda cp, a, b, m: b.device.__enter__() and (b + b, cp.cuda.Device(0).use())[0],
    }.items()
}


def square(cp: ModuleType) -> Any:
    a = ones(cp, 3, 3)
    return cp.matmul(a, a, out=a)


CHANGES = {
    "set a row to 0": lambda cp, a: a.__setitem__(0, 0),
    "set a row": lambda cp, a: a.__setitem__(0, ones(cp, 3)),
    "set all": lambda cp, a: a.__setitem__(..., ones(cp, 2, 3)),
    "set a column": lambda cp, a: a.__setitem__((slice(None), 1), ones(cp, 2)),
    "set from another type": lambda cp, a: a.__setitem__(0, ones(cp, 3, dtype="f8")),
    "add in place": lambda cp, a: a.__iadd__(ones(cp, 2, 3)),
    "add another type in place": lambda cp, a: a.__iadd__(ones(cp, 2, 3, dtype="f8")),
    "add of the host in place": lambda cp, a: a.__iadd__(np.ones((2, 3), "f4")),
    "add to all": lambda cp, a: a.__setitem__(..., a[...].__iadd__(ones(cp, 2, 3))),
    "fill": lambda cp, a: a.fill(3),
    "copyto": lambda cp, a: cp.copyto(a, ones(cp, 2, 3)),
    "copyto a number": lambda cp, a: cp.copyto(a, 0),
    "copyto where": lambda cp, a: cp.copyto(a, ones(cp, 2, 3), where=mask(cp)),
    "copyto a number where": lambda cp, a: cp.copyto(a, 0, where=mask(cp)),
    "copyto from another type": lambda cp, a: cp.copyto(a, ones(cp, 2, 3, dtype="f8")),
    "copyto a row to all": lambda cp, a: cp.copyto(a, ones(cp, 3)),
}


def outcome(function: Any, cp: ModuleType, tally: Any) -> Any:
    """What a call gives and does, or which error it is."""
    try:
        with tally() as counted, np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            found = function(cp)
    except Exception as error:
        return type(error).__name__
    if found is None:
        return dict(counted)
    values = found.get() if isinstance(found, cp.ndarray) else found
    return found.dtype, found.shape, repr(values), dict(counted)


def both(function: Any) -> tuple[Any, Any]:
    with plugin.stand_in() as cp:
        own = outcome(function, cp, emulator.tally)
    return own, outcome(function, plugin.CUPY, plugin.tally)


def test_it_is_the_real_cupy_that_the_tests_run_on() -> None:
    assert modules.cp is plugin.CUPY and plugin.CUPY.__file__ != plugin.STAND_IN.__file__
    assert plugin.CUPY.__version__.startswith("14.")


@pytest.mark.parametrize("call", [*CALLS, "product into itself"])
def test_a_call_gives_does_and_refuses_the_same(call: str) -> None:
    own, real = both(CALLS.get(call, square))
    assert own == real


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_an_array_gives_does_and_refuses_the_same(change: str) -> None:
    def call(cp: ModuleType) -> Any:
        a = cp.zeros((2, 3), "f4")
        CHANGES[change](cp, a)
        return a

    own, real = both(call)
    assert own == real


def test_what_the_stand_in_has_cupy_has() -> None:
    names = {name for name in vars(plugin.STAND_IN.ndarray) if not name.startswith("_")}
    assert names <= set(dir(plugin.CUPY.ndarray))
    assert set(plugin.STAND_IN.__all__) <= set(dir(plugin.CUPY))


@pytest.mark.parametrize("lengths", [None, modules.LENGTHS], ids=["whole", "lengths"])
@pytest.mark.parametrize("name", modules.CELLS)
def test_a_module_does_the_same_on_both(name: str, lengths: Any, tmp_path: Path) -> None:
    """Operation by operation, and the numbers are the same but for the rounding of products."""
    setting = modules.Setting(name, "float64")
    with plugin.stand_in() as cp:
        _, module = modules.modules(name, tmp_path)
        with emulator.tally() as own:
            expected = setting.run(module, lambda a: cp.asarray(np.ascontiguousarray(a)), True, lengths)
    _, module = modules.modules(name, tmp_path)
    with plugin.tally() as real:
        actual = setting.run(module, modules.device, True, lengths)
    assert own == real
    assert modules.worst(expected, actual)[0] < 1e-12


def test_a_processor_holds_as_many_blocks_on_both() -> None:
    code = 'extern "C" __global__ void ones(float* a) { a[threadIdx.x] = 1; }'

    def held(cp: ModuleType) -> list[int]:
        kernel = cp.RawModule(code=code, enable_cooperative_groups=True).get_function("ones")
        return [
            cp.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(kernel.kernel.ptr, threads, shared)
            for threads, shared in ((32, 0), (256, 0), (256, 100_000), (256, 232_000), (1024, 0))
        ]

    with plugin.stand_in() as cp:
        own = held(cp)
    assert own == held(plugin.CUPY) == [16, 2, 2, 1, 0]

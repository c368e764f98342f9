"""The CuPy modules of cells with matrices of every row, with their CUDA run on the CPU, against NumPy's."""

import re
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import sympy as sp
from points import LENGTHS, Point, forward, gradients, input_keys, named, point_of
from test_second_cupy import assert_alike, results

from gategen import Cell, emulator
from gategen.backends.comments import Comments
from gategen.backends.cupy import Emitter, kernels_text
from gategen.backends.cupy.module import CupyModule
from gategen.backends.cupy.sums import apart
from gategen.backends.functions import needed_helpers
from gategen.backends.host import LOOP
from gategen.backends.module import Way
from gategen.backends.pointwise import Space, entry_number
from gategen.build import generate
from gategen.emulator import cupy as cp
from gategen.graph import Graph, Pointwise, Value, length
from gategen.judge.host import imported, written
from gategen.judge.verify import verify
from gategen.plan import Buffer, Contraction, InBuffer, Kernel, Rule, Schedule, Slot, Stage, Sum, plan

TEXTS = {
    "gla": """
        states: S[values, keys]
        matrices: W_k[keys, input], W_v[values, input], W_q[keys, input], W_a[keys, input]
        output: y
        k = W_k @ x
        v = W_v @ x
        q = W_q @ x
        a = sigmoid(W_a @ x)
        S' = S * a + outer(v, k)
        y = S' @ q""",
    "delta": """
        states: S[values, keys]
        matrices: W_k[keys, input], W_v[values, input], W_q[keys, input]
        vectors: w_b[input], w_a[input]
        output: y
        k = W_k @ x / sqrt(sum_((W_k @ x)**2) + 1e-6)
        v = W_v @ x
        q = W_q @ x
        b = sigmoid(sum_(w_b * x))
        a = sigmoid(sum_(w_a * x))
        S' = a * S + b * outer(v - a * (S @ k), k)
        y = S' @ q""",
    "mamba": """
        states: S[hidden, keys], n[keys]
        matrices: W_u[hidden, input], W_b[keys, input], W_c[keys, input], W_t[hidden, input], A[hidden, keys]
        vectors: b_t, D
        output: y, S'
        u = W_u @ x
        d = softplus(W_t @ x + b_t)
        e = W_b @ x
        c = W_c @ x
        S' = exp(-exp(A) * d) * S + outer(d * u, e)
        n' = tanh(S.T @ u + (1 - e) * n)
        g = sum_(tanh(S' * (1 - e)))
        y = S' @ c + D * u + S' @ n + g""",
    "two": """
        states: S[hidden, keys], P[values, keys]
        matrices: W_k[keys, input], W_v[values, input], W_u[hidden, input], W_q[keys, input]
        output: y, S', G, h
        k = tanh(W_k @ x)
        v = W_v @ x
        u = W_u @ x
        q = W_q @ x
        G = tanh(S + outer(u, k))
        S' = G * S + outer(u, S.T @ u)
        P' = sigmoid(P) * P + outer(v - P @ k, k)
        h = S' @ (P.T @ v)
        y = P' @ q""",
    "constant": """
        states: S[hidden, keys]
        matrices: W_k[keys, input], W_u[hidden, input], A[hidden, keys], D[hidden, keys]
        vectors: b, c[keys]
        output: y
        k = W_k @ x
        u = W_u @ x
        a = exp(-exp(A) * c)
        s = sum_(tanh(A) * D)
        S' = a * S * sigmoid(b) + D * outer(u, k)
        y = S' @ k + sum_(S' * D) + s * b""",
    "begun": """
        states: S[hidden, keys] = tanh(b) * 2, n[keys] = c
        matrices: W_k[keys, input], W_u[hidden, input]
        vectors: b, c[keys]
        output: y
        S' = S * sigmoid(W_k @ x) + outer(tanh(W_u @ x), n)
        n' = S.T @ (W_u @ x)
        y = S' @ n""",
    "first": """
        states: S[hidden, keys], h
        matrices: W_k[keys, input], W_u[hidden, input]
        vectors: b
        output: h', S'
        k = W_k @ x
        S' = S * sigmoid(k) + outer(h, k)
        h' = tanh(S' @ k + W_u @ x)
        first:
            k = W_k @ x
            S' = outer(W_u @ x + b, k)
            h' = S' @ k""",
    "normed": """
        states: S[hidden, keys], P[hidden, keys]
        matrices: W_k[keys, input], W_u[hidden, input]
        vectors: b
        output: y, P'
        k = W_k @ x
        M = outer(tanh(W_u @ x), k)
        r = sum_(S * P) + b
        n = sqrt(sum_(S**2) + 1)
        S' = S / n + M * k
        P' = P * sigmoid(r) + log(M * M + 1) / (exp(S) + 1)
        y = P' @ k / n""",
    "averaged": """
        states: S[hidden, keys], h
        matrices: W_k[keys, input], U[hidden, hidden]
        output: h'
        k = W_k @ x
        S' = S * sigmoid(k) + outer(U @ h, k)
        h' = S' @ k - S @ k * h + mean(S)""",
}
CELLS = {name: Cell.parse(name, text, file=f"{name}.gate") for name, text in TEXTS.items()}
ORDERS = [("forward", 0), ("reverse", 0), ("shuffle", 3)]
every_cell = pytest.mark.parametrize("name", CELLS)
pytestmark = pytest.mark.skipif(emulator.compiler() is None, reason="needs a C++ compiler")


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The modules of a cell by backend."""
    folder = tmp_path_factory.mktemp("cupy_matrices")

    @cache
    def load(name: str, backend: str) -> ModuleType:
        path: Path = written(CELLS[name], backend, folder)
        return emulator.load(path) if "cupy" in backend else imported(path)

    return load


def device(array: Any, dtype: Any = None) -> Any:
    return cp.asarray(np.ascontiguousarray(array), dtype)


def on_host(point: Point) -> dict[str, Any]:
    """All that `forward` and `backward` of a NumPy module give, by name."""
    y, final, _ = forward(point)
    found = {f"y {k}": part for k, part in enumerate(y)}
    return found | {f"final {k}": part for k, part in enumerate(final)} | gradients(point)


def on_device(point: Point, module: ModuleType, dtype: Any = None) -> dict[str, Any]:
    """The same of a CuPy module."""
    params = module.pack({a.name: device(point.values[a.name], dtype) for a in point.cell.arrays})
    values = [device(point.values[s.name], dtype) for s in point.cell.inputs]
    further = dict(zip(input_keys(point)[1:], values[1:], strict=True))
    states, d_y, d_final = (
        [device(part, dtype) for part in parts] for parts in (point.states, point.d_y, point.d_final)
    )
    initial = module.States(*states) if point.initial else None
    y, final, tape = module.forward(params, values[0], initial=initial, lengths=point.lengths, **further)
    grads = module.backward(params, tape, d_y if len(d_y) > 1 else d_y[0], module.States(*d_final))
    found = {f"y {k}": part for k, part in enumerate(y if isinstance(y, tuple) else (y,))}
    found |= {f"final {k}": part for k, part in enumerate(final)}
    given = Point(point.cell, module, point.values, point.d_y, point.d_final)
    return {key: cp.asnumpy(part) for key, part in (found | named(given, grads)).items()}


@every_cell
def test_the_cuda_of_matrices_agrees_with_numpy_in_three_thread_orders(modules: Any, name: str) -> None:
    plain, cuda = modules(name, "numpy"), modules(name, "cupy")
    for initial, lengths in ((True, None), (False, LENGTHS)):
        for dtype, tolerance in (("float64", 1e-11), ("float32", 1e-4)):
            point = point_of(CELLS[name], plain, initial=initial, lengths=lengths).astype(dtype)
            for order in ORDERS:
                with emulator.thread_order(*order):
                    assert_alike(on_host(point), on_device(point, cuda), tolerance)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 3, 40, 33), (3, 37, 2, 65), (1, 64, 32, 7)], ids=str)
@pytest.mark.parametrize("name", ("mamba", "two", "constant"))
def test_matrices_of_any_size_are_summed(modules: Any, name: str, sizes: tuple[int, ...]) -> None:
    """Also where rows have more entries than a warp has threads, or columns fewer than a block."""
    cell, plain = CELLS[name], modules(name, "numpy")
    given = {
        k: n for k, n in zip(("input", "hidden", "keys", "values"), sizes, strict=True) if k in cell.sizes
    }
    point = point_of(cell, plain, sizes=given, scale=0.1, steps=3, lengths=(3, 0, 2, 1, 3))
    assert_alike(on_host(point), on_device(point, modules(name, "cupy")), 1e-11)


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (4, 0), (0, 0), (1, 1)])
@pytest.mark.parametrize("name", ("mamba", "begun", "first"))
def test_empty_runs_of_matrices(modules: Any, name: str, steps: int, batch: int) -> None:
    plain, cuda = modules(name, "numpy"), modules(name, "cupy")
    for initial in (True, False):
        point = point_of(CELLS[name], plain, steps=steps, batch=batch, initial=initial)
        assert_alike(on_host(point), on_device(point, cuda), 1e-11)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ("delta", "mamba", "constant", "averaged"))
def test_sixteen_bits_hold_matrices_within_their_rounding(modules: Any, name: str, dtype: str) -> None:
    plain, cuda = modules(name, "numpy"), modules(name, "cupy")
    storage = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(np.float16)
    for lengths in (None, LENGTHS):
        point = point_of(CELLS[name], plain, lengths=lengths)
        point = point.astype("float32").astype(storage).astype("float32")
        found = on_device(point, cuda, storage)
        assert all(part.dtype == storage for part in found.values())
        assert_alike(on_host(point), found, 2**-4 if dtype == "bfloat16" else 2**-7)


@every_cell
def test_second_derivatives_of_matrices_agree_with_numpy(modules: Any, name: str) -> None:
    plain, beside, cuda, cuda_beside = (
        modules(name, backend) for backend in ("numpy", "numpy_jvp", "cupy", "cupy_jvp")
    )
    for initial, lengths in ((True, None), (False, LENGTHS)):
        point = point_of(CELLS[name], plain, initial=initial, lengths=lengths)
        wanted = results(point, plain, beside, np.asarray)
        with emulator.thread_order("shuffle", 3):
            assert_alike(wanted, results(point, cuda, cuda_beside, device), 1e-11)


@pytest.mark.parametrize("name", ("mamba", "two", "first"))
def test_steps_with_matrices_go_on_from_each_other(modules: Any, name: str) -> None:
    module = modules(name, "cupy")
    point = point_of(CELLS[name], modules(name, "numpy"), initial=False)
    params, x = module.pack({key: device(point.values[key]) for key in module.PARAMETERS}), device(point.x)
    whole, final, _ = module.forward(params, x, tape=False)
    state, steps = None, []
    for x_t in x:
        y, state = module.step(params, x_t, state)
        steps.append([cp.asnumpy(part) for part in (y if isinstance(y, tuple) else (y,))])
    found = [np.stack(parts) for parts in zip(*steps, strict=True)] + [cp.asnumpy(part) for part in state]
    wanted = [*(whole if isinstance(whole, tuple) else (whole,)), *final]
    for one, other in zip(found, map(cp.asnumpy, wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_two_runs_of_matrices_give_the_same_bits(modules: Any) -> None:
    point = point_of(CELLS["two"], modules("two", "numpy")).astype("float32")
    runs = [on_device(point, modules("two", "cupy")) for _ in range(2)]
    for key, value in runs[0].items():
        np.testing.assert_array_equal(value, runs[1][key])


@pytest.mark.slow
@every_cell
def test_kernels_of_matrices_are_right_and_have_no_races(name: str) -> None:
    for result in verify(CELLS[name], ["cupy", "cupy_jvp"], race=True):
        assert result.ok, result


def test_contractions_of_one_matrix_share_a_launch() -> None:
    """A step back of gated linear attention has four contractions in two launches."""
    text = generate(CELLS["gla"], "cupy")["gla_cupy.py"]
    loop = text.partition("for t in reversed(range(T)):")[2].partition("product(")[0]
    assert re.findall(r'(\w+)\("gla_backward', loop) == ["launch", "down_columns", "along_rows", "launch"]


def test_a_sum_waits_for_what_it_reads_and_for_readers_of_what_it_replaces() -> None:
    S, k, m, u, r = (
        Value(name, shape)
        for name, shape in (
            ("S", ("v", "k")), ("k", ("k",)), ("m", ("v",)), ("u", ("v",)), ("r", ("k",))
        )
    )  # fmt: skip
    own = {v: Slot(InBuffer(v.name), sp.S.Zero, v.size) for v in (S, k, m, u, r)}
    first, other, reader = Contraction(m, S, k), Contraction(r, S, u), Contraction(r, S, m)
    assert [*apart([first, other], own)] == [[first, other]]
    assert [*apart([first, reader], own)] == [[first], [reader]]
    assert [*apart([first, other], own | {r: own[k]})] == [[first], [other]]
    beside = Slot(InBuffer("k"), length("k"), "k")
    assert [*apart([first, other], own | {r: beside})] == [[first, other]]


# ---------------------------------------------------------------------------------------------- three axes


def test_entries_are_numbered_along_any_axes() -> None:
    sizes = {"a": 2, "b": 3, "c": 4, "d": 5}
    every = tuple(sizes)

    def size(expr: sp.Expr) -> str:
        return str(expr).replace("*", " * ")

    def number(space: Space, part: tuple[str, ...]) -> str:
        return space.along(part, size)

    spaces = [
        (Space("k", every),),
        (Space("k", ("a", "c")), Space("j", ("b", "d"))),
        (Space("k", ("b", "c")), Space("j", ("a", "d"))),
    ]
    cases = [("a",), ("c",), ("a", "b"), ("b", "c"), ("a", "c", "d"), ("b", "d"), every]
    for split in spaces:
        for at in np.ndindex(*sizes.values()):
            place = dict(zip(every, at, strict=True))
            known: dict[str, Any] = {
                space.index: np.ravel_multi_index(
                    [place[a] for a in space.axes], [sizes[a] for a in space.axes]
                )
                for space in split
            }
            for case in cases:
                text = entry_number(case, split, size, number).replace("/", "//")
                wanted = np.ravel_multi_index([place[a] for a in case], [sizes[a] for a in case])
                assert eval(text, known | sizes) == wanted, (case, text)


def test_kernels_of_three_axes_compute_what_einsum_does() -> None:
    """A value with two axes lies in a stretch of a buffer of vectors, as with heads."""
    text = """
        matrices: W_n[heads, input], W_v[values, input], W_k[keys, input]
        states: n[heads], v[values], k[keys]
        n' = W_n @ x
        v' = W_v @ x
        k' = W_k @ x"""
    module = CupyModule(plan(Cell.parse("three", text, file="three.gate")))
    every = ("heads", "values", "keys")
    sizes = {"heads": 3, "values": 5, "keys": 6}
    axes: dict[str, tuple[str, ...]] = {
        "C": every, "E": every, "u": every[:2], "k": every[::2], "a": every[2:], "n": every[:1],
        "of_keys": every[:2], "of_values": every[::2], "inner": every[:1], "whole": (), "crossed": every[1:2],
        "columns": every[2:], "plain": every[1:],
    }  # fmt: skip
    values = {name: Value(name, along or (1,)) for name, along in axes.items()}
    D = Value("D", every, True)
    of = values
    stages: tuple[Stage, ...] = (
        Kernel((Pointwise(of["E"], of["C"] * of["a"] + of["u"] * of["k"] * of["n"] + D),), every),
        Contraction(of["of_keys"], of["C"], of["k"]),
        Contraction(of["of_values"], of["E"], of["u"]),
        Contraction(of["inner"], of["C"], D),
        Contraction(of["whole"], of["C"], of["E"]),
        Contraction(of["crossed"], of["E"], of["k"]),
        Contraction(of["columns"], of["C"], of["u"]),
        Sum(of["plain"], (of["E"],)),
    )
    flat = [name for name in axes if name not in ("C", "E")]
    starts = np.cumsum([sp.S.Zero, *(length(values[name].size) for name in flat)])
    buffers = (
        Buffer("C", "row", length(every), ("C",), axes=every),
        Buffer("E", "row", length(every), ("E",), axes=every),
        Buffer("D", "static", length(every), ("D",), axes=every),
        Buffer("flat", "row", starts[-1], tuple(flat), tuple(starts[:-1])),
    )
    slots = [
        *((v, Slot(InBuffer(v.name), sp.S.Zero, every)) for v in (of["C"], of["E"], D)),
        *(
            (values[s], Slot(InBuffer("flat"), at, values[s].size))
            for s, at in zip(flat, starts, strict=False)
        ),
    ]
    graph = Graph(
        "three", tuple(of[name] for name in "Cukan"), (D,), (), (), tuple((s, values[s]) for s in axes)
    )
    schedule = Schedule(graph, (), (), stages, (), buffers, tuple(slots))
    way = Way(Rule("step", schedule, schedule, ()), schedule, Comments({}, {}))
    for buffer in buffers:
        module.names.of("memory", buffer.name, buffer.name)
    kernels: dict[str, Any] = {}
    emitter = Emitter(kernels, module, way, module.names, LOOP)
    emitter.run(stages)
    made = {**needed_helpers(module), "cell": {"title": "Three axes", "name": "three"}, "sizes": ()}
    source = kernels_text("three", made, kernels)
    code = cp.RawModule(code=source, options=("-std=c++17", "-DSTORAGE=double", "-DREAL=double"))

    def launched(blocks: int, shape: tuple[int, int]) -> Any:
        def launch(name: str, dtype: Any, count: int, *arguments: Any) -> None:
            code.get_function(name)((-(-count // blocks),), shape, arguments)

        return launch

    def along_rows(name: str, dtype: Any, count: int, width: int, *arguments: Any) -> None:
        code.get_function(name)((-(-count // 32),), (8, 32), arguments)

    rng, B = np.random.default_rng(0), 4
    host = {s: rng.standard_normal((B, *(sizes[axis] for axis in axes[s]))) for s in axes}
    host["D"] = rng.standard_normal([sizes[axis] for axis in every])
    vectors = np.concatenate([host[s].reshape(B, -1) for s in flat], axis=1)
    arrays = {"C": device(host["C"]), "D": device(host["D"]), "E": cp.empty((B, 3, 5, 6), np.float64)}
    arrays["flat"] = device(vectors)
    runs = {
        "launch": launched(256, (256, 1)),
        "down_columns": launched(32, (32, 8)),
        "along_rows": along_rows,
    }
    runs |= {"over_matrices": launched(1, (32, 8)), "dtype": np.float64, "B": B, "N": 3, "V": 5, "K": 6}
    exec(emitter.text, runs | arrays)

    C, u, k, a, n = (host[name] for name in ("C", "u", "k", "a", "n"))
    E = C * a[:, None, None] + np.einsum("bnv,bnk,bn->bnvk", u, k, n) + host["D"]
    np.testing.assert_allclose(cp.asnumpy(arrays["E"]), E, rtol=1e-12)
    wanted = {
        "of_keys": np.einsum("bnvk,bnk->bnv", C, k),
        "of_values": np.einsum("bnvk,bnv->bnk", E, u),
        "inner": np.einsum("bnvk,nvk->bn", C, host["D"]),
        "whole": np.einsum("bnvk,bnvk->b", C, E),
        "crossed": np.einsum("bnvk,bnk->bv", E, k),
        "columns": np.einsum("bnvk,bnv->bk", C, u),
        "plain": E.sum(axis=1),
    }
    ends = np.cumsum([host[name][0].size for name in flat])
    parts = dict(zip(flat, np.split(cp.asnumpy(arrays["flat"]), ends[:-1], axis=1), strict=True))
    for name, value in wanted.items():
        np.testing.assert_allclose(parts[name], value.reshape(B, -1), rtol=1e-10, atol=1e-10, err_msg=name)

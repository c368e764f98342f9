"""Cells that carry a matrix for every sequence, beside what one would write for them in PyTorch and JAX.

Gated DeltaNet and the mLSTM of xLSTM, forward and backward, float32, one thread. The generated modules, of
NumPy and of C, run beside a loop over the steps in eager PyTorch, differentiated by autograd, and a jitted
`jax.lax.scan`, differentiated by `jax.grad`; both compute all products with the input for all steps at
once. All sides compute the same outputs and gradients, which is checked first, and run in one process in
turns; processor time is measured. Beside them runs the least that any side must move: a copy of the state
for every step each way.

Writes every sample to a JSON file and prints the medians.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import click
from cpu import ROOT, TURNS, compiler, cpu, git, hold, installed, loaded, written  # the neighbour file

CELLS = ("gated_deltanet", "matrix_lstm")
T, B = 50, 8
SIZES = (32, 64, 128)  # hidden, keys and input
ONE = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
Named = dict[str, Any]  # parameters under the cell's own names


# ------------------------------------------------------------------------------------------ PyTorch and JAX


def torch_gated_deltanet(p: Named, x: Any) -> Any:
    import torch
    from torch.nn.functional import silu, softplus

    def unit(v: Any) -> Any:
        return v / (v.square().sum(-1, keepdim=True) + 1e-6).sqrt()

    q, k, v = unit(silu(x @ p["W_q"].T)), unit(silu(x @ p["W_k"].T)), silu(x @ p["W_v"].T)
    a = torch.exp(-p["A_log"].exp() * softplus(x @ p["W_a"].T + p["b_a"]))[..., None]
    b = torch.sigmoid(x @ p["W_b"].T)
    S, ys = x.new_zeros(x.shape[1], v.shape[-1], k.shape[-1]), []
    for t in range(len(x)):
        S = a[t] * S
        new = b[t] * (v[t] - (S @ k[t][..., None])[..., 0])
        S = S + new[..., None] * k[t][:, None]
        ys.append((S @ q[t][..., None])[..., 0])
    return torch.stack(ys)


def jax_gated_deltanet(p: Named, x: Any) -> Any:
    import jax
    import jax.numpy as jnp

    def unit(v: Any) -> Any:
        return v / jnp.sqrt((v * v).sum(-1, keepdims=True) + 1e-6)

    silu = jax.nn.silu
    q, k, v = unit(silu(x @ p["W_q"].T)), unit(silu(x @ p["W_k"].T)), silu(x @ p["W_v"].T)
    a = jnp.exp(-jnp.exp(p["A_log"]) * jax.nn.softplus(x @ p["W_a"].T + p["b_a"]))[..., None]
    b = jax.nn.sigmoid(x @ p["W_b"].T)

    def step(S: Any, given: Any) -> Any:
        q, k, v, a, b = given
        S = a * S
        new = b * (v - jnp.einsum("bhk,bk->bh", S, k))
        S = S + new[..., None] * k[:, None]
        return S, jnp.einsum("bhk,bk->bh", S, q)

    start = jnp.zeros((x.shape[1], v.shape[-1], k.shape[-1]), x.dtype)
    return jax.lax.scan(step, start, (q, k, v, a, b))[1]


def torch_matrix_lstm(p: Named, x: Any) -> Any:
    import torch
    from torch.nn.functional import logsigmoid

    q, v = (x @ p[f"W_{name}"].T + p[f"b_{name}"] for name in "qv")
    k = x @ p["W_k"].T / len(p["b_k"]) ** 0.5 + p["b_k"]
    o = torch.sigmoid(x @ p["W_o"].T + p["b_o"])
    ip, lf = (x @ p[f"W_{name}"].T + p[f"b_{name}"] for name in "if")
    lf = logsigmoid(lf)
    C, n = x.new_zeros(x.shape[1], v.shape[-1], k.shape[-1]), x.new_zeros(x.shape[1], k.shape[-1])
    m, hs = x.new_zeros(x.shape[1], 1), []
    for t in range(len(x)):
        kept = lf[t] + m
        m = torch.maximum(kept, ip[t])
        i, f = torch.exp(ip[t] - m), torch.exp(kept - m)
        C = f[..., None] * C + (i * v[t])[..., None] * k[t][:, None]
        n = f * n + i * k[t]
        length = torch.maximum((n * q[t]).sum(-1, keepdim=True).abs(), torch.exp(-m))
        hs.append(o[t] * (C @ q[t][..., None])[..., 0] / length)
    return torch.stack(hs)


def jax_matrix_lstm(p: Named, x: Any) -> Any:
    import jax
    import jax.numpy as jnp

    q, v = (x @ p[f"W_{name}"].T + p[f"b_{name}"] for name in "qv")
    k = x @ p["W_k"].T / len(p["b_k"]) ** 0.5 + p["b_k"]
    o = jax.nn.sigmoid(x @ p["W_o"].T + p["b_o"])
    ip, lf = (x @ p[f"W_{name}"].T + p[f"b_{name}"] for name in "if")

    def step(state: Any, given: Any) -> Any:
        (C, n, m), (q, k, v, o, ip, lf) = state, given
        kept = lf + m
        m = jnp.maximum(kept, ip)
        i, f = jnp.exp(ip - m), jnp.exp(kept - m)
        C = f[..., None] * C + (i * v)[..., None] * k[:, None]
        n = f * n + i * k
        length = jnp.maximum(jnp.abs((n * q).sum(-1, keepdims=True)), jnp.exp(-m))
        return (C, n, m), o * jnp.einsum("bhk,bk->bh", C, q) / length

    batch, rows, keys = x.shape[1], v.shape[-1], k.shape[-1]
    start = jnp.zeros((batch, rows, keys), x.dtype), jnp.zeros((batch, keys), x.dtype)
    given = (q, k, v, o, ip, jax.nn.log_sigmoid(lf))
    return jax.lax.scan(step, (*start, jnp.zeros((batch, 1), x.dtype)), given)[1]


def torch_side(name: str, named: Named, x: Any, d_y: Any) -> Any:
    import torch
    from sides import Side

    run = globals()[f"torch_{name}"]
    leaves = {key: torch.tensor(array, requires_grad=True) for key, array in named.items()}
    x, d_y = torch.tensor(x, requires_grad=True), torch.tensor(d_y)

    def both() -> list[Any]:
        y = run(leaves, x)
        return [y, *torch.autograd.grad(y, [x, *leaves.values()], d_y)]

    return Side({"both": both}, lambda: [part.detach().numpy() for part in both()])


def jax_side(name: str, named: Named, x: Any, d_y: Any) -> Any:
    import jax
    import jax.numpy as jnp
    from sides import Side

    run = globals()[f"jax_{name}"]

    def loss(p: Named, x: Any, d_y: Any) -> Any:
        y = run(p, x)
        return (y * d_y).sum(), y

    gradient = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    held = jax.block_until_ready(jax.tree.map(jnp.array, (named, x, d_y)))

    def results() -> list[Any]:
        (d_p, d_x), y = gradient(*held)
        return [y, d_x, *(d_p[key] for key in named)]  # JAX sorts what is in a dict

    return Side({"both": lambda: jax.block_until_ready(gradient(*held))}, results)


# ------------------------------------------------------------------------------------------ one process


def generated(name: str, folder: Path) -> dict[str, ModuleType]:
    """The module of NumPy, and that of C where there is a compiler."""
    from gategen.build import generate
    from gategen.errors import GategenError
    from gategen.spec.load import find_builtin

    cell = find_builtin(name)
    assert cell
    found = {}
    for side, backend in (("numpy", "numpy"), ("c", "c")):
        try:
            for file, text in generate(cell, backend).items():
                (folder / file).write_text(text)
            found[side] = loaded(folder / f"{name}_{backend}.py")
            if side == "c":
                found[side].library("float32")
        except (GategenError, RuntimeError) as error:
            found.pop(side, None)
            print(f"{name} without {side}: {str(error).splitlines()[0]}", file=sys.stderr)
    return found


def module_side(module: ModuleType, named: Named, x: Any, d_y: Any) -> Any:
    """A generated module, with the memory of its tape reused."""
    from sides import Side

    params = module.pack(named)
    _, _, tape = module.forward(params, x)

    def forward() -> Any:
        return module.forward(params, x, tape=tape)[0]

    def backward() -> Any:
        return module.backward(params, tape, d_y)

    def results() -> list[Any]:
        y, grads = forward(), backward()
        d_named = module.unpack(grads.params)
        return [y, grads.x, *(d_named[key] for key in named)]

    return Side({"forward": forward, "backward": backward}, results)


def copies(size: int) -> Any:
    """What is left of a step when nothing is computed: the state is read and written, once each way."""
    import numpy as np
    from sides import Side

    S, d_S = np.ones((T + 1, B, size, size), np.float32), np.ones((B, size, size), np.float32)

    def forward() -> None:
        for t in range(T):
            np.copyto(S[t + 1], S[t])

    def backward() -> None:
        for t in reversed(range(T)):
            np.add(d_S, S[t], out=d_S)

    return Side({"forward": forward, "backward": backward})


def measure(others: Mapping[str, Callable[..., Any]]) -> Iterator[dict[str, Any]]:
    """A record for every cell and size: seconds of every part of every side, a number a turn."""
    import numpy as np
    from sides import in_turns, same

    if "torch" in others:
        import torch

        torch.set_num_threads(1)
    with TemporaryDirectory(prefix="gategen-") as folder:
        found = {name: generated(name, Path(folder)) for name in CELLS}
    for name in CELLS:
        for size in SIZES:
            module = found[name]["numpy"]
            rng = np.random.default_rng(0)
            x, d_y = (rng.standard_normal((T, B, size), np.float32) for _ in range(2))
            named = module.unpack(module.init(size, size, keys=size, seed=0))
            sides = {side: module_side(made, named, x, d_y) for side, made in found[name].items()}
            sides |= {other: make(name, named, x, d_y) for other, make in others.items()}
            same({side: made.results() for side, made in sides.items()})
            yield {"cell": name, "T": T, "B": B, "size": size, **in_turns(sides | {"copies": copies(size)})}


# ------------------------------------------------------------------------------------------ all


def facts(packages: tuple[str, ...]) -> dict[str, Any]:
    """What the numbers depend on."""
    from importlib.metadata import version

    return {
        "commit": git("rev-parse", "HEAD"),
        "changed": git("status", "--porcelain", "--", "gategen", "templates") != "",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", *packages)},
            "compiler": compiler(),
        },
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),  # before the benchmark adds to it
        "system": f"{platform.system()} {platform.machine()}",
        "dtype": "float32",
        "threads": 1,
        "turns": TURNS,
    }


def milliseconds(record: Mapping[str, Any], side: str) -> float | None:
    """The median over the turns of forward and backward together."""
    parts = record.get(side)
    return None if parts is None else 1e3 * median(map(sum, zip(*parts.values(), strict=True)))


def table(document: Mapping[str, Any]) -> str:
    """Medians in milliseconds, and how many times as fast as the loop in PyTorch each side is."""
    sides = ("numpy", "c", "torch", "jax", "copies")
    lines = [f"| cell | H, K | {' | '.join(f'{side}, ms' for side in sides)} | numpy : torch | c : torch |"]
    lines.append("| --- | ---: " + "| ---: " * (len(sides) + 2) + "|")
    for record in document["results"]:
        taken = {side: milliseconds(record, side) for side in sides}
        cells = ["" if ms is None else f"{ms:.3g}" for ms in taken.values()]
        for side in ("numpy", "c"):
            both = taken["torch"], taken[side]
            cells.append("" if None in both else f"{both[0] / both[1]:.2f}")  # type: ignore[operator]
        lines.append(f"| {record['cell']} | {record['size']} | {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command()
@click.option(
    "--out",
    default=ROOT / "benchmarks" / "results" / "matrix_states.json",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The JSON file.  [default: benchmarks/results/matrix_states.json]",
)
@click.option("--process", is_flag=True, hidden=True, help="Measure in this process, a record a line.")
def main(out: Path, process: bool) -> None:
    """Measure cells that carry a matrix for every sequence beside PyTorch and JAX."""
    others = {name: make for name, make in (("torch", torch_side), ("jax", jax_side)) if installed(name)}
    if process:
        hold(1)
        for record in measure(others):
            print(json.dumps(record), flush=True)
        return
    document: dict[str, Any] = {**facts(tuple(others)), "results": []}
    command = [sys.executable, __file__, "--process"]
    with subprocess.Popen(command, env={**os.environ, **ONE}, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        document["results"] += map(json.loads, run.stdout)
    if run.returncode:
        raise click.ClickException(f"the process that measures ended with {run.returncode}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(written(document))
    click.echo(table(document))
    click.echo(f"\nsamples: {out}")


if __name__ == "__main__":
    main()

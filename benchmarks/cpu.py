"""A training step on the CPU: generated NumPy modules against torch.nn.GRU and torch.nn.LSTM, in float32.

Both sides compute the same outputs and gradients, which is checked first. They run in the same process in
turns, so that a busy moment hits both; between two turns lies a pause, in which the threads of one library go
to sleep, and before short steps an untimed call. Every thread count has a process of its own; with one thread
processor time is measured, to which other programs add little, with more the time that passes. Beside them
run the matrix products of the step alone, as `np.matmul` on arrays of the same shapes: the bound for a module
that computes with NumPy.

Writes every sample to a JSON file, of which `benchmarks/table.py` makes tables.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import click

ROOT = Path(__file__).resolve().parent.parent
CELLS = {"gru_after": "GRU", "lstm": "LSTM"}
FEW = ((100, 1, 64), (100, 16, 128), (100, 32, 256), (100, 64, 512), (50, 128, 512))  # T, B, H; I = H
MANY = tuple((100, b, h) for h, b in product((64, 128, 256, 512), (1, 16, 64, 128)))
TURNS = 7
PAUSE = 0.04  # seconds; OpenBLAS's threads spin for about half of that
SAMPLE = 0.04  # a sample is the mean of as many calls as take this long


class Step(NamedTuple):
    """A training step in two parts; `backward` follows `forward`."""

    forward: Callable[[], object]
    backward: Callable[[], object]


# ------------------------------------------------------------------------------------------ one process


def measure(shapes: Sequence[Sequence[int]], threads: int) -> Iterator[dict[str, Any]]:
    """A record for every cell and shape."""
    import torch

    torch.set_num_threads(threads)
    for name in CELLS:
        module = loaded(module_path(name))
        for T, B, H in shapes:
            yield {"cell": name, "T": T, "B": B, "H": H, "threads": threads, **samples(module, T, B, H)}


def samples(module: ModuleType, T: int, B: int, H: int) -> dict[str, Any]:
    """Seconds of forward and backward: a list for each side."""
    import numpy as np
    import torch

    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    layer = getattr(torch.nn, CELLS[module.NAME])(H, H)
    params = module.pack(from_torch(module.NAME, layer))
    x, d_y = (rng.standard_normal((T, B, H), np.float32) for _ in range(2))
    ours, theirs = numpy_step(module, params, x, d_y), torch_step(layer, x, d_y)
    same(ours, theirs)
    sides = {"gategen": ours, "torch": theirs, "products": products(T, B, H, len(params.U) // H)}
    once = min(sum(timed(step, 1)) for step in (ours, theirs, sides["products"], ours))
    calls = max(1, min(50, round(SAMPLE / once)))
    found: dict[str, Any] = {name: {"forward": [], "backward": []} for name in sides}
    for _ in range(TURNS):
        for name, step in sides.items():
            time.sleep(PAUSE)
            if calls > 1:
                timed(step, 1)
            forward, backward = timed(step, calls)
            found[name]["forward"].append(round(forward, 7))
            found[name]["backward"].append(round(backward, 7))
    return {"calls": calls, **found}


def timed(step: Step, calls: int) -> tuple[float, float]:
    """Seconds of each part, the mean of so many calls."""
    clock = time.process_time if os.environ.get("OMP_NUM_THREADS") == "1" else time.perf_counter
    forward = backward = 0.0
    for _ in range(calls):
        began = clock()
        step.forward()
        between = clock()
        step.backward()
        forward += between - began
        backward += clock() - between
    return forward / calls, backward / calls


def numpy_step(module: ModuleType, params: Any, x: Any, d_y: Any) -> Step:
    """The generated module, with the memory of its tape reused."""
    _, _, tape = module.forward(params, x)

    def forward() -> object:
        return module.forward(params, x, tape=tape)[0]

    def backward() -> object:
        grads = module.backward(params, tape, d_y)
        return grads.x

    return Step(forward, backward)


def torch_step(layer: Any, x: Any, d_y: Any) -> Step:
    """PyTorch's layer, with the gradients of all its parameters and of the input."""
    import torch

    x, d_y = torch.from_numpy(x).requires_grad_(), torch.from_numpy(d_y)
    run = []

    def forward() -> object:
        run[:] = [layer(x)[0]]
        return run[0].detach().numpy()

    def backward() -> object:
        return torch.autograd.grad(run.pop(), [x, *layer.parameters()], d_y)[0].numpy()

    return Step(forward, backward)


def products(T: int, B: int, H: int, gates: int) -> Step:
    """The matrix products of the step and nothing else."""
    import numpy as np

    rng = np.random.default_rng(1)
    G = gates * H
    x, y, d_g, W, U = (
        rng.standard_normal(shape, np.float32) for shape in ((T * B, H), (T, B, H), (T, B, G), (G, H), (G, H))
    )
    U_T = np.ascontiguousarray(U.T)
    g, u, d_h = np.empty((T * B, G), x.dtype), np.empty((B, G), x.dtype), np.empty((B, H), x.dtype)
    d_x, d_W, d_U = np.empty_like(x), np.empty_like(W), np.empty_like(U)
    h, d_all = y.reshape(T * B, H), d_g.reshape(T * B, G)

    def forward() -> None:
        np.matmul(x, W.T, out=g)
        for h_t in y:
            np.matmul(h_t, U_T, out=u)

    def backward() -> None:
        for d_t in d_g:
            np.matmul(d_t, U, out=d_h)
        np.matmul(d_all, W, out=d_x)
        np.matmul(d_all.T, x, out=d_W)
        np.matmul(d_all.T, h, out=d_U)

    return Step(forward, backward)


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


def same(ours: Step, theirs: Step) -> None:
    """Outputs and input gradients agree to rounding."""
    import numpy as np

    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine(), other(), rtol=1e-3, atol=1e-3)


# ------------------------------------------------------------------------------------------ what is measured


def module_path(name: str) -> Path:
    return ROOT / "generated" / f"{name}_numpy.py"


def loaded(path: Path) -> ModuleType:
    """The module in this file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def facts() -> dict[str, Any]:
    """What the numbers depend on."""
    import numpy as np
    import torch

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "commit": git("rev-parse", "HEAD"),
        "changed": git("status", "--porcelain", "--", *(str(module_path(name)) for name in CELLS)) != "",
        "modules": {name: sha256(module_path(name).read_bytes()).hexdigest() for name in CELLS},
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "blas": f"{blas['name']} {blas['version']}",
            "torch": torch.__version__,
        },
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),  # before the benchmark adds to it
        "system": f"{platform.system()} {platform.machine()}",
        "dtype": "float32",
        "turns": TURNS,
    }


def git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def cpu() -> str:
    """The processor by name and, where Linux tells, its SIMD width."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    told: Mapping[str, str] = dict(
        (word.strip() for word in line.split(":", 1)) for line in lines if ":" in line
    )
    wide = next((w for w in ("avx512f", "avx2") if w in told.get("flags", "").split()), "")
    return " ".join(filter(None, (told.get("model name", "unknown"), wide)))


# ------------------------------------------------------------------------------------------ all processes


def processes(shapes: Sequence[Sequence[int]], counts: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The records of one process for every thread count."""
    for threads in counts:
        own = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        command = [sys.executable, __file__, "--threads", str(threads), "--shapes", json.dumps(shapes)]
        with subprocess.Popen(command, env={**os.environ, **own}, stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout
            yield from map(json.loads, run.stdout)
        if run.returncode:
            raise click.ClickException(f"the process with {threads} threads ended with {run.returncode}")


def written(document: Mapping[str, Any]) -> str:
    """As JSON, a fact or a record a line."""
    facts = "".join(f" {json.dumps(k)}: {json.dumps(v)},\n" for k, v in document.items() if k != "results")
    records = ",\n".join(f"  {json.dumps(record)}" for record in document["results"])
    return f'{{\n{facts} "results": [\n{records}\n ]\n}}\n'


@contextmanager
def progress(total: int) -> Iterator[Callable[[], None]]:
    """Call it when one of `total` is done; a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=total)
        yield lambda: bar.advance(task)


@click.command()
@click.option("--quick", is_flag=True, help="Five shapes instead of the grid as well.")
@click.option("--threads", default="1,2", show_default=True, help="Thread counts, comma-separated.")
@click.option(
    "--out",
    default=ROOT / "benchmarks" / "results" / "cpu.json",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The JSON file.  [default: benchmarks/results/cpu.json]",
)
@click.option("--shapes", hidden=True, help="JSON: measure these in this process, a record a line.")
def main(quick: bool, threads: str, out: Path, shapes: str | None) -> None:
    """Measure a training step of the generated NumPy modules against PyTorch's."""
    if shapes is not None:
        for record in measure(json.loads(shapes), int(threads)):
            print(json.dumps(record), flush=True)
        return
    counts = [int(count) for count in threads.split(",")]
    chosen = FEW if quick else tuple(dict.fromkeys((*FEW, *MANY)))
    document = {**facts(), "results": []}
    out.parent.mkdir(parents=True, exist_ok=True)
    with progress(len(counts) * len(CELLS) * len(chosen)) as advance:
        for record in processes(chosen, counts):
            document["results"].append(record)
            advance()
    out.write_text(written(document))
    from table import table  # the neighbour file

    click.echo(table(document))
    click.echo(f"\nsamples: {out}")


if __name__ == "__main__":
    main()

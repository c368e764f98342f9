"""A training step of `gategen.torch.RNN` on the CPU, beside what one would use in PyTorch without it.

That is `torch.nn.GRU` and `torch.nn.LSTM` for their cells, and for others a loop of PyTorch's own operations
over the steps. Both sides have the same parameters and give the same gradients, which is checked first; they
run in one process in turns, with one thread, and processor time is measured. Our layer runs with the module
of C, where there is a compiler, and with that of NumPy. Beside them runs the generated module that the layer
takes by itself, without PyTorch: the difference at T 1 is what a call of the layer costs. Compilation by
`torch.compile` is timed once a side. Writes every sample to a JSON file, of which `benchmarks/table.py` makes
the table.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import click
import torch
from cpu import ROOT, facts, written  # the neighbour files
from table import layers_table

import gategen
from gategen.torch import RNN

SHAPES = ((1, 1, 64), (100, 1, 64), (100, 16, 128), (100, 32, 256))  # T, B, H; the input is as wide
TURNS, SAMPLE = 9, 0.05  # a sample is the mean of as many calls as take so many seconds
Tensor = torch.Tensor


class Loop(torch.nn.Module):
    """A cell as one writes it in PyTorch: its equations, in a loop over the steps."""

    def __init__(self, like: RNN, step: Callable[[dict[str, Tensor], Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        for name, parameter in like.named_parameters():
            self.register_parameter(name.removesuffix("_l0"), torch.nn.Parameter(parameter.detach().clone()))
        self.step = step

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        p = dict(self.named_parameters())
        h = x.new_zeros(x.shape[1], len(p["U_h"]))
        outputs = []
        for x_t in x:
            h = self.step(p, x_t, h)
            outputs.append(h)
        return torch.stack(outputs), h


def mgu(p: dict[str, Tensor], x: Tensor, h: Tensor) -> Tensor:
    f = torch.sigmoid(x @ p["W_f"].T + h @ p["U_f"].T + p["b_f"])
    return (1 - f) * h + f * torch.tanh(x @ p["W_h"].T + (f * h) @ p["U_h"].T + p["b_h"])


def ligru_nobn(p: dict[str, Tensor], x: Tensor, h: Tensor) -> Tensor:
    z = torch.sigmoid(x @ p["W_z"].T + h @ p["U_z"].T + p["b_z"])
    return z * h + (1 - z) * torch.relu(x @ p["W_h"].T + h @ p["U_h"].T + p["b_h"])


OTHERS: dict[str, Any] = {
    "gru_after": torch.nn.GRU,
    "lstm": torch.nn.LSTM,
    "mgu": mgu,
    "ligru_nobn": ligru_nobn,
}


def other(name: str, layer: RNN, H: int) -> torch.nn.Module:
    """PyTorch's layer, or a loop, with the same parameters."""
    if isinstance(OTHERS[name], type):
        made: torch.nn.Module = OTHERS[name](H, H)
        made.load_state_dict(layer.state_dict())
        return made
    return Loop(layer, OTHERS[name])


def training_step(layer: torch.nn.Module, x: Tensor, d_y: Tensor) -> Callable[[], list[Tensor]]:
    leaves = [x, *layer.parameters()]

    def run() -> list[Tensor]:
        return list(torch.autograd.grad(layer(x)[0], leaves, d_y))

    return run


def bare_step(layer: RNN, x: Tensor, d_y: Tensor) -> Callable[[], object]:
    """The generated module alone."""
    module = layer.module
    params = module.init(x.shape[2], layer.hidden_size, seed=0)
    arrays = x.detach().numpy(), d_y.numpy()

    def run() -> object:
        _, _, tape = module.forward(params, arrays[0])
        return module.backward(params, tape, arrays[1])

    return run


def samples(name: str, T: int, B: int, H: int) -> dict[str, Any]:
    torch.manual_seed(0)
    layer = RNN(name, H, H)
    x, d_y = torch.randn(T, B, H, requires_grad=True), torch.randn(T, B, H)
    layers = {"c": layer} if hasattr(layer.module, "library") else {}
    layers["gategen"] = RNN(gategen.compile(name), H, H)
    layers["gategen"].load_state_dict(layer.state_dict())
    layers["torch"] = other(name, layer, H)
    sides: dict[str, Callable[[], object]] = {
        side: training_step(one, x, d_y) for side, one in layers.items()
    }
    first, *others = (run() for run in sides.values())
    for results in others:
        for one, another in zip(first, results, strict=True):
            torch.testing.assert_close(one, another, rtol=1e-3, atol=1e-3)
    sides["bare"] = bare_step(layer, x, d_y)
    found: dict[str, list[float]] = {side: [] for side in sides}
    calls = max(1, min(500, round(SAMPLE / min(timed(run, 3) for run in sides.values()))))
    for _ in range(TURNS):
        for side, run in sides.items():
            run()
            found[side].append(round(timed(run, calls), 8))
    return {"cell": name, "T": T, "B": B, "H": H, "calls": calls, **found}


def timed(run: Callable[[], object], calls: int) -> float:
    began = time.process_time()
    for _ in range(calls):
        run()
    return (time.process_time() - began) / calls


def compiled() -> dict[str, float]:
    """Seconds until the first training step of a compiled layer is done, T 50."""
    torch.manual_seed(0)
    layer = RNN("mgu", 64, 64)
    x = torch.randn(50, 16, 64, requires_grad=True)
    found = {}
    for side, module in (("gategen", layer), ("loop", other("mgu", layer, 64))):
        torch.compiler.reset()
        began = time.process_time()
        torch.compile(module, fullgraph=True, backend="aot_eager")(x)[0].sum().backward()
        found[side] = round(time.process_time() - began, 3)
    return found


@click.command()
@click.option("--quick", is_flag=True, help="The small shapes.")
@click.option(
    "--out",
    default=ROOT / "benchmarks" / "results" / "torch.json",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The JSON file.  [default: benchmarks/results/torch.json]",
)
def main(quick: bool, out: Path) -> None:
    """Measure `gategen.torch.RNN` beside PyTorch's layers and loops."""
    torch.set_num_threads(1)
    shapes = SHAPES[:2] if quick else SHAPES
    results = [samples(name, *shape) for name in OTHERS for shape in shapes]
    document = {**facts(), "turns": TURNS, "compile": compiled(), "results": results}
    out.write_text(written(document))
    click.echo(layers_table(document))


if __name__ == "__main__":
    main()

"""Train every cell of the catalogue on handwritten digits, with the generated NumPy modules.

A digit is a sequence of eight rows of eight pixels (scikit-learn's bundled data set: nothing is downloaded).
The output of the last step goes through one linear layer into a softmax. What belongs to a cell comes from
its generated module; the linear layer, the loss and the optimiser are written out here. Prints a table and a
comparison of small cells with the GRU, and draws the learning curves into `out/`, which git ignores. The
figure of README is drawn by `python examples/digits.py --figure examples/digits.png`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import util
from itertools import cycle
from pathlib import Path
from types import ModuleType

import click
import numpy as np
from threadpoolctl import threadpool_limits  # products this small are slower on several threads

ROOT = Path(__file__).resolve().parent.parent
CLASSES, BATCH, TRAINING_DIGITS = 10, 32, 1200
FAMILIES = {
    "GRU as others write it": ("gru_cho", "gru_before", "gru_after", "gru_concat"),
    "GRU extended": ("caru", "caru_code", "ln_gru", "zoneout_gru", "indygru"),
    "GRU with cheaper gates": ("gru_type1", "gru_type2", "gru_type3"),
    "Minimal gated unit": ("mgu", "mgu1", "mgu2", "mgu3"),
    "Light GRU": ("ligru", "ligru_nobn", "sligru"),
    "Light Bayesian unit": ("libru", "libru_log", "libru_geomean"),
    "LSTM": (
        "lstm", "lstm_1997", "lstm_peephole", "lstm_sak", "lstm_cifg", "mlstm", "slstm", "ln_lstm",
    ),
    "One gate or two": ("janet", "ugrnn", "ran", "mut1", "star", "brc", "atr", "sgu"),
    "Simple and residual": ("rnn", "irnn", "indrnn", "fastrnn", "fastgrnn", "scrn", "rhn"),
    "Gates that see the input": ("gilr", "qrnn", "sru", "mingru", "mingru_log", "minlstm", "t_rnn"),
    "Linear and dynamical": ("lru", "rglru", "griffin", "antisymmetric", "cornn"),
    "Matrices of keys": (
        *("fast_weights", "retnet", "gla", "hgrn2", "deltanet", "gated_deltanet", "matrix_lstm"),
    ),
    "State spaces, RWKV, memory": ("mamba", "mamba2", "rwkv6", "rwkv7", "ntm"),
    "Heads, computed weights, spikes": (
        "slstm_heads", "paragru", "paralstm", "weight_drop_lstm", "cayley_rnn", "li_spiking",
    ),
    "Others": (),
}  # fmt: skip
STARTS = {"libru": 0.37}  # a probability; its own start, 0, has the logarithm -25 and saturates the gates
DROPPED = 0.1  # how often a mask, the further input of a cell, is 1
SMALLER = ("gru_type1", "gru_type2", "gru_type3", "mgu", "mgu1", "mgu2", "mgu3")


@dataclass(frozen=True)
class Digits:
    """Sequences and labels, for training and for testing."""

    x: np.ndarray  # (8, 1200, 8)
    label: np.ndarray  # (1200,)
    test_x: np.ndarray  # (8, 597, 8)
    test_label: np.ndarray  # (597,)


@dataclass(frozen=True)
class Result:
    """How one cell did; accuracies are means over the seeds."""

    cell: str
    parameters: int  # of the cell alone
    curve: tuple[float, ...]  # test accuracy before training and after every epoch
    spread: float  # largest minus smallest final accuracy of the seeds
    seconds: float  # for one seed

    @property
    def accuracy(self) -> float:
        return self.curve[-1]


# ------------------------------------------------------------------------------------------ training


class Adam:
    """Adam (Kingma & Ba 2015), in place."""

    def __init__(self, params: Sequence[np.ndarray], rate: float = 0.01) -> None:
        self.params, self.rate, self.t = params, rate, 0
        self.m = [np.zeros_like(p) for p in params]
        self.v = [np.zeros_like(p) for p in params]

    def update(self, grads: Sequence[np.ndarray]) -> None:
        self.t += 1
        rate = self.rate * (1 - 0.999**self.t) ** 0.5 / (1 - 0.9**self.t)
        for p, g, m, v in zip(self.params, grads, self.m, self.v, strict=True):
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            p -= rate * m / (np.sqrt(v) + 1e-8)


class Classifier:
    """A generated cell and a linear layer over the last value of its first output."""

    def __init__(self, module: ModuleType, hidden: int, seed: int) -> None:
        self.module = module
        self.size = sizes(module, hidden)
        self.params = initial(module, hidden, seed)
        for name, value in module.unpack(self.params).items():
            if name.startswith("g_"):  # the gain of a norm
                value[...] = 1
        self.rng = np.random.default_rng(seed)
        width = self.size[next(iter(module.OUTPUTS.values()))]
        self.V = self.rng.uniform(-1, 1, (CLASSES, width)).astype(np.float32) / np.float32(width**0.5)
        self.c = np.zeros(CLASSES, np.float32)
        self.buffers = module.init_buffers(hidden) if hasattr(module, "init_buffers") else None

    def arrays(self) -> list[np.ndarray]:
        return [*self.params, self.V, self.c]

    def forward(
        self, x: np.ndarray, training: bool
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...], tuple | None]:
        """Logits (B, 10), the outputs and the tape."""
        options = {} if self.buffers is None else {"buffers": self.buffers, "training": training}
        if self.module.NAME in STARTS:
            start = np.full((x.shape[1], len(self.V[0])), STARTS[self.module.NAME], x.dtype)
            options["initial"] = self.module.States(start)
        (_, width), *masks = self.module.INPUTS.items()
        for name, size in masks:  # drawn anew for every sequence; on average while testing
            drawn = self.rng.random((x.shape[1], self.size[size])) < DROPPED
            options[name] = drawn.astype(x.dtype) if training else np.full(drawn.shape, DROPPED, x.dtype)
        padded = np.pad(x, ((0, 0), (0, 0), (0, self.size[width] - x.shape[2])))  # where x is as wide as h
        y, _, tape = self.module.forward(self.params, padded, tape=training, **options)
        outputs = y if isinstance(y, tuple) else (y,)
        return outputs[0][-1] @ self.V.T + self.c, outputs, tape

    def gradients(self, x: np.ndarray, label: np.ndarray) -> list[np.ndarray]:
        """Of the mean cross-entropy, in the order of `arrays`."""
        logits, outputs, tape = self.forward(x, training=True)
        d_logits = np.exp(logits - logits.max(axis=1, keepdims=True))
        d_logits /= d_logits.sum(axis=1, keepdims=True)
        d_logits[np.arange(len(label)), label] -= 1
        d_logits /= len(label)
        d_y = tuple(map(np.zeros_like, outputs))
        d_y[0][-1] = d_logits @ self.V
        grads = self.module.backward(self.params, tape, d_y if len(d_y) > 1 else d_y[0])
        return [*grads.params, d_logits.T @ outputs[0][-1], d_logits.sum(axis=0)]

    def accuracy(self, x: np.ndarray, label: np.ndarray) -> float:
        logits, _, _ = self.forward(x, training=False)
        return float((logits.argmax(axis=1) == label).mean())


def sizes(module: ModuleType, hidden: int) -> dict[str | int, int]:
    """Every size of a cell: rows have eight pixels, further states are half as wide as the hidden one."""
    numbers = {size: size for size in (*module.OUTPUTS.values(), *module.INPUTS.values())}
    return {**numbers, **dict.fromkeys(module.SIZES, -(-hidden // 2)), "input": 8, "hidden": hidden}


def initial(module: ModuleType, hidden: int, seed: int) -> tuple[np.ndarray, ...]:
    """Parameters to start from."""
    further = {name: sizes(module, hidden)[name] for name in module.SIZES if name not in ("input", "hidden")}
    return module.init(8, hidden, seed=seed, **further)


def digits() -> Digits:
    """The data set, shuffled once and for all."""
    from sklearn.datasets import load_digits

    pixels, label = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(label))
    x = (pixels[order] / 16).astype(np.float32).reshape(-1, 8, 8).transpose(1, 0, 2)
    label = label[order]
    k = TRAINING_DIGITS
    return Digits(x[:, :k], label[:k], x[:, k:], label[k:])


def train(module: ModuleType, data: Digits, hidden: int, epochs: int, seed: int) -> list[float]:
    """The test accuracy before training and after every epoch."""
    return fit(Classifier(module, hidden, seed), data, epochs, seed)


def fit(model: Classifier, data: Digits, epochs: int, seed: int) -> list[float]:
    """Train a model; the test accuracy before that and after every epoch."""
    adam = Adam(model.arrays())
    rng = np.random.default_rng(seed)
    curve = [model.accuracy(data.test_x, data.test_label)]
    for _ in range(epochs):
        for batch in np.array_split(rng.permutation(len(data.label)), -(-len(data.label) // BATCH)):
            adam.update(model.gradients(data.x[:, batch], data.label[batch]))
        curve.append(model.accuracy(data.test_x, data.test_label))
    return curve


def result(module: ModuleType, data: Digits, hidden: int, epochs: int, seeds: int) -> Result:
    """One cell, trained once for every seed."""
    began = time.perf_counter()
    curves = [train(module, data, hidden, epochs, seed) for seed in range(seeds)]
    seconds = (time.perf_counter() - began) / seeds
    size = sum(array.size for array in initial(module, hidden, seed=0))
    ends = [curve[-1] for curve in curves]
    mean = tuple(float(value) for value in np.mean(curves, axis=0))
    return Result(module.NAME, size, mean, max(ends) - min(ends), seconds)


# ------------------------------------------------------------------------------------------ modules


def modules(names: Sequence[str], backend: str = "numpy") -> list[ModuleType]:
    """The generated modules of these cells; of none, of all built-in ones that read vectors.

    A name is a built-in cell, whose module is in `generated/` where `gategen build` has put it, or the
    path of a spec file. What is not there is built into a temporary folder.
    """
    from gategen import build
    from gategen.spec.load import builtins, load

    found = []
    with tempfile.TemporaryDirectory(prefix="gategen-") as folder:
        for name in names or [c.name for c in builtins().values() if not isinstance(c.inputs[0].size, tuple)]:
            path = ROOT / "generated" / f"{name}_{backend}.py"
            if path.is_file():
                found.append(loaded(path))
                continue
            for cell in load(name):
                build(cell, backend, folder)
                found.append(loaded(Path(folder) / f"{cell.name}_{backend}.py"))
                if backend == "c":
                    found[-1].library("float32")  # while its source is there
    return found


def loaded(path: Path) -> ModuleType:
    """The module in this file."""
    spec = util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------------------ reporting


def table(results: Sequence[Result], seeds: int) -> str:
    """A line for every cell."""
    rows = [("cell", "parameters", "test accuracy", *(("spread",) if seeds > 1 else ()), "seconds")]
    for r in results:
        spread = (f"{100 * r.spread:.1f}",) if seeds > 1 else ()
        rows.append((r.cell, str(r.parameters), f"{100 * r.accuracy:.1f} %", *spread, f"{r.seconds:.2f}"))
    return aligned(rows)


def comparison(results: Sequence[Result]) -> str:
    """The smaller cells against the full GRU, as their papers compare them; empty where there is no GRU."""
    by_name = {r.cell: r for r in results}
    gru = by_name.get("gru")
    smaller = [by_name[name] for name in SMALLER if name in by_name]
    if gru is None or not smaller:
        return ""
    rows = [("cell", "parameters", "of the GRU's", "accuracy", "against the GRU")]
    rows.append(("gru", str(gru.parameters), "100 %", f"{100 * gru.accuracy:.1f} %", "-"))
    for r in smaller:
        share = f"{100 * r.parameters / gru.parameters:.0f} %"
        against = f"{100 * (r.accuracy - gru.accuracy):+.1f} points"
        rows.append((r.cell, str(r.parameters), share, f"{100 * r.accuracy:.1f} %", against))
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def draw(results: Sequence[Result], path: Path) -> None:
    """Learning curves: a panel for every family, the GRU in grey in each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    by_name = {r.cell: r for r in results}
    known = {name for names in FAMILIES.values() for name in names} | {"gru"}
    families = {
        **FAMILIES,
        "Others": (*FAMILIES["Others"], *(r.cell for r in results if r.cell not in known)),
    }
    panels = {title: [by_name[n] for n in names if n in by_name] for title, names in families.items()}
    panels = {title: members for title, members in panels.items() if members} or {"GRU": []}
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    size = (1 + 4.3 * columns, 0.4 + 2.7 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for ax, (title, members) in zip(axes.flat, panels.items(), strict=False):
        if "gru" in by_name:
            ax.plot(errors(by_name["gru"]), color="0.75", linewidth=4, label="gru")
        for color, member in zip(cycle(plt.get_cmap("Dark2").colors), members, strict=False):
            ax.plot(errors(member), color=color, linewidth=1.5, label=member.cell)
        ax.set_title(title, fontsize=11, loc="left")
        ax.set_yscale("log")
        ax.set_yticks([1, 2, 5, 10, 20, 50, 100], ["1 %", "2 %", "5 %", "10 %", "20 %", "50 %", "100 %"])
        ax.minorticks_off()
        ax.grid(color="0.92")
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(
            loc="upper left", bbox_to_anchor=(1, 1.04), frameon=False, fontsize=9, handlelength=1.2
        )  # beside the curves, which fill a panel
        ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
        ax.xaxis.set_tick_params(labelbottom=True)
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    axes[0, 0].set_ylim(min(1.5, *(0.8 * errors(r).min() for r in results)), 110)
    axes[0, 0].set_xlim(0, len(results[0].curve) - 1)
    for ax in axes[-1]:
        ax.set_xlabel("epoch")
    for ax in axes[:, 0]:
        ax.set_ylabel("test error")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def errors(of: Result) -> np.ndarray:
    """Wrong answers in per cent, over the epochs; not quite 0 where there is none, for the logarithm."""
    return np.maximum(100 * (1 - np.array(of.curve)), 0.1)


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """Call it with the name of what begins; a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda name: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=total)
        begun = iter(range(total))
        yield lambda name: bar.update(task, description=f"training {name}", completed=next(begun))


@click.command()
@click.option("--epochs", default=15, show_default=True, type=click.IntRange(min=1))
@click.option("--hidden", default=32, show_default=True, type=click.IntRange(min=1), help="Hidden units.")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1), help="Runs of every cell.")
@click.option(
    "--cells",
    default="",
    help="Names or spec files, comma-separated; without it all built-in cells that read vectors.",
)
@click.option("--backend", default="numpy", show_default=True, type=click.Choice(["numpy", "c"]))
@click.option(
    "--figure",
    default=ROOT / "out" / "digits.png",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the learning curves go.  [default: out/digits.png]",
)
def main(epochs: int, hidden: int, seeds: int, cells: str, backend: str, figure: Path) -> None:
    """Train cells on handwritten digits; print a table and draw the learning curves."""
    data = digits()
    results = []
    names = [name.strip() for name in cells.split(",") if name.strip()]
    found = modules(names, backend)
    with threadpool_limits(1), progress(len(found)) as begin:
        for module in found:
            begin(module.NAME)
            results.append(result(module, data, hidden, epochs, seeds))
    click.echo(f"{len(data.label)} digits for training, {len(data.test_label)} for testing; ", nl=False)
    click.echo(f"{hidden} hidden units, {epochs} epochs, mean of {seeds} seed{'s' if seeds > 1 else ''}\n")
    click.echo(table(results, seeds))
    if small := comparison(results):
        noise = 100 * (0.05 * 0.95 / len(data.test_label)) ** 0.5
        click.echo(f"\nSmaller cells against the full GRU\n\n{small}\n")
        click.echo(f"An accuracy of 95 % on this test set has a standard error of {noise:.1f} points.")
    figure.parent.mkdir(parents=True, exist_ok=True)
    draw(results, figure)
    click.echo(f"\nlearning curves: {figure}")


if __name__ == "__main__":
    main()

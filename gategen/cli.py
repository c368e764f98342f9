"""The command line. Commands import what they need when they run: `--help` loads neither SymPy nor NumPy.

Exit codes: 0 done; 1 the answer is no (stale files, a wrong gradient, cells that differ); 2 wrong usage or
wrong spec; 3 a needed optional package is missing. On a terminal tables are drawn and long work shows
progress; elsewhere output is plain.
"""

from __future__ import annotations

import errno
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from gategen import __version__
from gategen.errors import GategenError

if TYPE_CHECKING:
    from gategen.judge.verify import Result
    from gategen.spec.cell import Cell

DONE, NO, WRONG, MISSING = 0, 1, 2, 3
INTERRUPTED, BROKEN_PIPE = 130, 141  # as a shell reports SIGINT and SIGPIPE

Progress = Callable[[str, int, int], None]


def main() -> NoReturn:
    """Run the command line and exit."""
    sys.exit(_code())


def _code() -> int:
    if sys.stdout is None:  # closed before we began
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    try:
        code = commands.main(prog_name="gategen", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except click.ClickException as error:
        error.show()
        return WRONG
    except GategenError as error:
        click.echo(str(error) if getattr(error, "where", None) else f"gategen: {error}", err=True)
        return int(getattr(error, "exit_code", WRONG))
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # click exits by itself for this reason alone
        _say_no_more()
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO):
            raise
        _say_no_more()
        click.echo(f"gategen: cannot write the output: {error.strerror}", err=True)
        return WRONG


def _say_no_more() -> None:
    """Python would try once more to write what is left, when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gategen", message="%(prog)s %(version)s")
def commands() -> None:
    """Recurrent cells from equations: derived, tested gradients as standalone NumPy and CUDA.

    CELL is the name of a built-in cell or the path of a .py or .gate file (then every Cell in it); without
    one: all built-in cells.
    """


_STAGES = ("equations", "graph", "adjoint", "plan", "kernels")
_COUNT = click.IntRange(min=1)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

_cells = click.argument("targets", metavar="[CELL]...", nargs=-1)
_equations = click.option(
    "--equations",
    metavar="TEXT",
    multiple=True,
    help="A cell in the text form instead of CELL, its lines also separated by ';'; repeatable.",
)
_name = click.option("--name", metavar="NAME", default="", help="What the cell is called: one alone.")
_set = click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    help="Another value for a constant, or heads=N; repeatable.",
)
_backend = click.option(
    "--backend",
    "backends",
    metavar="NAME",
    multiple=True,
    help="numpy, cupy, c, numpy_jvp, cupy_jvp; repeatable.",
)
_weights = click.option(
    "--weights", metavar="FILE", default="", help="What `save` of a net wrote; it tells all sizes."
)
_input = click.option("--input", "input_size", type=_COUNT, help="The size of x.")
_hidden = click.option("--hidden", type=_COUNT, help="Every other size.")
_sizes = click.option("--size", "sizes", metavar="NAME=N", multiple=True, help="A further size; repeatable.")
_layers = click.option("--layers", type=_COUNT, help="How many layers; 1 without weights.")
_bidirectional = click.option("--bidirectional", is_flag=True, help="Every layer in both directions.")
_dtype = click.option(
    "--dtype", type=click.Choice(["float32", "float64"]), help="By default that of the weights."
)
_seed = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Without weights."
)


# ------------------------------------------------------------------------------------------ commands


@commands.command("list")
def list_() -> None:
    """The built-in cells, a line each."""
    from gategen.spec.load import builtins

    rows = [(cell.name, cell.title) for cell in builtins().values()]
    _table(("cell", "title"), rows, names=False)


@commands.command()
@click.argument("target", metavar="[CELL]", default="")
@_equations
@_name
@_set
@click.option("--stage", type=click.Choice(_STAGES), default="equations")
@click.option("--format", "form", type=click.Choice(["text", "latex", "json"]), default="text")
def show(
    target: str,
    equations: tuple[str, ...],
    name: str,
    settings: tuple[str, ...],
    stage: str,
    form: str,
) -> None:
    """A cell at one stage on its way to code.

    The text of the equations can be read again: save it as a .gate file. The plan ends with what it comes
    to: parameters, operations, matrix products, bytes of tape. The kernels are those of the CuPy module:
    which take all steps in one launch, and how many are launched beside them. As json several cells of one
    file are a list.
    """
    from gategen.show import show

    if not target and not equations:
        raise click.UsageError("give a CELL or --equations")
    cells = _load((target,) if target else (), equations, name, settings)
    views = [show(cell, stage, form) for cell in cells]
    if form != "json":
        click.echo("\n\n".join(views))
        return
    import json

    click.echo(json.dumps(views[0] if len(views) == 1 else views, indent=2))


@commands.command()
@click.argument("left", metavar="CELL")
@click.argument("right", metavar="CELL")
@_set
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
def diff(left: str, right: str, settings: tuple[str, ...], form: str) -> int:
    """Are two cells the same function, and where do they differ?

    Compared up to the names of parameters, states and gates, up to the sign of parameters, and up to biases
    that are only added; then on random numbers. Ends with 0 where they are the same, with 1 where they are
    not. A file given here holds one cell. --set is for every one of the two that has the constant, and
    --set heads=N for both.
    """
    from gategen.diff import diff, text
    from gategen.spec.load import load_one

    found = diff(*_with_constants((load_one(left), load_one(right)), _constants(settings)))
    if form == "json":
        import json

        from gategen.show.export import difference

        click.echo(json.dumps(difference(found), indent=2))
    else:
        click.echo(text(found))
    return DONE if found.same else NO


@commands.command()
@_cells
@_equations
@_name
@_set
@_backend
@click.option("--out", metavar="DIR", default="generated", show_default=True, help="Where the files go.")
@click.option("--check", is_flag=True, help="Write nothing; show what differs and exit 1.")
@click.option("--force", is_flag=True, help="Overwrite files that gategen did not write.")
def build(
    targets: tuple[str, ...],
    equations: tuple[str, ...],
    name: str,
    backends: tuple[str, ...],
    out: str,
    settings: tuple[str, ...],
    check: bool,
    force: bool,
) -> int:
    """Write the modules of cells, and tell what they come to.

    Operations are those of one step of one sequence; products are matrix products, those of each step and
    those for all steps at once; the tape is in bytes of float32 for each step and sequence.
    """
    from gategen.build import build

    cells = _load(targets, equations, name, settings)
    with _progress("building") as progress:
        report = build(
            cells, _backends(backends), out, check=check, force=force, progress=progress, warn=_warn
        )
    for path in report.written:
        click.echo(f"wrote {path}")
    for stale in report.stale:
        click.echo(stale.diff, nl=False)
    if report.stale:
        total = len(report.stale) + len(report.unchanged)
        click.echo(f"{len(report.stale)} of {total} files are stale", err=True)
    elif not report.written:
        click.echo(f"{len(report.unchanged)} files are up to date")
    if not check:
        from gategen.summary import HEADER, of_plan, row

        _table(HEADER, [row(of_plan(made)) for made in report.plans])
    return NO if report.stale else DONE


@commands.command()
@_cells
@_equations
@_name
@_set
@_backend
@click.option(
    "--out", metavar="DIR", default="generated", show_default=True, help="Where the modules are to be judged."
)
@click.option("--fresh", is_flag=True, help="Judge freshly generated text, whatever lies in DIR.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For the numbers that are drawn."
)
@click.option(
    "--race", is_flag=True, help="Run CUDA on the CPU, and look for races between its threads as well."
)
def verify(
    targets: tuple[str, ...],
    equations: tuple[str, ...],
    name: str,
    settings: tuple[str, ...],
    backends: tuple[str, ...],
    out: str,
    fresh: bool,
    seed: int,
    race: bool,
) -> int:
    """Check the gradients of the generated modules.

    Against complex step and finite differences, in float64. Modules that lie in DIR are imported and judged
    as they are, and must be what `build` writes; of a cell that has none there, freshly generated text is
    judged. The cupy backend runs on a GPU where there is one, otherwise on the CPU: the very same files, with
    the CUDA text compiled by the host's C++ compiler.
    """
    from gategen.judge.host import runnable
    from gategen.judge.verify import verified

    cells = _load(targets, equations, name, settings)
    names = _backends(backends)
    if race and names is not None and {"cupy", "cupy_jvp"}.isdisjoint(names):
        raise click.UsageError("--race looks at CUDA kernels, which only the backends cupy and cupy_jvp have")
    if names is None:
        names, left_out = runnable(emulated=race)
        for reason in left_out:
            click.echo(f"gategen: {reason}", err=True)
    results: list[Result] = []
    with _progress("verifying") as progress:
        folder = None if fresh else out
        for result in verified(cells, names, out=folder, seed=seed, race=race, progress=progress):
            if not sys.stdout.isatty():  # a row as soon as it is known
                _table(_VERIFY, [_verify_row(result)], names=not results)
            results.append(result)
    if sys.stdout.isatty():
        _table(_VERIFY, [_verify_row(result) for result in results])
    for result in results:
        for reason in filter(None, (result.note, result.differs)):
            click.echo(f"{result.cell}, {result.backend}: {reason}", err=True)
    if any(result.differs for result in results):
        click.echo(
            "`gategen build --check` shows what differs, `gategen build` writes it anew, "
            "`gategen verify --fresh` does not look at it",
            err=True,
        )
    return DONE if all(result.ok for result in results) else NO


_VERIFY = (
    "cell",
    "backend",
    "where",
    "complex step",
    "worst gradient",
    "finite differences",
    "seconds",
    "judged",
    "",
)


def _verify_row(result: Result) -> tuple[str, ...]:
    finite = "-" if result.finite_difference is None else f"{result.finite_difference:.1e}"
    numbers = f"{result.complex_step:.1e}", result.gradient or "-", finite, f"{result.seconds:.1f}"
    answer = "ok" if result.ok else "WRONG" if result.note else "DIFFERS"
    return result.cell, result.backend, result.where, *numbers, result.judged, answer


@commands.command()
@click.argument("target", metavar="[CELL]", default="")
@_equations
@_name
@_set
@click.option("--format", "form", type=click.Choice(["onnx"]), default="onnx", show_default=True)
@click.option("--out", metavar="FILE", default="", help="Where it goes; by default NAME.onnx.")
@_weights
@_input
@_hidden
@_sizes
@_layers
@_bidirectional
@click.option("--batch-first", is_flag=True, help="x and y are (B, T, size).")
@click.option(
    "--constant", "constants", metavar="NAME", multiple=True, help="A further input is (B, size); repeatable."
)
@_dtype
@_seed
@click.option("--native", is_flag=True, help="With ONNX's own GRU, LSTM or RNN.")
@click.option("--no-lengths", is_flag=True, help="A model without lengths.")
@click.option("--no-initial", is_flag=True, help="A model without initial states.")
@click.option("--opset", type=_COUNT, default=17, show_default=True, help="Of ONNX: 13 to 27.")
@click.option("--force", is_flag=True, help="Overwrite a file that gategen did not write.")
def export(
    target: str,
    equations: tuple[str, ...],
    name: str,
    settings: tuple[str, ...],
    form: str,
    out: str,
    weights: str,
    input_size: int | None,
    hidden: int | None,
    sizes: tuple[str, ...],
    layers: int | None,
    bidirectional: bool,
    batch_first: bool,
    constants: tuple[str, ...],
    dtype: str | None,
    seed: int,
    native: bool,
    no_lengths: bool,
    no_initial: bool,
    opset: int,
    force: bool,
) -> None:
    """Write a net of a cell for another runtime: an ONNX model.

    Its inputs are x, lengths and the initial states, of which all but x may be left out; its outputs are y
    and the final states. Without --weights the parameters are random, as `init` of the module draws them.
    """
    from gategen.export import Asked, net_of

    cell = _one("a model", target, equations, name, settings)
    told = _told(sizes, input_size, hidden)
    net = net_of(cell, Asked(told, layers, bidirectional, batch_first, dtype, seed), weights)
    path = out or f"{cell.name}.onnx"
    try:
        net.to_onnx(
            path,
            cell=cell,
            native=native,
            constant=constants,
            lengths=not no_lengths,
            initial=not no_initial,
            opset=opset,
            force=force,
        )
    except ValueError as error:
        if isinstance(error, GategenError):
            raise
        raise GategenError(str(error)) from error
    click.echo(f"wrote {path}")
    if not weights:
        _warn(_RANDOM)


_RANDOM = "its parameters are random: --weights takes those of a net"


@commands.command("export-weights")
@click.argument("target", metavar="[CELL]", default="")
@_equations
@_name
@_set
@click.option("--out", metavar="FILE", default="", help="Where it goes; by default NAME_weights.h.")
@click.option(
    "--prefix", metavar="NAME", default="", help="How its names begin; by default that of the cell."
)
@_weights
@_input
@_hidden
@_sizes
@_layers
@_bidirectional
@_dtype
@_seed
@click.option("--force", is_flag=True, help="Overwrite a file that gategen did not write.")
def export_weights(
    target: str,
    equations: tuple[str, ...],
    name: str,
    settings: tuple[str, ...],
    out: str,
    prefix: str,
    weights: str,
    input_size: int | None,
    hidden: int | None,
    sizes: tuple[str, ...],
    layers: int | None,
    bidirectional: bool,
    dtype: str | None,
    seed: int,
    force: bool,
) -> None:
    """Write the weights of a net of a cell as a C header.

    It is for the files of `gategen build CELL --backend c`: arrays for every layer and direction, in the
    order in which these take them, and all sizes. Without --weights the parameters are random, as `init` of
    the module draws them.
    """
    from gategen.export import Asked, net_of
    from gategen.weights_header import write

    cell = _one("a header", target, equations, name, settings)
    told = _told(sizes, input_size, hidden)
    net = net_of(cell, Asked(told, layers, bidirectional, dtype=dtype, seed=seed), weights)
    path = out or f"{cell.name}_weights.h"
    write(path, net, cell=cell, prefix=prefix, force=force)
    click.echo(f"wrote {path}")
    if not weights:
        _warn(_RANDOM)


@commands.command()
@click.argument("name")
@click.option(
    "--from", "origin", metavar="CELL", default="gru", show_default=True, help="Whose equations to copy."
)
def new(name: str, origin: str) -> None:
    """Write NAME.py, a spec file to start from; NAME.gate writes the text form.

    It goes into the current directory and has the equations of another cell.
    """
    from gategen.build import write_new
    from gategen.show import spec_source
    from gategen.spec.language import check_name
    from gategen.spec.load import load_one
    from gategen.spec.text.writer import draft

    ending = ".gate" if name.endswith(".gate") else ".py"
    name = check_name(name.removesuffix(ending))
    libraries = {*sys.stdlib_module_names, "gategen", "numpy", "sympy", "cupy", "torch"}
    if ending == ".py" and name in libraries:
        raise GategenError(f"{name}.py would hide Python's own module {name}: choose another name")
    cell = load_one(origin)
    path = Path(f"{name}{ending}")
    write_new(path, (spec_source if ending == ".py" else draft)(cell, name))
    click.echo(f"wrote {path}: edit it, then `gategen build {path}` and `gategen verify {path}`")


@commands.command()
@_cells
@_equations
@_name
@_set
@click.option("--steps", type=_COUNT, default=100, show_default=True, help="T.")
@click.option("--batch", type=_COUNT, default=32, show_default=True, help="B: how many sequences.")
@click.option("--input", "input_size", type=_COUNT, default=64, show_default=True, help="The size of x.")
@click.option("--hidden", type=_COUNT, default=128, show_default=True, help="Every other size.")
@click.option("--threads", type=_COUNT, help="Of both sides; without it, what they take by themselves.")
def bench(
    targets: tuple[str, ...],
    equations: tuple[str, ...],
    name: str,
    settings: tuple[str, ...],
    steps: int,
    batch: int,
    input_size: int,
    hidden: int,
    threads: int | None,
) -> None:
    """Speed of the modules of NumPy and C, beside torch.nn.

    Forward and backward in float32, interleaved with torch.nn where that is installed and has the cell.
    Without a C compiler the column of C stays empty.
    """
    if threads:  # NumPy's BLAS reads it once, when it is loaded
        if "numpy" in sys.modules:
            raise click.UsageError("--threads is for a program of its own, where NumPy is not loaded yet")
        os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    from gategen.bench import HEADER, Run, bench

    cells = _load(targets, equations, name, settings)
    with _progress("measuring") as progress:
        rows = bench(cells, Run(steps, batch, input_size, hidden, threads), progress)
    _table(HEADER, rows)


@commands.command()
def doctor() -> None:
    """Say what was found of what gategen can use.

    NumPy and its BLAS, CuPy, a GPU, a C++ compiler, PyTorch, ONNX.
    """
    from gategen.doctor import findings

    _table(("what", "found", "what it is for"), findings(), names=False)


# ------------------------------------------------------------------------------------------ arguments


def _load(
    targets: Iterable[str], equations: Sequence[str], name: str, settings: Iterable[str]
) -> tuple[Cell, ...]:
    """The cells of names and paths, or the one of the command line, with these constants and this name."""
    cells = _with_constants(_read(targets, equations, name), _constants(settings))
    if name and len(cells) > 1:
        raise click.UsageError(f"--name is for one cell alone, and these are {len(cells)}")
    return tuple(cell.renamed(name) for cell in cells) if name and not equations else cells


def _read(targets: Iterable[str], equations: Sequence[str], name: str) -> tuple[Cell, ...]:
    from gategen.spec.load import load_all

    if not equations:
        return load_all(targets)
    if tuple(targets):
        raise click.UsageError("--equations stand in place of a CELL")
    from gategen.spec.cell import Cell
    from gategen.spec.text import read

    spec = read(re.sub("; *", "\n", "\n".join(equations)), "--equations")
    return (Cell.from_text(spec, name or spec.name or "cell"),)


def _one(what: str, target: str, equations: tuple[str, ...], name: str, settings: tuple[str, ...]) -> Cell:
    """The one cell that something is of."""
    if not target and not equations:
        raise click.UsageError("give a CELL or --equations")
    cells = _load((target,) if target else (), equations, name, settings)
    if len(cells) > 1:
        names = ", ".join(cell.name for cell in cells)
        raise click.UsageError(f"{what} is of one cell, and these are {len(cells)}: {names}")
    return cells[0]


def _told(sizes: Iterable[str], input_size: int | None, hidden: int | None) -> dict[str, int]:
    """The sizes that the command line tells, by name."""
    told = _numbers(sizes, "--size")
    told |= {"input": input_size} if input_size else {}
    return told | ({"hidden": hidden} if hidden else {})


def _backends(names: Sequence[str]) -> tuple[str, ...] | None:
    """The names as given, each known; None for all."""
    from gategen.build import known_backends

    for name in names:
        if name not in known_backends():
            known = ", ".join(known_backends())
            raise click.BadParameter(
                f"there is no backend {name!r}; there are: {known}", param_hint="--backend"
            )
    return tuple(names) or None


def _numbers(settings: Iterable[str], option: str) -> dict[str, int]:
    """`memory=4` as a name and a positive integer."""
    values: dict[str, int] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        if not text.strip().isdecimal() or int(text) < 1:
            message = f"{setting[:60]!r} is not NAME=N with a positive integer"
            raise click.BadParameter(message, param_hint=option)
        values[name.strip()] = int(text)
    return values


def _constants(settings: Iterable[str]) -> dict[str, float]:
    """`beta=2` as a name and a number; an integer stays one."""
    values: dict[str, float] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        try:
            values[name.strip()] = int(text) if text.strip().lstrip("+-").isdecimal() else float(text)
        except ValueError:
            message = f"{setting[:60]!r} is not NAME=VALUE with a number for a value"
            raise click.BadParameter(message, param_hint="--set") from None
    return values


def _with_constants(cells: Sequence[Cell], values: Mapping[str, float]) -> tuple[Cell, ...]:
    """The cells with these constants, each of which at least one of them has, and all with so many heads."""
    known = {constant.name for cell in cells for constant in cell.constants}
    heads = None if "heads" in known else values.get("heads")
    for name in values:
        if name not in {*known, "heads"}:
            names = ", ".join(sorted(known)) or "none"
            message = f"no cell here has a constant {name!r}; constants: {names}"
            raise click.BadParameter(message, param_hint="--set")
        if not math.isfinite(values[name]):
            raise click.BadParameter(f"{name} must be a finite number", param_hint="--set")
    own = [{c.name: values[c.name] for c in cell.constants if c.name in values} for cell in cells]
    made = [cell.with_constants(**part) if part else cell for cell, part in zip(cells, own, strict=True)]
    return tuple(made if heads is None else (cell.with_heads(_whole("heads", heads)) for cell in made))


def _whole(name: str, value: float) -> int:
    if value != int(value):
        raise click.BadParameter(f"{name} is a whole number, not {value}", param_hint="--set")
    return int(value)


# ------------------------------------------------------------------------------------------ output


def _warn(message: str) -> None:
    click.echo(f"gategen: {message}", err=True)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, names: bool = True) -> None:
    """Columns: drawn on a terminal, with tabs elsewhere."""
    if not sys.stdout.isatty():
        for row in (*([header] if names else []), *rows):
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    first = Column(header[0], no_wrap=True, min_width=max([0, *(len(row[0]) for row in rows)]))
    table = Table(first, *header[1:], box=None, pad_edge=False, show_header=names)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


@contextmanager
def _progress(doing: str) -> Iterator[Progress | None]:
    """A line on stderr that says how far the work is; nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda what, done, total: bar.update(
            task, description=f"{doing} {what}".rstrip(), completed=done, total=total
        )

"""What a module has the device do, counted by the stand-in as CuPy does it (`real_cupy/test_stand_in.py`)."""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from test_cupy_modules import BATCH, CELLS, INPUT, Setting, device, modules

from gategen import emulator
from gategen.backends.cupy.launches import Work
from gategen.backends.cupy.launches import launches as launches_of
from gategen.emulator import cupy as cp
from gategen.plan import plan

LENGTHS = np.array([0, 5, 3])

# Products and kernels of a step forward, then of a step back.
ALL_AT_ONCE = "brc gilr griffin indrnn indygru lru mingru mingru_log minlstm paragru paralstm rglru sru t_rnn"
LAUNCHES = {
    (0, 0, 0, 0): ALL_AT_ONCE,
    (0, 2, 0, 3): "retnet",
    (0, 2, 0, 4): "gla",
    (0, 2, 0, 5): "hgrn2",
    (0, 3, 0, 4): "mamba",
    (0, 3, 0, 5): "fast_weights",
    (0, 3, 0, 7): "mamba2",
    (0, 4, 0, 8): "deltanet",
    (0, 4, 0, 9): "gated_deltanet",
    (0, 4, 0, 10): "matrix_lstm",
    (1, 1, 1, 1): "weight_drop_lstm lstm lstm_1997 lstm_peephole lstm_cifg ran rnn irnn slstm slstm_heads",
    (1, 1, 1, 2): (
        "atr caru caru_code fastrnn fastgrnn gru_after janet libru_geomean libru_log "
        "ligru ligru_nobn qrnn star ugrnn"
    ),
    (1, 2, 1, 2): "cayley_rnn gru_type3 li_spiking libru mgu3",
    (1, 6, 1, 8): "ln_gru sligru",
    (1, 12, 1, 13): "ln_lstm",
    (2, 1, 2, 2): "antisymmetric cornn lstm_sak",
    (2, 2, 2, 2): "mlstm scrn sgu",
    (2, 2, 2, 3): ("gru gru_cho gru_before gru_concat gru_type1 gru_type2 mgu mgu1 mgu2 mut1 zoneout_gru"),
    (3, 3, 3, 4): "rhn",
    (7, 10, 7, 15): "rwkv7",
    (8, 39, 8, 40): "ntm",
    (10, 9, 10, 10): "rwkv6",
    (18, 8, 18, 10): "conv_gru",
    (24, 9, 24, 12): "conv_lstm",
    (42, 2, 42, 11): "dcgru",
}


# What stands in the text of a step and of a step back: of a state that no kernel writes, as the last input;
# and where products in blocks are laid side by side, and added up over the gates.
COPIES: dict[str, list[tuple[dict[str, int], dict[str, int]]]] = {
    "dcgru": [({"copy": 12}, {"copy": 9, "add": 3})] * 2,
    "lstm_sak": [({"copy": 1}, {}), ({"copy": 1, "copy_where": 1}, {})],
    "ntm": [({}, {}), ({}, {"copy": 1, "copy_where": 2})],
    "qrnn": [({}, {"copy": 1}), ({"copy_where": 1}, {"copy": 2, "copy_where": 2})],
    "rwkv6": [({}, {}), ({"copy_where": 1}, {})],
    "rwkv7": [({}, {}), ({"copy_where": 1}, {})],
    "slstm_heads": [({"copy": 1}, {"copy": 1, "sum": 1, "add": 1})] * 2,
}


def done(
    module: ModuleType, name: str, steps: int, lengths: bool, each: bool = True
) -> tuple[Counter[str], Counter[str]]:
    """By forward and by backward, where `each` step is launched, or as the module chooses."""
    module.BLOCKS = 0 if each else None
    setting = Setting(name, "float32")
    params = module.pack({key: device(value) for key, value in setting.named.items()})
    given = {s: device(np.resize(value, (steps, *value.shape[1:]))) for s, value in setting.inputs.items()}
    d_y = [device(np.resize(value, (steps, *value.shape[1:]))) for value in setting.d_y.values()]
    ends = np.minimum(LENGTHS, steps) if lengths else None
    with emulator.tally() as forward:
        _, _, tape = module.forward(params, given.pop("x"), lengths=ends, **given)
    with emulator.tally() as backward:
        module.backward(params, tape, tuple(d_y) if len(d_y) > 1 else d_y[0])
    return forward, backward


def a_step(name: str, folder: Path, lengths: bool = False) -> tuple[Counter[str], Counter[str]]:
    """What one step more has done."""
    _, module = modules(name, folder)
    few, more = (done(module, name, steps, lengths) for steps in (6, 7))
    return more[0] - few[0], more[1] - few[1]


def test_gru_after_does_what_one_reads_in_it(tmp_path: Path) -> None:
    _, module = modules("gru_after", tmp_path)
    for steps in (1, 6):
        forward, backward = done(module, "gru_after", steps, False)
        assert forward == {
            "product": 1 + steps,  # W @ x for all steps, U @ h
            "kernel gru_after_forward_1": steps,
            "fill": 1,  # the first state
            "copy": 2,  # the outputs, the final state
        }
        assert {key: n for key, n in backward.items() if key.startswith("kernel")} == {
            "kernel gru_after_backward_1": steps,
            "kernel gru_after_backward_2": steps,
            "kernel gru_after_backward_4_parts": 1,  # the sums for b and for c
            "kernel gru_after_backward_4": 1,
        }
        assert backward["product"] == steps + 4


@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("name", CELLS)
def test_a_step_launches_and_multiplies_as_in_the_table_and_no_more(
    name: str, lengths: bool, tmp_path: Path
) -> None:
    """And lengths add nothing to it, but where no kernel writes a state."""
    (told,) = (numbers for numbers, names in LAUNCHES.items() if name in names.split())
    step, back = a_step(name, tmp_path, lengths)
    for run, copies in zip((step, back), COPIES.get(name, [({}, {})] * 2)[lengths], strict=True):
        assert {key: run.pop(key) for key in ("copy", "copy_where", "sum", "add") if key in run} == copies
    assert (*launches(step), *launches(back)) == told


@pytest.mark.parametrize("name", CELLS)
def test_show_tells_what_a_step_launches(name: str) -> None:
    (told,) = (numbers for numbers, names in LAUNCHES.items() if name in names.split())
    found = launches_of(plan(CELLS[name]))
    assert told == tuple(n for way in found for n in (way.step.products, way.step.kernels))


@pytest.mark.parametrize("each", [False, True], ids=["at_once", "each"])
@pytest.mark.parametrize("name", ["gru", "lru", "ligru", "mamba", "slstm_heads", "dcgru", "caru", "griffin"])
def test_show_tells_what_a_run_launches(name: str, each: bool, tmp_path: Path) -> None:
    _, module = modules(name, tmp_path)
    steps, found = 3, launches_of(plan(CELLS[name]))
    for run, way in zip(done(module, name, steps, False, each), found, strict=True):
        whole = bool(way.blocks or way.rows) and not each
        stepping = Work() if whole else way.step
        times = steps - bool(way.first)
        once = [way.beside, way.first or Work(), way.start or Work()]
        kernels = sum(n for key, n in run.items() if key.startswith("kernel"))
        products = times * stepping.products + sum(work.products for work in once)
        assert run["product"] == products
        at_once = len(way.entries) + whole
        assert kernels == times * stepping.kernels + sum(work.kernels for work in once) + at_once


@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("name", ALL_AT_ONCE.split())
def test_one_launch_goes_through_all_steps(name: str, lengths: bool, tmp_path: Path) -> None:
    """Forward and backward, however many steps there are; what else is done is of all steps at once."""
    _, module = modules(name, tmp_path)
    source = (tmp_path / f"{name}_cupy.cu").read_text()
    kernels = re.findall(r"__global__ void (\w+)\((.*?)\n}", source, re.S)
    stepping = {f"kernel {kernel}" for kernel, text in kernels if "for (Index t = " in text}
    assert len(stepping) == 4, "and each to first order, for stretches"
    few, more = (done(module, name, steps, lengths) for steps in (3, 40))
    assert few == more
    for run in more:
        assert sum(n for key, n in run.items() if key in stepping) == 1


def launches(step: Counter[str]) -> tuple[int, int]:
    """Products and kernels of its own, of a step that does nothing else."""
    kernels = sum(n for key, n in step.items() if key.startswith("kernel"))
    assert step.total() == step["product"] + kernels, step
    return step["product"], kernels


@pytest.mark.parametrize("name", ["gru", "gru_concat", "scrn", "rhn", "mlstm", "gru_type1"])
def test_a_run_copies_what_it_returns_and_no_operand_of_a_product(name: str, tmp_path: Path) -> None:
    """Of which some are columns of an array of all gates."""
    _, module = modules(name, tmp_path)
    forward, backward = done(module, name, 3, False)
    assert forward["copy"] == len(module.STATES) + len(module.OUTPUTS)
    assert backward["copy"] == len(module.STATES)


@pytest.mark.parametrize(
    ("name", "count"),
    [("gru", 2), ("lru", 2), ("gru_after", 2), ("ln_gru", 2), ("conv_gru", 1), ("fastrnn", 7)],
)
def test_gradients_that_are_written_whole_are_not_filled_before(
    name: str, count: int, tmp_path: Path
) -> None:
    """The final states are, and counters; fastrnn adds the sums of rows up in two numbers."""
    _, module = modules(name, tmp_path)
    assert done(module, name, 3, False, each=False)[1]["fill"] == count


@pytest.mark.parametrize("name", CELLS)
def test_sums_over_all_rows_that_follow_each_other_take_two_launches(name: str, tmp_path: Path) -> None:
    """However many biases there are, of more rows than the 256 that one block adds up."""
    _, module = modules(name, tmp_path)
    text = (tmp_path / f"{name}_cupy.py").read_text()
    lines = [line.strip() for line in text.splitlines() if not line.strip().startswith("#")]
    calls = [line for line in lines if line.startswith("column_sums(")]
    assert not any(a.startswith("column_sums(") and b.startswith("column_sums(") for a, b in pairwise(lines))
    forward, backward = done(module, name, 256 // BATCH + 1, False)
    launched = {key: n for key, n in (forward + backward).items() if key.endswith("_parts")}
    assert set(launched.values()) <= {1} and len(launched) <= len(calls)


@pytest.mark.parametrize("name", ["ligru", "sligru"])
@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "lengths"])
def test_batch_norms_wait_for_nothing(name: str, lengths: bool, tmp_path: Path) -> None:
    _, module = modules(name, tmp_path)
    assert not {"to the host", "sum"} & sum(done(module, name, 5, lengths), Counter()).keys()


def test_tallies_nest_and_end() -> None:
    a = cp.zeros((BATCH, INPUT))
    with emulator.tally() as outer:
        a.copy()
        with pytest.raises(ZeroDivisionError), emulator.tally() as inner:
            a.reshape(INPUT, BATCH)
            a.T.reshape(-1)
            raise ZeroDivisionError
        a.get()
    a.copy()
    assert inner == {"copy": 1} and outer == {"copy": 2, "to the host": 1}

"""What a module has the device do, counted by the stand-in as CuPy does it (`real_cupy/test_stand_in.py`)."""

from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from test_cupy_modules import BATCH, CELLS, INPUT, Setting, device, modules

from gategen import emulator
from gategen.emulator import cupy as cp

LENGTHS = np.array([0, 5, 3])


def done(module: ModuleType, name: str, steps: int, lengths: bool) -> tuple[Counter[str], Counter[str]]:
    """By forward and by backward."""
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
            "copy": 3,  # U.T, the outputs, the final state
        }
        assert {key: n for key, n in backward.items() if key.startswith("kernel")} == {
            "kernel gru_after_backward_1": steps,
            "kernel gru_after_backward_2": steps,
            "kernel gru_after_column_sum": 2,
        }
        assert backward["product"] == steps + 4
    forward, _ = a_step("gru_after", tmp_path, lengths=True)
    assert forward == {"product": 1, "kernel gru_after_forward_1": 1, "copy_where": 1}


@pytest.mark.parametrize("name", CELLS)
def test_a_step_forward_copies_nothing_in_secret_and_waits_for_nothing(name: str, tmp_path: Path) -> None:
    step, back = a_step(name, tmp_path)
    assert step["copy"] == (name == "lstm_sak")  # r[t + 1] = P_v_r, which no kernel writes
    assert not step.keys() & {"to the host", "to the device"}
    assert not back.keys() & {"to the host", "to the device"}


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

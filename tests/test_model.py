"""The model of time: what it counts, by hand for a few cells and on the emulator; that it says what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from counts import WAYS, Scheme, Shape, Way, Work, counted, direction, exchanges, generated_launches, launches
from goals import GOALS, Goal
from gpus import ASSUMED, GPUS, ITEMSIZE
from model import TITLE, document, main, modelled, plan_of, spread_of
from test_cupy_modules import CELLS, modules
from test_tally import done

from gategen.summary import of_plan

T, B, I, H = 4, 2, 5, 3  # noqa: E741
SHAPE = Shape(T, B, I, H)
ROWS, BYTES = T * B, 4

# Of a step and row. gru_after: z and r of 3 sums and a function each; U_h @ h + c_h; n of 2 sums, a product
# and a function; h' of 2 products, a difference and a sum. indrnn: a product, 2 sums and a function.
POINTWISE = {"gru_after": (4 + 4 + 1 + 4 + 4) * H, "indrnn": 4 * H}


def loop_by_hand(name: str, way: Way, scheme: Scheme) -> int:
    """Entries that the loop reads and writes."""
    if name == "gru_after" and way == "forward":
        matrix, once = 3 * H * H, 3 * H + 3 * H  # U; b and c
        if scheme == "whole":
            return ROWS * (3 * H + 3 * H + H + H) + matrix + once  # W @ x; gates, v_n and h
        product = B * H + matrix + B * 3 * H
        kernel = B * 3 * H + B * 3 * H + once + B * H + B * (3 * H + H + H)
        return T * (product + kernel)
    if name == "gru_after":
        if scheme == "whole":
            return ROWS * (H + 3 * H + H + H + 4 * H) + 3 * H * H  # d_y, gates, v_n, h; d_gates; U
        first = B * (H + H + 3 * H + H + H) + B * (H + 4 * H)  # d_h, d_y, gates, v_n, h; d_h, d_gates
        product = B * 3 * H + 3 * H * H + B * H
        second = B * (H + H + H) + B * H  # d_h, d_u_h, z; d_h
        return T * (first + product + second)
    if way == "forward":
        return (
            ROWS * (H + H) + 2 * H if scheme == "whole" else T * (B * (H + H + H) + 2 * H)
        )  # W @ x, h'; u, b
    if scheme == "whole":
        return ROWS * (H + H + H + H) + H  # d_y, h; d_a, g_u; u
    return T * (B * (H + H + H + H + H + H + H) + H)  # d_h, d_y, h, h'; d_a, g_u, d_h; u


@pytest.mark.parametrize("scheme", ["stepwise", "whole"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["gru_after", "indrnn"])
def test_the_bytes_of_a_loop_are_those_one_counts_by_hand(name: str, way: Way, scheme: Scheme) -> None:
    assert counted(plan_of(name), way, SHAPE, scheme).loop.bytes == BYTES * loop_by_hand(name, way, scheme)


def test_half_the_bytes_an_entry_are_half_the_bytes() -> None:
    wide, narrow = (
        counted(plan_of("lstm"), "forward", Shape(T, B, I, H, dtype), "whole").all
        for dtype in ("float32", "bfloat16")
    )
    assert wide.bytes == 2 * narrow.bytes and wide.flops == narrow.flops


def test_what_serves_all_steps_of_gru_after_is_what_one_counts_by_hand() -> None:
    forward, backward = (counted(plan_of("gru_after"), way, SHAPE, "whole").at_once for way in WAYS)
    product = 2 * 3 * H * I * ROWS
    assert forward == Work(product, product, BYTES * (ROWS * I + 3 * H * I + ROWS * 3 * H))
    gradients = 2 * product + 2 * 3 * H * H * ROWS  # of x and W, of U in two parts
    sums = 4 * H * ROWS  # of b and of the c of U_h @ h + c_h
    moved = 2 * (3 * H * ROWS + 3 * H * I + ROWS * I)
    moved += 2 * H * ROWS + H * ROWS + 2 * H * H + H * ROWS + H * ROWS + H * H
    moved += 3 * H * ROWS + 3 * H + H * ROWS + H + 2 * (2 * H)  # the sums, and the rest of c is a copy of b
    assert backward == Work(gradients + sums, gradients, BYTES * moved)


@pytest.mark.parametrize("name", POINTWISE)
def test_the_flops_of_a_step_are_those_one_counts_by_hand(name: str) -> None:
    recurrent = 2 * 3 * H * H if name == "gru_after" else 0
    for scheme in ("stepwise", "whole"):
        loop = counted(plan_of(name), "forward", SHAPE, scheme).loop
        assert (loop.products, loop.flops) == (recurrent * ROWS, (recurrent + POINTWISE[name]) * ROWS)


@pytest.mark.parametrize(
    ("names", "forward", "backward"),
    [
        ("gru_after lstm janet slstm", 1, 1),  # U @ h
        ("gru mgu mlstm", 2, 2),  # then U_h @ (r * h)
        ("rhn", 3, 3),
        ("ln_gru sligru", 3, 3),  # the product, a mean, a variance
        ("ln_lstm", 5, 5),  # and both once more, of the memory
        ("indrnn sru lru mingru retnet matrix_lstm", 0, 0),  # rows and their matrices belong to one block
    ],
)
def test_a_step_waits_for_other_blocks_as_often_as_one_reads_in_it(
    names: str, forward: int, backward: int
) -> None:
    for name in names.split():
        step = plan_of(name).step
        assert (exchanges(step.forward), exchanges(step.backward)) == (forward, backward), name
        assert counted(plan_of(name), "forward", SHAPE, "whole").barriers == T * forward


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_the_flops_of_every_cell_are_those_of_its_summary(name: str) -> None:
    """Of which `counts` adds up the same stages, under either scheme."""
    shape = Shape(7, 3, 5, 12)
    found = of_plan(plan_of(name))
    for way in WAYS:
        d = direction(plan_of(name), way, shape)
        wanted = d.number(getattr(found, way).operations) * d.rows
        for scheme in ("stepwise", "whole"):
            assert counted(plan_of(name), way, shape, scheme).all.flops == wanted


# ------------------------------------------------------------------------------------------ launches


def assert_launches_are_counted(name: str, folder: Path, steps: int) -> None:
    _, module = modules(name, folder)
    for way, tally in zip(WAYS, done(module, name, steps, False), strict=True):
        own = generated_launches(plan_of(name), way, steps)
        kernels = sum(n for key, n in tally.items() if key.startswith("kernel"))
        assert (own["kernel"], own["product"]) == (kernels, tally["product"]), (name, way)
        if way == "forward" and name in ("gru_after", "lstm", "indrnn"):
            assert own.total() == tally.total()


@pytest.mark.parametrize("name", "gru_after gru lstm indrnn ln_gru lru rhn matrix_lstm".split())
def test_launches_are_those_of_the_emulator(name: str, tmp_path: Path) -> None:
    assert_launches_are_counted(name, tmp_path, 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CELLS if not plan_of(name).weights])
def test_launches_of_every_cell_are_those_of_the_emulator(name: str, tmp_path: Path) -> None:
    """But of those that compute parameters, which takes products of its own."""
    assert_launches_are_counted(name, tmp_path, 6)


@pytest.mark.parametrize("name", ["gru_after", "ln_lstm", "indrnn", "lru"])
def test_one_launch_for_all_steps_is_as_many_for_any_number_of_them(name: str) -> None:
    for way in WAYS:
        few, many = (launches(plan_of(name), way, steps, "whole") for steps in (3, 300))
        assert few == many and many.total() < launches(plan_of(name), way, 300, "stepwise").total()


# ------------------------------------------------------------------------------------------ the model


def test_a_model_is_called_one_in_the_title_the_columns_and_the_json(tmp_path: Path) -> None:
    out = tmp_path / "model.json"
    done = CliRunner().invoke(main, ["--cell", "mgu", "--shape", "8,2,4,16", "--json", str(out)])
    assert done.exit_code == 0, done.output
    title, _, header, *_ = done.output.splitlines()
    assert title.startswith(TITLE) and header.count("MODEL") == 4
    made = json.loads(out.read_text())
    assert made["model"] is True and made["title"].startswith(TITLE)
    told = {"goal", "peer", "cell", "T", "B", "I", "H", "dtype"}
    for row in made["rows"]:
        others = set(row) - told
        assert all(key.startswith(("counted ", "model ", "estimated ", "goal ")) for key in others), others


def test_every_goal_has_rows_beside_it_on_a_gpu_that_can_compute_it() -> None:
    made = document(GPUS["H200"])
    assert {row["goal"] for row in made["rows"]} == {goal.about for goal in GOALS}
    assert all(row["model seconds"] > 0 for row in made["rows"])
    narrow = {row["dtype"] for row in document(GPUS["T4"])["rows"]}
    assert narrow <= {"float32", "float16"} and all(
        row["estimated seconds of the peer"] is None for row in document(GPUS["T4"])["rows"]
    )


def test_a_goal_holds_for_its_own_shapes() -> None:
    goal = Goal("", "torch.nn", 3.0, ("lstm",), (256, 512), (16,), ("bfloat16",))
    assert goal.holds_at("lstm", "bfloat16", 1024, 16, 512)
    assert not goal.holds_at("lstm", "bfloat16", 128, 16, 512)
    assert not goal.holds_at("lstm", "float32", 1024, 16, 512)


@pytest.mark.parametrize("gpu", GPUS.values(), ids=[*GPUS])
def test_more_work_takes_longer_by_the_model(gpu: object) -> None:
    for name in ("gru_after", "indrnn", "mingru", "retnet"):
        for way in WAYS:
            small = modelled(plan_of(name), way, Shape(64, 4, 64, 64), gpu)
            large = modelled(plan_of(name), way, Shape(128, 64, 256, 256), gpu)
            assert small.whole < large.whole and small.stepwise < large.stepwise
            assert small.whole < small.stepwise


def test_weights_that_no_blocks_hold_are_read_at_every_step() -> None:
    gpu = GPUS["T4"]
    ways = [direction(plan_of("lstm"), "forward", Shape(8, 1, H, H)) for H in (256, 4096)]
    small, large = (spread_of(d, gpu, ASSUMED) for d in ways)
    assert small.streamed == 0 and small.blocks < gpu.sms
    held = ASSUMED.resident * gpu.sms
    assert large.blocks == gpu.sms and large.streamed * gpu.sms >= 4 * 4 * 4096**2 - held > 0


def test_every_gpu_names_the_source_of_its_figures() -> None:
    for gpu in GPUS.values():
        assert "NVIDIA" in gpu.source and set(gpu.products) <= set(ITEMSIZE)
        assert 0.4 < gpu.vector / (gpu.sms * gpu.clock * 256) <= 1.01 or gpu.arch < 86

"""Wrong arguments are refused by name, with what was given and what was expected."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from points import (
    NORMED,
    SIZES,
    Array,
    B,
    Point,
    T,
    every_cell,
    forward,
    input_keys,
    parts,
    random_point,
)

from gategen import Cell, emulator

H, I = SIZES["hidden"], SIZES["input"]  # noqa: E741


class Others:
    """Records as those of a module, but of another one: this one."""

    class Params(NamedTuple):
        W: Array

    class States(NamedTuple):
        h: Array

    class Tape(NamedTuple):
        x: Array


# What `call` below is given instead of the right thing, and what the message then says.
MISTAKES = {
    "x of two dimensions": (lambda m, a: a.forward(x=a.x[0]), ValueError, ["x ", "(5, 2)", "(T, B, I)"]),
    "x of another size": (
        lambda m, a: a.forward(x=np.zeros((T, B, 9))),
        ValueError,
        ["x ", "(4, 5, 9)", "(4, 5, 2)"],
    ),
    "x of integers": (
        lambda m, a: a.forward(x=np.zeros((T, B, I), int)),
        TypeError,
        ["x ", "int64", "float"],
    ),
    "x of objects": (lambda m, a: a.forward(x=a.x.astype(object)), TypeError, ["x ", "object", "float"]),
    "x in half precision": (
        lambda m, a: a.forward(x=a.x.astype("float16")),
        TypeError,
        ["x ", "float16", "float32"],
    ),
    "x in another precision": (
        lambda m, a: a.forward(x=a.x.astype("float32")),
        TypeError,
        ["x ", "float32", "float64"],
    ),
    "x is None": (lambda m, a: a.forward(x=None), TypeError, ["x "]),
    "params are a dictionary": (
        lambda m, a: a.forward(params=m.unpack(a.params)),
        TypeError,
        ["params", "dict", "Params"],
    ),
    "params are a tuple": (
        lambda m, a: a.forward(params=tuple(a.params)),
        TypeError,
        ["params", "tuple", "Params"],
    ),
    "a parameter of another shape": (
        lambda m, a: a.forward(params=a.params._replace(b=np.zeros(4))),
        ValueError,
        ["params.b", "(4,)", "(9,)"],
    ),
    "a parameter of another rank": (
        lambda m, a: a.forward(params=a.params._replace(b=np.zeros((9, 1)))),
        ValueError,
        ["params.b", "(9, 1)", "1"],
    ),
    "a parameter in another precision": (
        lambda m, a: a.forward(params=a.params._replace(b=a.params.b.astype("float32"))),
        TypeError,
        ["params.b", "float32", "float64"],
    ),
    "a parameter is None": (
        lambda m, a: a.forward(params=a.params._replace(b=None)),
        (TypeError, ValueError),
        ["params.b"],
    ),
    "a parameter is a list": (
        lambda m, a: a.forward(params=a.params._replace(b=list(a.params.b))),
        TypeError,
        ["params.b", "list", "array"],
    ),
    "initial is an array": (
        lambda m, a: a.forward(initial=a.states.h),
        TypeError,
        ["initial", "ndarray", "States"],
    ),
    "initial is a dictionary": (
        lambda m, a: a.forward(initial={"h": a.states.h}),
        TypeError,
        ["initial", "dict", "States"],
    ),
    "initial of one batch fewer": (
        lambda m, a: a.forward(initial=m.States(a.states.h[1:])),
        ValueError,
        ["initial.h", "(4, 3)", "(5, 3)"],
    ),
    "initial of one row": (
        lambda m, a: a.forward(initial=m.States(a.states.h[:1])),
        ValueError,
        ["initial.h", "(1, 3)", "(5, 3)"],
    ),
    "initial in another precision": (
        lambda m, a: a.forward(initial=m.States(a.states.h.astype("float32"))),
        TypeError,
        ["initial.h", "float32"],
    ),
    "too many lengths": (lambda m, a: a.forward(lengths=[1] * 6), ValueError, ["lengths", "(6,)", "(5,)"]),
    "one length": (lambda m, a: a.forward(lengths=3), ValueError, ["lengths", "()", "(5,)"]),
    "a length over T": (
        lambda m, a: a.forward(lengths=[1, 2, 3, 4, 5]),
        ValueError,
        ["lengths", "5", "0 to 4"],
    ),
    "a negative length": (
        lambda m, a: a.forward(lengths=[1, 2, 3, 4, -1]),
        ValueError,
        ["lengths", "-1", "0 to 4"],
    ),
    "lengths of floats": (
        lambda m, a: a.forward(lengths=np.ones(B)),
        TypeError,
        ["lengths", "float64", "integers"],
    ),
    "lengths of truth values": (
        lambda m, a: a.forward(lengths=np.ones(B, bool)),
        TypeError,
        ["lengths", "bool", "integers"],
    ),
    **{
        f"{what} is masked": (call, TypeError, [f"{what} is a masked array", "fill it"])
        for what, call in {
            "x": lambda m, a: a.forward(x=np.ma.masked_array(a.x)),
            "x_t": lambda m, a: m.step(a.params, np.ma.masked_array(a.x[0]), a.states),
            "initial.h": lambda m, a: a.forward(initial=m.States(np.ma.masked_array(a.states.h))),
            "state.h": lambda m, a: m.step(a.params, a.x[0], m.States(np.ma.masked_array(a.states.h))),
            "lengths": lambda m, a: a.forward(lengths=np.ma.masked_array([1] * B)),
            "d_y": lambda m, a: a.backward(d_y=np.ma.masked_array(a.d_y)),
            "d_final.h": lambda m, a: a.backward(d_final=m.States(np.ma.masked_array(a.states.h))),
            "W_z": lambda m, a: m.pack(m.unpack(a.params) | {"W_z": np.ma.masked_array(np.zeros((3, 2)))}),
        }.items()
    },
    "a masked parameter": (
        lambda m, a: a.forward(params=a.params._replace(W=np.ma.masked_array(a.params.W))),
        TypeError,
        ["params.W is MaskedArray", "plain array"],
    ),
    "a masked x without a state before it": (
        lambda m, a: m.step(a.params, np.ma.masked_array(a.x[0])),
        TypeError,
        ["masked array", "fill it"],
    ),
    "tape is a number": (lambda m, a: a.forward(tape=1), TypeError, ["tape", "int", "True, False"]),
    "tape is a truth value of NumPy": (
        lambda m, a: a.forward(tape=np.bool_(True)),
        TypeError,
        [f"tape is {np.bool_.__name__} of numpy, expected True, False or an earlier Tape of {{module}}"],
    ),
    "params of another cell": (
        lambda m, a: a.forward(params=Others.Params(a.params.W)),
        TypeError,
        [f"params is Params of {__name__}, expected Params of {{module}}"],
    ),
    "initial of another cell": (
        lambda m, a: a.forward(initial=Others.States(a.states.h)),
        TypeError,
        [f"initial is States of {__name__}, expected States of {{module}}"],
    ),
    "a tape of another cell": (
        lambda m, a: a.forward(tape=Others.Tape(a.x)),
        TypeError,
        [f"tape is Tape of {__name__}, expected True, False or an earlier Tape of {{module}}"],
    ),
    "backward with a tape of another cell": (
        lambda m, a: a.backward(tape=Others.Tape(a.x)),
        TypeError,
        [f"tape is Tape of {__name__}, expected the Tape of forward of {{module}}"],
    ),
    "d_final of another cell": (
        lambda m, a: a.backward(d_final=Others.States(a.states.h)),
        TypeError,
        [f"d_final is States of {__name__}, expected States of {{module}}"],
    ),
    "an unknown argument": (lambda m, a: a.forward(hidden=1), TypeError, ["hidden"]),
    "a tape of another shape": (
        lambda m, a: a.forward(tape=a.tape, x=a.x[1:]),
        ValueError,
        ["tape.h", "(5, 5, 3)", "(4, 5, 3)"],
    ),
    "backward without a tape": (lambda m, a: a.backward(tape=None), TypeError, ["tape", "NoneType", "Tape"]),
    "backward with parameters of another size": (
        lambda m, a: a.backward(params=m.init(I, 4, dtype="float64")),
        ValueError,
        ["tape.h", "(5, 5, 3)", "(5, 5, 4)"],
    ),
    "backward with parameters of another input size": (
        lambda m, a: a.backward(params=m.init(4, H, dtype="float64")),
        ValueError,
        ["tape.x", "(4, 5, 2)", "(4, 5, 4)"],
    ),
    "backward with parameters in another precision": (
        lambda m, a: a.backward(params=m.init(I, H)),
        TypeError,
        ["params", "float32", "float64"],
    ),
    "d_y of another shape": (
        lambda m, a: a.backward(d_y=a.d_y[1:]),
        ValueError,
        ["d_y", "(3, 5, 3)", "(4, 5, 3)"],
    ),
    "d_y of the last step": (
        lambda m, a: a.backward(d_y=a.d_y[-1]),
        ValueError,
        ["d_y", "(5, 3)", "(4, 5, 3)"],
    ),
    "d_y in another precision": (
        lambda m, a: a.backward(d_y=a.d_y.astype("float32")),
        TypeError,
        ["d_y", "float32", "float64"],
    ),
    "d_y of complex numbers": (
        lambda m, a: a.backward(d_y=a.d_y + 0j),
        TypeError,
        ["d_y", "complex128", "float64"],
    ),
    "d_final is an array": (
        lambda m, a: a.backward(d_final=a.states.h),
        TypeError,
        ["d_final", "ndarray", "States"],
    ),
    "d_final of another shape": (
        lambda m, a: a.backward(d_final=m.States(np.zeros((B, 4)))),
        ValueError,
        ["d_final.h", "(5, 4)", "(5, 3)"],
    ),
    "d_final in another precision": (
        lambda m, a: a.backward(d_final=m.States(np.zeros((B, H), "float32"))),
        TypeError,
        ["d_final.h", "float32", "float64"],
    ),
    "a step of a sequence": (lambda m, a: m.step(a.params, a.x), ValueError, ["x_t", "(4, 5, 2)", "(B, I)"]),
    "a step from another batch": (
        lambda m, a: m.step(a.params, a.x[0], m.States(a.states.h[1:])),
        ValueError,
        ["h", "(4, 3)", "(5, 3)"],
    ),
    "a step of integers": (
        lambda m, a: m.step(a.params, np.zeros((B, I), int)),
        TypeError,
        ["x_t has dtype int64, expected float32 or float64"],
    ),
    "a step from the state of another cell": (
        lambda m, a: m.step(a.params, a.x[0], Others.States(a.states.h)),
        TypeError,
        [f"state is States of {__name__}, expected States of {{module}}"],
    ),
    "init of size 0": (lambda m, a: m.init(0, 4), ValueError, ["input_size", "0", "positive"]),
    "init of half a size": (
        lambda m, a: m.init(3, 4.5),
        (TypeError, ValueError),
        ["hidden_size", "4.5", "positive"],
    ),
    "init of integers": (lambda m, a: m.init(3, 4, dtype="int32"), TypeError, ["dtype", "int32", "float32"]),
    "pack of too little": (
        lambda m, a: m.pack({"W_z": np.zeros((3, 2))}),
        ValueError,
        ["pack", "W_z", "U_z"],
    ),
    "pack of too much": (
        lambda m, a: m.pack(m.unpack(a.params) | {"extra": 1}),
        ValueError,
        ["pack", "extra"],
    ),
    "pack of another shape": (
        lambda m, a: m.pack(m.unpack(a.params) | {"U_r": np.zeros((3, 4))}),
        ValueError,
        ["U_r", "(3, 4)"],
    ),
    "pack of a transposed matrix": (
        lambda m, a: m.pack(m.unpack(a.params) | {"W_r": np.zeros((2, 3))}),
        ValueError,
        ["W_r", "(2, 3)"],
    ),
    "init of a truth value": (lambda m, a: m.init(3, True), ValueError, ["hidden_size", "True", "positive"]),
    **{
        f"pack of {dtype}": (
            lambda m, a, dtype=dtype: m.pack(
                {key: array.astype(dtype) for key, array in m.unpack(a.params).items()}
            ),
            TypeError,
            ["W_z has dtype " + dtype, "float32 or float64"],
        )
        for dtype in ("float16", "int32", "object", "complex64")
    },
    "pack of two precisions": (
        lambda m, a: m.pack(m.unpack(a.params) | {"W_r": np.zeros((3, 2), "float32")}),
        TypeError,
        ["W_r has dtype float32", "W_z has float64"],
    ),
    "pack of a number for a vector": (
        lambda m, a: m.pack(m.unpack(a.params) | {"b_z": 0.0}),
        ValueError,
        ["b_z has shape (), expected at least one dimension"],
    ),
    "unpack of a dictionary": (lambda m, a: m.unpack({}), TypeError, ["params", "dict", "Params"]),
}


class Arguments:
    """The right arguments of a GRU, and calls with some of them replaced."""

    def __init__(self, point: Point) -> None:
        self.module, self.params, self.states = point.module, point.params, point.states
        self.x, self.d_y = point.x, point.d_y[0]
        self.tape = forward(point, True)[2]

    def forward(self, params: Any = None, **changed: Any) -> Any:
        given = {"params": self.params if params is None else params, "x": self.x, "initial": self.states}
        return self.module.forward(**given | changed)

    def backward(self, **changed: Any) -> Any:
        given = {"params": self.params, "tape": self.tape, "d_y": self.d_y, "d_final": None}
        return self.module.backward(**given | changed)


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_refused_by_name(module_of, what):
    call, error, words = MISTAKES[what]
    arguments = Arguments(random_point("gru", module_of("gru")))
    with pytest.raises(error) as raised:
        call(arguments.module, arguments)
    for word in words:
        assert word.replace("{module}", arguments.module.__name__) in str(raised.value), str(raised.value)


STEPS = {
    "x_t of another size": (lambda m, cp, a: m.step(a, cp.zeros((B, 9), "f")), ["x_t", "(5, 9)", "(5, 2)"]),
    "x_t in another precision": (lambda m, cp, a: m.step(a, cp.zeros((B, I))), ["x_t", "float64", "float32"]),
    "a state of another size": (
        lambda m, cp, a: m.step(a, cp.zeros((B, I), "f"), m.States(cp.zeros((B, 9), "f"))),
        ["state.h", "(5, 9)", "(5, 3)"],
    ),
    "a state that is none": (
        lambda m, cp, a: m.step(a, cp.zeros((B, I), "f"), cp.zeros((B, H), "f")),
        ["state is ndarray", "expected States of"],
    ),
}


@pytest.mark.parametrize(("call", "words"), STEPS.values(), ids=STEPS)
def test_a_step_on_a_device_speaks_of_its_own_arguments(call, words):
    module = emulator.load(Path(__file__).parents[1] / "generated" / "gru_cupy.py")
    with emulator.installed() as cp, pytest.raises((TypeError, ValueError)) as raised:
        call(module, cp, module.init(I, H, seed=0))
    for word in words:
        assert word in str(raised.value), str(raised.value)


@every_cell
def test_every_cell_refuses_what_does_not_fit(module_of, name):
    point = random_point(name, module_of(name))
    module = point.module
    options = {**point.further, **({"buffers": module.Buffers(**point.buffers)} if name in NORMED else {})}
    wide = np.zeros((T, B, point.x.shape[-1] + 1))
    given = {**options, "initial": point.states}
    told = {size for s in (*point.cell.parameters, *point.cell.states) for size in point.cell.sizes_of(s)}
    if point.cell.inputs[0].size in {*told, 1}:
        with pytest.raises(ValueError, match=r"\b(x|initial\.\w+) has shape"):
            module.forward(point.params, wide, **given)
    for key, s in itertools.chain(zip(input_keys(point)[1:], point.cell.inputs[1:], strict=True)):
        with pytest.raises(ValueError, match=rf"\b({key}|initial\.\w+) has shape .* expected"):
            module.forward(
                point.params, point.x, **given | {key: np.zeros((B, point.values[s.name].shape[-1] + 1))}
            )
    if point.cell.inputs[0].size in {*told, 1}:
        stepped = {key: array[0] if array.ndim == 3 else array for key, array in point.further.items()}
        of_params = {size for s in point.cell.parameters for size in point.cell.sizes_of(s)}
        starts = (point.states, None) if point.cell.inputs[0].size in {*of_params, 1} else (point.states,)
        for state in starts:
            with pytest.raises(ValueError, match=r"\b(x_t|state\.\w+) has shape"):
                module.step(point.params, wide[0], state, **options | stepped)
    for k, field in enumerate(module.Params._fields):
        wrong = point.params._replace(**{field: np.zeros((1, 2, 3))})
        with pytest.raises(ValueError, match=rf"params\.{field} .*\(1, 2, 3\), expected"):
            module.forward(wrong, point.x, **options)
        single = point.params._replace(**{field: point.params[k].astype("float32")})
        with pytest.raises(TypeError, match=r"float32"):
            module.forward(single, point.x, **options)
        whole = point.params._replace(**{field: point.params[k].astype(int)})
        with pytest.raises(TypeError, match=rf"params\.{field} has dtype int64, expected float32 or float64"):
            module.forward(whole, point.x, **options)
    _, _, tape = forward(point, True)
    states = module.States(*(np.zeros((B + 1, d.shape[-1])) for d in point.d_final))
    with pytest.raises(ValueError, match=r"initial\.\w+ has shape"):
        module.forward(point.params, point.x, initial=states, **options)
    with pytest.raises(ValueError, match=r"d_final\.\w+ has shape"):
        module.backward(point.params, tape, None, states)
    single = tuple(d.astype("float32") for d in point.d_y)
    with pytest.raises(TypeError, match=r"d_y.* has dtype float32, expected float64"):
        module.backward(point.params, tape, single if len(single) > 1 else single[0])
    if len(point.d_y) > 1:
        with pytest.raises(ValueError, match=r"d_y has 1 parts, expected"):
            module.backward(point.params, tape, point.d_y[:1])
        with pytest.raises(ValueError, match=r"d_y\[1\] has shape"):
            module.backward(point.params, tape, (point.d_y[0], np.zeros((T, B, 1, 1)), *point.d_y[2:]))


def longer(array: Array, axis: int) -> Array:
    return np.concatenate([array, array.take([0], axis)], axis)


@every_cell
def test_every_cell_refuses_wrong_lengths(module_of, name):
    point = random_point(name, module_of(name))
    for lengths, error, words in (
        ((-1, 0, T, 1, T), ValueError, "from -1 to 4, expected from 0 to 4"),
        ((3, 0, T + 1, 1, T), ValueError, "from 0 to 5, expected from 0 to 4"),
        ((1,) * (B + 1), ValueError, r"shape \(6,\), expected \(5,\)"),
        (np.ones((B, 1), int), ValueError, r"shape \(5, 1\), expected \(5,\)"),
        ((1.0,) * B, TypeError, "dtype float64, expected integers"),
        ((True,) * B, TypeError, "dtype bool, expected integers"),
    ):
        with pytest.raises(error, match=words):
            forward(point, lengths=np.array(lengths))
    forward(point, lengths=np.array((0, T, 0, T, 1)))


def told_elsewhere(cell: Cell, name: str, axis: int, arrays: Iterable[Any]) -> bool:
    """Whether another axis of a parameter, or one of these inputs and states, says how long this axis is."""
    every = [size for a in cell.arrays for part in a.shape for size in parts(part)]
    every += [size for s in arrays for size in parts(s.size)]
    (own,) = (a.shape[axis] for a in cell.arrays if a.name == name)
    return all(not isinstance(size, str) or every.count(size) > 1 for size in parts(own))


@every_cell
def test_every_cell_refuses_parameters_that_do_not_fit(module_of, name):
    """Each field longer by one along each axis does not fit on the others, on the input, or on the state."""
    point = random_point(name, module_of(name))
    module, params = point.module, point.params
    options = {"buffers": module.Buffers(**point.buffers)} if name in NORMED else {}
    alone = {a.name for a in point.cell.arrays}
    given = (*point.cell.inputs, *point.cell.states)
    for field, array in params._asdict().items():
        for axis in range(array.ndim):
            if field not in alone or told_elsewhere(point.cell, field, axis, given):
                wrong = params._replace(**{field: longer(array, axis)})
                with pytest.raises(ValueError, match=r"has shape .*, expected"):
                    module.forward(wrong, point.x, initial=point.states, **point.further, **options)


def test_pack_refuses_rows_that_fit_in_sum_alone(module_of):
    arrays = module_of("gru").unpack(module_of("gru").init(4, 6))
    wrong = {"W_z": np.ones((5, 4), "float32"), "W_r": np.ones((7, 4), "float32")}
    with pytest.raises(ValueError, match=r"^W_z has shape \(5, 4\), expected \(6, 4\)$"):
        module_of("gru").pack(arrays | wrong)
    with pytest.raises(ValueError, match=r"pack was given \['1', 'b'\], expected"):
        module_of("gru").pack({1: 2, "b": 3})


@every_cell
def test_pack_refuses_what_does_not_fit(module_of, name):
    """Arrays longer by one where another parameter tells their length, and single numbers."""
    point = random_point(name, module_of(name))
    module, cell = point.module, point.cell
    arrays = module.unpack(point.params)
    for key, array in arrays.items():
        for axis in range(array.ndim):
            if told_elsewhere(cell, key, axis, ()):
                with pytest.raises(ValueError, match=r"has shape .*(expected|does not fit on)"):
                    module.pack(arrays | {key: longer(array, axis)})
        if array.ndim:
            with pytest.raises(ValueError, match=r"has shape \(\), expected"):
                module.pack(arrays | {key: np.float64(1)})

"""Deliberate bugs, one at a time, in a copy of the package: does any test notice?

    python tests/mutants.py [WORD ...]

prints for every bug (or those that mention all the words) the test that found it, and exits with 1 if one lived.
Each is a small patch of one file. Tests run from cheap to dear until one fails, those of the patched part first. Tests
that compare a plan with a text are left out: they notice any change, right or wrong.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent
PARTS = ("gategen", "templates", "tests", "pyproject.toml")
PROCESSES = 2
TIMEOUT = 600  # seconds for one of the first stages, which take five; a bug that never ends is found too


@dataclass(frozen=True)
class Mutant:
    """A bug: `old`, which stands in `file` exactly once, becomes `new`."""

    file: str
    what: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.file.removeprefix('gategen/')}: {self.what}"


@dataclass(frozen=True)
class Result:
    """What became of a mutant; `found_by` is empty where it lived."""

    mutant: Mutant
    found_by: str
    seconds: float


# ---------------------------------------------------------------------------------------------- the tests

ADJOINT, SECOND, PLAN = "tests/test_adjoint.py", "tests/test_second_derivatives.py", "tests/test_plan.py"
VALUES, GRADIENTS = "tests/test_module_values.py", "tests/test_module_gradients.py"
MODULE_TESTS = (
    VALUES,
    GRADIENTS,
    *(f"tests/test_{of}.py" for of in "lengths tape batch_norm names".split()),
    *(f"tests/test_module_{of}.py" for of in "parameters behaviour errors".split()),
)
CUPY, PLAN_VALUES, PRODUCTS = (
    "tests/test_cupy_modules.py",
    "tests/test_plan_values.py",
    "tests/test_cuda_products.py",
)
MATRICES = "tests/test_cupy_matrices.py"
SECOND_MODULES, SECOND_CUPY = "tests/test_second_modules.py", "tests/test_second_cupy.py"
JVP = "test_jvp_is_the_complex_step_of_forward"
BACKWARD_JVP = "test_backward_jvp_is_the_complex_step_of_backward"
PRINTERS = ("tests/test_numpy_backend.py", "tests/test_cuda_printer.py")
QUICK = ("gru", "gru_after", "lstm", "caru", "ligru", "sligru")
KINDS = ("softmax", "joint_softmax", "the_largest", "a_bound", "cumsum", "surrogate")
ODD = (
    "attentive",
    "winner",
    "cumulative",
    "gru_concat",
    "stacked",
    "twice",
    "swapped",
    "narrow",
    "every_function",
    "sparse",
    "rescaled",
    "orthogonal",
    "alone",
    "per_head",
)


def of_cells(file: str, test: str, cells: Iterable[str] = QUICK, before: str = "") -> tuple[str, ...]:
    return tuple(f"{file}::{test}[{before}{cell}]" for cell in cells)


COMPUTED = "tests/test_computed.py"
DERIVATION = (
    f"{COMPUTED}::test_its_gradients_agree_with_complex_step",
    f"{COMPUTED}::test_its_tangents_agree_with_complex_step",
    *of_cells(ADJOINT, "test_every_gradient_of_every_cell_is_that_of_complex_step"),
    *of_cells(ADJOINT, "test_backward_is_the_transpose_of_forward_at_larger_sizes"),
    *of_cells(ADJOINT, "test_a_backward_step_is_arithmetic_of_saved_values", ["gru", "lstm", "caru"]),
    *of_cells(ADJOINT, "test_every_gradient_of_every_kind_of_equation_is_that_of_complex_step", KINDS),
    *of_cells(ADJOINT, "test_forward_and_backward_of_every_kind_of_equation_are_transposed", KINDS),
    *of_cells(SECOND, "test_the_tangent_of_the_adjoint_gives_hessian_products", ["gru", "sligru", "words"]),
    *of_cells(SECOND, "test_the_adjoint_of_the_adjoint_gives_hessian_products", ["gru"]),
)
PLANS = (
    f"{PLAN_VALUES}::test_a_gradient_is_not_replaced_before_the_one_it_replaces_was_read",
    f"{PLAN_VALUES}::test_a_kernel_waits_for_one_of_another_size",
    f"{PLAN_VALUES}::test_gates_that_no_order_puts_beside_each_other_get_products_of_their_own",
    PLAN,
    f"--deselect={PLAN}::test_a_plan_reads_as_it_should",
    f"--deselect={PLAN}::test_show_prints_the_plan",
)
ON_NUMPY = (
    f"{PLAN_VALUES}::test_a_result_may_lie_where_an_operand_was",
    *of_cells(GRADIENTS, "test_every_entry_of_every_gradient_is_right", (*QUICK, *ODD)),
    *of_cells(
        GRADIENTS, "test_gradients_are_right_from_every_start", ["caru", "opened"], "own_start-lengths-"
    ),
    *of_cells(VALUES, "test_forward_is_what_the_equations_say", ["caru", "opened"], "own_start-lengths-"),
)
ON_CUDA = (
    *of_cells(
        CUPY,
        "test_the_cuda_of_every_cell_agrees_with_numpy_in_three_thread_orders",
        ["gru", "caru", "sligru"],
    ),
    f"{CUPY}::test_a_row_is_summed_by_more_threads_than_a_block_has",
    *of_cells(MATRICES, "test_the_cuda_of_matrices_agrees_with_numpy_in_three_thread_orders", ["mamba"]),
    *of_cells(CUPY, "test_the_cuda_of_every_cell_of_the_tests_is_right", ["one_after_the_other"]),
    *of_cells(
        PRODUCTS, "test_the_cuda_of_cells_that_use_a_matrix_twice_agrees_with_numpy", ["stacked", "twice"]
    ),
)
IN_A_DIRECTION = (
    *of_cells(SECOND_MODULES, BACKWARD_JVP, (*QUICK, *ODD), "given_start-lengths-"),
    *of_cells(SECOND_MODULES, BACKWARD_JVP, ["caru", "opened", "started"], "own_start-lengths-"),
    *of_cells(SECOND_MODULES, JVP, ["caru", "opened", "started"], "own_start-lengths-"),
    *of_cells(SECOND_CUPY, "test_both_backends_give_the_same_second_derivatives", ["gru", "caru"]),
)
C = "tests/test_c_modules.py"
ON_C = (
    "tests/test_c_matrices.py",
    f"{COMPUTED}::test_c_inverts_with_pivots_and_knows_the_exponential",
    f"{C}::test_the_c_of_a_cell_is_as_its_numpy",
    f"{C}::test_more_steps_than_are_taken_at_once",
    f"{C}::test_any_number_of_rows_and_units",
    f"{C}::test_running_statistics_are_updated_in_place_and_used",
)
WORDS = (
    "tests/test_words.py",
    "tests/test_heads.py",
    "tests/test_bad_specs.py",
    "tests/test_convolutions.py",
    *of_cells(
        ADJOINT, "test_every_gradient_of_every_kind_of_equation_is_that_of_complex_step", ["surrogate"]
    ),
)
STAGES: tuple[tuple[str, ...], ...] = (
    DERIVATION,
    PLANS,
    ON_NUMPY,
    ON_CUDA,
    ON_C,
    IN_A_DIRECTION,
    WORDS,
    (PLAN_VALUES, PRODUCTS, *PRINTERS, ADJOINT, SECOND),
    ("tests/test_tape.py::test_gradients_do_not_depend_on_how_many_steps_are_computed_ahead",),
    (
        f"{VALUES}::test_forward_is_what_the_equations_say",
        f"{GRADIENTS}::test_gradients_are_right_from_every_start",
    ),
    (CUPY,),
)


def stages_of(mutant: Mutant) -> list[tuple[str, ...]]:
    """All stages, that of the patched part first."""
    if mutant in VECTORS:
        own = WORDS
    elif mutant in SECONDS:
        own = IN_A_DIRECTION
    elif mutant in COMPILED:
        own = ON_C
    elif "cupy" in mutant.file:
        own = ON_CUDA
    elif "/plan/" in mutant.file:
        own = PLANS
    elif mutant.file.startswith(("gategen/backends/", "templates/")):
        own = ON_NUMPY
    else:
        own = DERIVATION
    return [own, *(stage for stage in STAGES if stage is not own)]


# ---------------------------------------------------------------------------------------------- running them


def patched(text: str, mutant: Mutant) -> str:
    assert text.count(mutant.old) == 1, f"{mutant}: its text occurs {text.count(mutant.old)} times"
    return text.replace(mutant.old, mutant.new)


def copied(source: Path, target: Path) -> Path:
    """What tests need of a checkout, but for these two files."""
    target.mkdir()
    for part in PARTS:
        if (source / part).is_dir():
            shutil.copytree(source / part, target / part, ignore=shutil.ignore_patterns("*mutants.py"))
        else:
            shutil.copy2(source / part, target / part)
    return target.resolve()


RUN = """
import sys
from pathlib import Path
import gategen, pytest
if Path(gategen.__file__).parent.parent != Path.cwd():
    sys.exit(f"the package of another folder was imported: {gategen.__file__}")
sys.exit(10 + pytest.main(sys.argv[1:]))
"""


def failed(folder: Path, tests: Sequence[str]) -> str:
    """The first test that fails on the package in `folder`; empty if all pass."""
    shown = ("-x", "-q", "-rfE", "--tb=no", "--color=no", "-p", "no:cacheprovider", "-m", "")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "COV_"))}
    changed = {
        "PYTHONPATH": str(folder),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # they take as long to import as the tests to run
        "GATEGEN_CACHE": str(folder.parent / "kernels"),  # one for all mutants, apart from the user's own
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", RUN, *shown, *tests],
            cwd=folder,
            env=clean | changed,
            capture_output=True,
            text=True,
            timeout=TIMEOUT if tests in STAGES[:5] else None,
        )
    except subprocess.TimeoutExpired:
        return f"{tests[0]} ... (does not end)"
    killed = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
    assert done.returncode not in killed, f"stopped from outside by signal {-done.returncode}"
    if done.returncode < 0:
        return f"{tests[0]} ... (crashes)"
    return first_failure(done.returncode, done.stdout + done.stderr)


def first_failure(code: int, output: str) -> str:
    """The test that failed first in a run that ended with ten more than pytest's own code; empty if none."""
    if code == 10:
        return ""
    named = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.M)
    assert code in (11, 12) and named, f"no tests were run:\n{output}"
    return named[1]


def judged(mutant: Mutant, snapshot: Path) -> Result:
    """A mutant, with the test that found it."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=snapshot.parent) as folder:
        copy = copied(snapshot, Path(folder) / "checkout")
        (copy.parent / "kernels").symlink_to(snapshot.parent / "kernels")
        file = copy / mutant.file
        file.write_text(patched(file.read_text(encoding="utf-8"), mutant), encoding="utf-8")
        found_by = next(filter(None, (failed(copy, tests) for tests in stages_of(mutant))), "")
    return Result(mutant, found_by, time.perf_counter() - began)


def judge(
    mutants: Sequence[Mutant], progress: Callable[[Result], None] = lambda result: None
) -> list[Result]:
    """All mutants, and then the tests that found them on the package as it is, where they must pass."""
    with tempfile.TemporaryDirectory(prefix="gategen_mutants_") as folder:
        snapshot = copied(ROOT, Path(folder) / "checkout")
        for mutant in mutants:
            patched((snapshot / mutant.file).read_text(encoding="utf-8"), mutant)
        (snapshot.parent / "kernels").mkdir()
        results: list[Result] = []
        with ThreadPoolExecutor(PROCESSES) as pool:
            for result in pool.map(partial(judged, snapshot=snapshot), mutants):
                results.append(result)
                progress(result)
        found_by = sorted({result.found_by for result in results if not result.found_by.endswith(")")} - {""})
        broken = failed(snapshot, found_by) if found_by else ""
        assert not broken, f"{broken} fails without any bug"
    return results


# ---------------------------------------------------------------------------------------------- the bugs

ADJOINT_PY, TANGENT_PY = "gategen/graph/adjoint.py", "gategen/graph/tangent.py"
SECOND_PY, SECOND_TEMPLATE = "gategen/plan/second.py", "templates/python/second.py.jinja"
NUMPY_PY = "gategen/backends/numpy.py"
CUPY_KERNELS = "gategen/backends/cupy/kernels.py"
CUPY_SUMS = "gategen/backends/cupy/sums.py"
LINES_PY, MODULE_PY = "gategen/backends/instructions.py", "gategen/backends/module.py"
HOST_PY, INTERFACE_PY = "gategen/backends/host.py", "gategen/backends/interface.py"
TEMPLATE = "templates/python/module.py.jinja"
KERNELS, POINTWISE_PY = "templates/cupy/kernels.cu.jinja", "gategen/backends/pointwise.py"

DERIVATIONS = (
    Mutant(
        ADJOINT_PY, "a gradient has the wrong sign",
        "self.give(read, gradient * partial(op, read)", "self.give(read, -gradient * partial(op, read)",
    ),
    Mutant(ADJOINT_PY, "the last term of a sum is dropped",
        "Pointwise(self.builder.gradient(value), sp.Add(*terms))",
        "Pointwise(self.builder.gradient(value), sp.Add(*terms[:-1]))"),
    Mutant(
        ADJOINT_PY, "square matrices are not transposed",
        "gradient, not transposed,", "gradient, not transposed and matrix.shape[0] != matrix.shape[1],",
    ),
    Mutant(
        ADJOINT_PY, "a derivative computes the function again instead of reading its value",
        "derivative(expr, by).xreplace({expr: op.out})", "derivative(expr, by)",
    ),
    Mutant(
        ADJOINT_PY, "the derivative of a square root is taken for that of its inverse",
        "return expr.exp * op.out", "return -expr.exp * op.out",
    ),
    Mutant(
        ADJOINT_PY, "what was broadcast over features is not summed",
        "return {*value.axes} < {*axes(size)}", "return False",
    ),
    Mutant(
        ADJOINT_PY, "the sides of an outer product are swapped where the matrix is square",
        "left, right = (operand, gradient) if transposed else",
        "left, right = (operand, gradient) if transposed or matrix.shape[0] == matrix.shape[1] else",
    ),
    Mutant(
        ADJOINT_PY, "states need no gradient",
        "{v for v in self.forward.given if", "{v for v in (*self.forward.inputs, *self.forward.parameters) if",
    ),
    Mutant(
        ADJOINT_PY, "the gradient of later steps is dropped where there is an output",
        "self.terms[value].append(inputs[-1])", "self.terms[value] = [inputs[-1]]",
    ),
    Mutant(
        ADJOINT_PY, "batch statistics are taken for constants",
        "case BatchSum(_, operand):\n                self.terms[operand].append(gradient)",
        "case BatchSum(_, operand):\n                pass",
    ),
    Mutant(
        ADJOINT_PY, "the gradient of a sum over features has the wrong sign",
        "in operands:\n                    self.terms[operand].append(gradient)",
        "in operands:\n                    self.terms[operand].append(-gradient)",
    ),
    Mutant(
        ADJOINT_PY, "an outer product passes its gradient on untransposed",
        "self.product(gradient, left, True,", "self.product(gradient, left, gradient.shape[0] != gradient.shape[1],",
    ),
    Mutant(
        "gategen/graph/ops.py", "a square weight goes along the wrong axis of it, not transposed",
        "self.matrix.shape[not self.transposed] if self.operand.wide", "self.operand.axes[-1] if self.operand.wide",
    ),
    Mutant(
        "gategen/graph/flatten.py", "a weight on the right is not transposed",
        "self.operand(value, hint), not transposed)", "self.operand(value, hint), transposed)",
    ),
    Mutant(
        ADJOINT_PY, "the gradient of an inverse has the wrong sign",
        "lambda: -both", "lambda: both",
    ),
    Mutant(
        ADJOINT_PY, "the gradient of an exponential is taken at the matrix itself, not transposed",
        "self.turned(first), *ways", "first, *ways",
    ),
    Mutant(
        ADJOINT_PY, "the gradient of a transposed matrix is not transposed",
        "lambda: self.turned(gradient)", "lambda: gradient if gradient.shape[0] == gradient.shape[1] else self.turned(gradient)",
    ),
    Mutant(
        ADJOINT_PY, "what was broadcast over a matrix is not summed",
        "        if value.shape == like.shape:\n            return term", "        if value.shape != ():\n            return term",
    ),
    Mutant(TANGENT_PY, "an exponential moves as its matrix does", 'op.word == "exponential" and k == 0', "False"),
    Mutant(
        ADJOINT_PY, "each of several largest entries has the whole gradient",
        "self.give(operand, gradient * share, operand)",
        "self.give(operand, gradient * share.subs(sp.fraction(share)[1], 1), operand)",
    ),
    Mutant(
        ADJOINT_PY, "a softmax is differentiated through what it subtracts",
        'isinstance(op, Reduce) and op.how == "bound"', "False",
    ),
    Mutant(
        ADJOINT_PY, "the gradient of a running sum runs the same way",
        "gradient, not backwards, axis)", "gradient, backwards, axis)",
    ),
    Mutant(
        "gategen/graph/builder.py", "the largest entries along an axis are counted over all axes",
        'self.reduced(f"count_{top}", *marks, size=top.size)', 'self.reduced(f"count_{top}", *marks)',
    ),
    Mutant(
        "gategen/graph/flatten.py", "a mean along one axis is over as many as the value has",
        "for v in values)) / number(kept)", "for v in values))",
    ),
    Mutant(
        "gategen/plan/ahead.py", "a product of two axes stands in the order of its factors",
        "graph.values), graph.orders)", "graph.values))",
    ),
    Mutant(
        TANGENT_PY, "the largest entry moves as all others do",
        'builder.shares(op) if how == "max" else', "builder.shares(op) if not how else",
    ),
    Mutant(
        TANGENT_PY, "a running sum moves from the last feature on",
        "builder.add(replace(op, out=builder.tangent(op.out), operand=dot))",
        "builder.add(replace(op, out=builder.tangent(op.out), operand=dot, backwards=not op.backwards))",
    ),
    Mutant(TANGENT_PY, "the first term of a derivative is dropped", "for v, dot in moving)", "for v, dot in moving[1:])"),
    Mutant(
        TANGENT_PY, "a matrix does not move where its operand does",
        "[(left, dots[right]), (dots[left], right)]",
        "[(left, dots[right]), (dots[left] if isinstance(op, Outer) or not dots[right] else None, right)]",
    ),
    Mutant(
        TANGENT_PY, "the sides of an outer product are swapped where they are alike",
        "return replace(op, out=out, left=left, right=right)",
        "left, right = (right, left) if right.shape == left.shape else (left, right)\n"
        "    return replace(op, out=out, left=left, right=right)",
    ),
    Mutant(
        TANGENT_PY, "batch statistics do not move",
        "return None if dot is None else builder.add(BatchSum(builder.tangent(op.out), dot))", "return None",
    ),
)  # fmt: skip

PLANNING = (
    Mutant(
        "gategen/plan/hoist.py", "the static part of a sum is lost before the loop",
        "sp.Add(*rest, *static), f\"x_{stem}\")", "sp.Add(*(rest or static)), f\"x_{stem}\")",
    ),
    Mutant(
        "gategen/plan/stages.py", "what waits for a state runs before the loop where it is in no next state",
        "    graph, level = analysis.graph, analysis.level\n",
        "    graph, level = analysis.graph, analysis.level\n"
        "    needed = {v for op in graph.ops for v in op.reads} | {c.next for c in graph.states}\n"
        "    level = {v: LEVELS[0] if v not in needed and not v.static else k for v, k in level.items()}\n",
    ),
    Mutant(
        "gategen/plan/retape.py", "what a product reads is recomputed instead of saved",
        "op.out in taped - in_memory", "op.out in taped",
    ),
    Mutant(
        "gategen/plan/pipeline.py", "a value that the backward step reads is not saved",
        "tuple(v for v in reads if v in made)", "tuple(v for v in reads if v in made)[1:]",
    ),
    Mutant(
        "gategen/plan/chains.py", "a value is overwritten that is read again",
        "if last[v] == k and v not in safe", "if v not in safe",
    ),
    Mutant(
        "gategen/plan/chains.py", "a value is overwritten that the backward step reads",
        "safe = {*graph.given, *kept, *ends,", "safe = {*graph.given, *ends,",
    ),
    Mutant(
        "gategen/plan/chains.py", "a value between two products lasts no longer than its kernel",
        "draft.home[read] != draft.home[op.out]", "draft.level(read) != draft.level(op.out)",
    ),
    Mutant(
        "gategen/plan/share.py", "an op is taken for a part of itself",
        "known.setdefault(op.expr, op.out)",
        "known.update({part: op.out for part in op.expr.args if isinstance(part, sp.Add)})",
    ),
    Mutant(
        "gategen/plan/data.py", "what lies in one buffer is taken for neighbours",
        "(first.home, first.shift, first.stop) == (second.home, second.shift, second.start)",
        "(first.home, first.shift) == (second.home, second.shift)",
    ),
    Mutant(
        "gategen/plan/write.py", "the second product into a sum overwrites the first",
        "summed and k > 0,", "False,",
    ),
    Mutant(
        "gategen/plan/write.py", "the second outer product into a gradient overwrites the first",
        "add = not written.isdisjoint(weight.members)", "add = False",
    ),
    Mutant(
        "gategen/plan/write.py", "products are not taken in the order of the rows of their weights",
        "sorted(group.products, key=place):", "reversed(group.products):",
    ),
    Mutant(
        "gategen/plan/write.py", "gathered rows stand in the order of the field, not of the operands",
        "stretches([self.layout.weight(op.matrix) for op in run])",
        "stretches(sorted((self.layout.weight(op.matrix) for op in run), key=self.layout.place))",
    ),
    Mutant(
        "gategen/plan/layout.py", "every vector of a field begins right after the first",
        "at += length(cell.size_of(p))", "at = length(cell.size_of(p))",
    ),
    Mutant(
        "gategen/plan/groups.py", "all products of a sum but the first are lost",
        "replace(op, out=group[0].out) for op in group)", "replace(op, out=group[0].out) for op in group[:1])",
    ),
    Mutant(
        "gategen/plan/stages.py", "the next value of a state is written while the current one is still read",
        "if last.get(carry.current, -1) > at[carry.next] or made.level(carry.next) != LOOP",
        "if made.level(carry.next) != LOOP",
    ),
    Mutant(
        "gategen/plan/place.py", "a product overwrites the carried gradient that it reads",
        "if last == end and not isinstance(draft.ops[end], Pointwise):", "if False:",
    ),
    Mutant(
        "gategen/plan/place.py", "the next value of a state overwrites the current one forwards",
        "replace(memory.slots[carry.current], shift=1)", "replace(memory.slots[carry.current], shift=0)",
    ),
    Mutant(
        "gategen/plan/stages.py", "an op runs with a kernel although it waits for what is left behind",
        "alike(op.out, head.out) and blocked.isdisjoint(op.reads)", "alike(op.out, head.out)",
    ),
    Mutant(
        "gategen/plan/ends.py", "two promises are kept by one value",
        "        used.add(value)\n", "",
    ),
    Mutant(
        "gategen/plan/classify.py", "a loop without products is linear",
        'return "linear" if linear else "elementwise"', 'return "linear"',
    ),
)  # fmt: skip

LOWERING = (
    Mutant(
        "gategen/backends/functions.py", "gradients of computed matrices go nowhere",
        "    if not line:\n        return made\n", "    return made\n",
    ),
    Mutant(
        "gategen/backends/weights.py", "computed matrices of one field stand in another order",
        "({', '.join(members)}))", "({', '.join(reversed(members))}))",
    ),
    Mutant(
        LINES_PY, "a difference is taken the wrong way round",
        '"subtract", [self.operand(rest.pop(k), out), source]', '"subtract", [source, self.operand(rest.pop(k), out)]',
    ),
    Mutant(
        LINES_PY, "a result overwrites an operand that it reads twice",
        "(self.counted(expr, out) > 1 or", "(self.counted(expr, out) > 9 or",
    ),
    Mutant(LINES_PY, "a result overwrites its own denominator", "or self.below(expr, out))", "or False)"),
    Mutant(
        LINES_PY, "merging forgets that what is overwritten was to be read before",
        "(one.out, written), (one.out, read)]", "(one.out, written)]",
    ),
    Mutant(
        LINES_PY, "merging forgets that what is read must be written before",
        "[*((view, written) for view in one.reads), (one.out", "[(one.out",
    ),
    Mutant(LINES_PY, "scratch is free after its first use", "last[view.home] = k", "last.setdefault(view.home, k)"),
    Mutant(
        LINES_PY, "two slices become one although they are not neighbours",
        "return end == start and memory == other", "return memory == other",
    ),
    Mutant(
        NUMPY_PY, "an interpolation runs the wrong way",
        "sp.Mul(weight, b - a, evaluate=False)", "sp.Mul(weight, a - b, evaluate=False)",
    ),
    Mutant(NUMPY_PY, "the next state is the current one in the loop", 'f"{after}:") if shift else', 'f"{low}:-1") if shift else'),
    Mutant(
        HOST_PY, "the next state is the current one behind the loop",
        '("state", 1): "[1:]"', '("state", 1): "[:-1]"',
    ),
    Mutant(
        HOST_PY, "a square weight is not transposed in the loop",
        'return self.made_once(self.turned(part), f"{wish}_T")',
        'found = self.module.fields[weights[0].field]\n'
        '        square = found.height == found.width and part == wish\n'
        '        return self.made_once(part if square else self.turned(part), f"{wish}_T")',
    ),
    Mutant(
        HOST_PY, "the column offset of a matrix block is dropped",
        "self.span(*weight.columns, found.width)",
        "self.span(0 * weight.columns[0], weight.columns[1] - weight.columns[0], found.width)",
    ),
    Mutant(
        HOST_PY, "a product overwrites the sum that it adds to",
        "self.flat(stage.out), stage.add)", "self.flat(stage.out), False)",
    ),
    Mutant(
        HOST_PY, "the gradients of a matrix in two products are not added",
        "right, target, stage.add)", "right, target, False)",
    ),
    Mutant(
        CUPY_KERNELS, "the place of a value in its buffer is forgotten",
        'return "" if slot.start == 0 else f"{self.size(slot.start)} + "', 'return ""',
    ),
    Mutant(CUPY_KERNELS, "a kernel overwrites the current state", '"(at + B)" if slot.shift else "at"', '"at"'),
    Mutant(
        CUPY_KERNELS, "a kernel does not store what the backward step reads",
        "*graph.results, *way.rule.tape}", "*graph.results}",
    ),
    Mutant(
        INTERFACE_PY, "the first step's output stays what the loop left there",
        'first=names["first output", name] if', 'first=f"{source}[0]" if',
    ),
    Mutant(
        HOST_PY, "a finished sequence loses its gradient",
        'f"{self.kept_name(c) if back', 'f"0 * {self.kept_name(c) if back',
    ),
    Mutant(
        HOST_PY, "a finished sequence runs on",
        "else self.value(c.current)}, where", "else self.value(c.next)}, where",
    ),
    Mutant(CUPY_KERNELS, "a kernel runs a finished sequence on", "= over ? {old} :", "= over ? {text} :"),
    Mutant(CUPY_KERNELS, "a kernel takes the gradient of a finished sequence", "over ? 0 : real({read})", "real({read})"),
    Mutant(CUPY_KERNELS, "a kernel writes over the gradient of a finished sequence", "if (!over) {entry} = {text};", "{entry} = {text};"),
    Mutant(CUPY_KERNELS, "a product adds to a gradient that is still there", "{self.entry(v, buffers)} = 0;", "{{}}"),
    Mutant(
        TEMPLATE, "gradients of outputs behind the end of a sequence are not masked",
        "{{ output.gradient }} = {{ xp }}.where(finished{{ output.over }}, 0, {{ output.gradient }})", "pass",
    ),
    Mutant(
        TEMPLATE, "the gradient of the first step is not added",
        "Params(*(whole + part for whole, part in zip(d_params, d_first, strict=True)))", "d_params",
    ),
    Mutant(
        TEMPLATE, "the steps behind the first one see its values",
        "{{ name }} = {{ name }}[1:]", "{{ name }} = {{ name }}[:-1]",
    ),
    Mutant(
        TEMPLATE, "the gradient of a trained initial state is not added",
        "Params(*(whole + part for whole, part in zip(d_params, d_start, strict=True)))", "d_params",
    ),
    Mutant(
        "templates/python/first_step.py.jinja", "a sequence of length 0 takes the first step",
        "{{ xp }}.copyto({{ item.carry }}, {{ item.kept }}, where=finished{{ item.over }})", "pass",
    ),
    Mutant(
        "templates/python/numpy_helpers.py.jinja", "steps that are projected later are those projected first",
        "x[t * B : (t + steps) * B]", "x[: len(out[t : t + steps]) * B]",
    ),
    Mutant(
        HOST_PY, "a finished sequence adds its gradient once more",
        '.copyto({self.value(c.current)}, 0, where', '.copyto({self.value(c.current)}[:0], 0, where',
    ),
    Mutant(
        NUMPY_PY, "a step of a few is taken from the steps behind them",
        'return f"{base}[ts]" if whole', 'return f"{base}[:ts.stop - ts.start]" if whole',
    ),
    Mutant(
        "gategen/plan/compose.py", "a chain of factors loses its first one",
        "inside[op.out] = op.expr", "inside[op.out] = sp.Mul(*sp.Mul.make_args(op.expr)[1:])",
    ),
    Mutant(
        KERNELS, "a column sum does not wait for the other threads",
        "part[threadIdx.y][threadIdx.x] = total;\n    __syncthreads();", "part[threadIdx.y][threadIdx.x] = total;",
    ),
    Mutant(KERNELS, "a row sum takes only the first features", "k += 128) total", "k += 1 << 20) total"),
    Mutant(KERNELS, "not all lanes of a row of a matrix are added up", "n = lanes / 2; n > 0;", "n = lanes / 2; n > 1;"),
    Mutant(
        CUPY_SUMS, "threads behind the last column of a matrix write",
        '"!inside || threadIdx.y > 0"', '"threadIdx.y > 0"',
    ),
    Mutant(
        POINTWISE_PY, "a vector beside a matrix is read along all entries of it",
        "% {grouped(size(length(part)))}\" if begin else text", "% {grouped(size(length(part)))}\" if begin > 1 else text",
    ),
    Mutant(
        MODULE_PY, "what is not finite behind a length is summed up",
        "return powers or expr.has(*(row.apply for row in TABLE if not row.finite))", "return False",
    ),
)  # fmt: skip

SECONDS = (
    Mutant(
        "templates/python/weights.py.jinja", "a direction is as large as the matrix of blocks around it",
        "blocks[k : k + n, size + k : size + k + n] = direction", "blocks[:n, size : size + n] = direction",
    ),
    Mutant(
        "gategen/backends/weights.py", "the tangent of a gradient is taken for the gradient",
        "if plan.of is not None and value is of:", "if False:",
    ),
    Mutant(
        TANGENT_PY, "a factor that all terms of a slope share is lost",
        "return sp.Mul(*shared, sp.Add(*rest))", "return sp.Add(*rest)",
    ),
    Mutant(
        SECOND_PY, "the backward step takes what lies on the tape for fixed",
        "known = {v: dots.get(v) for v", "known = {v: None if v in forward.nexts else dots.get(v) for v",
    ),
    Mutant(
        SECOND_PY, "the tangents of the states start from those of others",
        "states = pushed.states[len(forward.states) :]", "states = pushed.states[len(forward.states) :][::-1]",
    ),
    Mutant(
        NUMPY_PY, "the tape of a run is read as its own memory would lie",
        "return own | {name: n for name, n in gate_by_gate(self.plan.of.step).items() if name in lent}",
        "return own",
    ),
    Mutant(
        NUMPY_PY, "a product in the loop replaces what it adds to", '[f"{target} += {out}"]', '[f"{target}[...] = {out}"]',
    ),
    Mutant(
        SECOND_TEMPLATE, "trained initial states stand still",
        "{{ state.dot }}[0] += {{ state.start }}", "pass",
    ),
    Mutant(
        SECOND_TEMPLATE, "a sequence of length 0 moves in the first step",
        "{{ xp }}.copyto({{ state.dot }}[1], {{ state.dot }}[0], where=finished[0]{{ state.own.over }})", "pass",
    ),
    Mutant(
        SECOND_TEMPLATE, "how gradients of outputs move behind the end of a sequence counts",
        "{{ output.dot_gradient }} = {{ xp }}.where(finished{{ output.over }}, 0, {{ output.dot_gradient }}){{ target.kept_dtype }}",
        "pass",
    ),
    Mutant(
        "gategen/plan/data.py", "the loop of a tangent leaves out steps behind the first one",
        "return self.rule(FIRST_STEP) is not None and not self.of",
        "return self.rule(FIRST_STEP) is not None",
    ),
)  # fmt: skip

C_TEMPLATE, C_HELPERS, C_LINES = (
    "templates/c/module.c.jinja", "templates/c/helpers.c.jinja", "gategen/backends/c/lines.py",
)  # fmt: skip
COMPILED = (
    Mutant(
        "templates/c/weights.c.jinja", "an inverse takes the first pivot",
        "? row : best;", "? best : best;",
    ),
    Mutant(
        "templates/c/weights.c.jinja", "the exponential has a term too few",
        "+ (real)(1 / d) * third[k]", "",
    ),
    Mutant(
        C_TEMPLATE, "a sequence takes one step too many",
        "if (first + t >= lengths[row]) {  // it is over, and keeps its states",
        "if (first + t > lengths[row]) {  // it is over, and keeps its states",
    ),
    Mutant(
        C_TEMPLATE, "without a tape the next few steps begin where these did",
        "copy({{ room.each }}, {{ room.name }} + steps * {{ room.each }}, {{ room.name }});", ";",
    ),
    Mutant(
        C_TEMPLATE, "the first step gives parameters no gradient",
        "if (begin) {", "if (begin && !begin) {",
    ),
    Mutant(
        C_HELPERS, "what is left of a product's rows is forgotten",
        "    while (rows > 0) {\n        const size_t taken", "    while (rows > 1) {\n        const size_t taken",
    ),
    Mutant(
        C_HELPERS, "behind its last panel a packed matrix is not empty",
        "zero(PANEL - width, panel + width);", "zero(PANEL - width, panel);",
    ),
    Mutant(
        C_LINES, "what is summed is not cleared behind the lengths",
        "self.lines.append(self.clearing(buffer))", "pass",
    ),
    Mutant(
        C_HELPERS, "of the last rows of a matrix three are forgotten",
        "for (size_t j = 0; j < 4 && m + j < M; j++) {", "for (size_t j = 0; j < 4 && m + 3 < M; j++) {",
    ),
    Mutant(
        C_HELPERS, "multiples of four rows are those of three",
        "(s * p[k] + t * q[k]) + (u * r[k] + v * o[k])", "(s * p[k] + t * q[k]) + u * r[k]",
    ),
    Mutant(
        "gategen/backends/c/matrices.py", "axes of which a value has one are one loop",
        "all((made[-1][-1] in side) == (axis in side) for side in sides)",
        "any((made[-1][-1] in side) == (axis in side) for side in sides)",
    ),
    Mutant(
        C_LINES, "what adds up along an axis begins with what is there",
        "zeros = not add and (", "zeros = add and (",
    ),
    Mutant(
        C_LINES, "the blocks of a second gate replace what the first one gave",
        'f"k >= {found.each}" if many else "0"', '"0"',
    ),
    Mutant(
        "gategen/plan/phases.py", "what waits for sums over all steps does not wait",
        "(last if waits else first).append(stage)", "first.append(stage)",
    ),
)  # fmt: skip

VECTORS = (
    Mutant(
        "gategen/plan/write.py", "the second part of a maximum overwrites the first",
        "yield Sum(out, run, k > 0, how)", 'yield Sum(out, run, k > 0 and how == "sum", how)',
    ),
    Mutant(
        "gategen/plan/retape.py", "what is asked for equality is computed again",
        "for v in compared(op.expr)}", "for v in compared(op.expr) if not v}",
    ),
    Mutant(
        NUMPY_PY, "a running sum never runs from the last feature on",
        'turn = "[..., ::-1]" if stage.backwards else ""', 'turn = ""',
    ),
    Mutant(
        C_LINES, "the gradient of a weight on the left is that of the last matrix",
        'ends[1], K, target, width, "1"]', 'ends[1], K, target, width, "0"]',
    ),
    Mutant(
        "gategen/backends/host.py", "matrices are not turned for the gradient of a weight on the left",
        'turned = "" if last == value.axes[-1] else ".swapaxes(-2, -1)"', 'turned = ""',
    ),
    Mutant(
        CUPY_KERNELS, "a sum between a kernel and a product reads what the kernel has emptied",
        "        meets = meeting.get(home, [])\n",
        "        meets = [stage for stage in meeting.get(home, []) if not sums_matrices(stage)]\n",
    ),
    Mutant(
        C_LINES, "a running sum never runs from the last feature on",
        """f"running_sum{'_back' if stage.backwards else ''}\"""", '"running_sum"',
    ),
    Mutant(
        "templates/python/numpy_helpers.py.jinja", "a maximum forgets what it was",
        "np.maximum(out, top) if also else top", "top",
    ),
    Mutant(KERNELS, "a running sum starts each thread from 0", "total = threadIdx.x > 0 ? part[threadIdx.x - 1] : real(0);", "total = 0;"),
    Mutant(KERNELS, "a row's maximum takes only the first features", "k += 128) top", "k += 1 << 20) top"),
    Mutant(
        C_HELPERS, "a maximum does not look at what is behind the last panel",
        "for (; k < n; k++) {\n        top = larger_or_nan(top, a[k]);", "for (; k < n - n % SPAN; k++) {\n        top = larger_or_nan(top, a[k]);",
    ),
    Mutant(
        "gategen/graph/flatten.py", "a joint softmax has a sum for each part",
        "* self.named(1 / self.total(exps, kept), f\"scale_{hint}\")",
        "* self.named(1 / self.total(exps[part:], kept), f\"scale_{hint}\")",
    ),
    Mutant(
        "gategen/graph/flatten.py", "a logsumexp is not moved back",
        "return top + self.function(", "return self.function(",
    ),
    Mutant(
        ADJOINT_PY, "a gradient is shifted as far as the value, and not back",
        "self.shifted(operand, gradient, -by, axis)", "self.shifted(operand, gradient, by, axis)",
    ),
    Mutant(
        "gategen/spec/convolutions.py", "a kernel is turned round, as mathematics has it",
        "((part, width // 2 - k) for", "((part, k - width // 2) for",
    ),
    Mutant(
        "gategen/graph/flatten.py", "of what is shifted alike the first counts",
        "lang.shifted(sp.Add(*values), *how)", "lang.shifted(sp.Add(*values[:1]), *how)",
    ),
    Mutant(
        NUMPY_PY, "what was there stays where nothing is shifted to",
        'f"{target}[..., {empty}{behind}] = 0"', 'f"{target}[..., {empty}{behind}] *= 1"',
    ),
    Mutant(
        CUPY_KERNELS, "there is 1 where nothing is shifted to",
        "? real(0) : real({read})", "? real(1) : real({read})",
    ),
    Mutant(
        "gategen/spec/delays.py", "every earlier value is one step ago",
        "held = state\n", "_ = state\n",
    ),
    Mutant(
        "gategen/spec/heads.py", "what goes along the axis of heads looks for its name",
        "swap[word] = Str(str(_counted(str(word), count)))", "swap[word] = word",
    ),
    Mutant(
        "gategen/spec/heads.py", "initial values of matrices in shares are those of others",
        "sized(state.size), state.initial.xreplace(swap))", "sized(state.size), state.initial)",
    ),
    Mutant(
        "gategen/graph/ops.py", "a mean over a share divides by what no kernel knows",
        "return in_quotients(length(size))", "return length(size)",
    ),
    Mutant(
        "gategen/backends/cupy/loops.py", "a kernel of all steps asks for the places along axes too early",
        "lines = [*self.loads, *self.computes]\n        places = self.host.along_axes()  # that these lines name",
        "places = self.host.along_axes()  # that these lines name\n        lines = [*self.loads, *self.computes]",
    ),
    Mutant(
        "gategen/spec/heads.py", "weights of every shape are cut into blocks",
        "cell.shapes[p.name] == WIDE", "cell.shapes[p.name][0] == WIDE[0]",
    ),
    Mutant(
        "gategen/spec/heads.py", "a product of matrices has heads",
        "if mine and node.has(*WHOLE)", "if mine and node.has(*WHOLE[2:])",
    ),
    Mutant(
        "gategen/spec/functions.py", "a surrogate has the derivative of what it shows",
        "lambda s, f, psi: 0,\n            lambda s, f, psi: 1,", "lambda s, f, psi: 1,\n            lambda s, f, psi: 0,",
    ),
)  # fmt: skip

MUTANTS = (*DERIVATIONS, *PLANNING, *LOWERING, *SECONDS, *COMPILED, *VECTORS)


# ---------------------------------------------------------------------------------------------- the table


def row(result: Result) -> tuple[str, str, str]:
    return str(result.mutant), f"{result.seconds:.1f}", result.found_by.removeprefix("tests/") or "LIVES"


def judge_for_people(mutants: Sequence[Mutant]) -> list[Result]:
    """With a table that grows."""
    from rich.live import Live
    from rich.markup import escape
    from rich.table import Table

    table = Table("bug", "seconds", "found by")

    def progress(result: Result) -> None:
        table.add_row(*map(escape, row(result)), style="" if result.found_by else "bold red")

    with Live(table, vertical_overflow="visible"):
        return judge(mutants, progress)


def judge_for_files(mutants: Sequence[Mutant]) -> list[Result]:
    """With a line for each."""
    wide = max(len(str(mutant)) for mutant in mutants)

    def progress(result: Result) -> None:
        bug, seconds, found_by = row(result)
        print(f"{bug:{wide}}  {seconds:>6}  {found_by}", flush=True)

    return judge(mutants, progress)


def main(words: Sequence[str]) -> int:
    chosen = [mutant for mutant in MUTANTS if all(word in str(mutant) for word in words)]
    if not chosen:
        print(f"no bug mentions {' '.join(words)}")
        return 2
    began = time.perf_counter()
    results = (judge_for_people if sys.stdout.isatty() else judge_for_files)(chosen)
    found = sum(bool(result.found_by) for result in results)
    print(f"{found} of {len(results)} found, {time.perf_counter() - began:.0f} s")
    return int(found < len(results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

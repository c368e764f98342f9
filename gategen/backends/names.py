"""The names of a generated module: which are taken, and which thing has which."""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Iterable, Mapping, Set
from typing import Literal

import sympy as sp

from gategen.graph import fresh
from gategen.plan import FIRST_STEP, Plan
from gategen.spec.cell import Cell
from gategen.spec.functions import TABLE
from gategen.spec.language import Axes, Extent, factors, regrouped, shared
from gategen.spec.printer import Printer

HELPERS = ("clear", *(call.name for row in TABLE for call in (row.numpy, row.exact) if call and call.text))

SIZE_LETTERS = {"input": "I", "hidden": "H"}
FURTHER_LETTERS = {"heads": "N"}

# Names that the templates use, and Python itself; a name of the spec that is one of them gets a trailing
# underscore in the module.
WORDS = frozenset(
    """
    np NamedTuple Any Params States Grads Tape Buffers NAME EQUATIONS SIZES INPUTS STATES OUTPUTS SPEC_SHA256
    PARAMETERS parts init pack unpack forward backward step init_buffers params x tape d_y d_final
    initial lengths buffers training finished T B seen
    t y final grads dtype named seed sizes rng ones zip range reversed enumerate reuse check scratch self
    print float int len list tuple dict first first_backward start start_backward state state_t record count
    x_t y_t dims valid epsilon input_size hidden_size names rule now at last d k kept each memory over measure
    precision proper shapes stack array whole part d_params d_first d_start update running finished_t constant
    steps rest in_parts project type_of
    given os tiles first_tape first_step first_step_backward start_states start_states_backward kept_first
    finished_first d_inputs ends ts chunks backwards
    jvp backward_jvp tangent direction dot_params moved fitting Tangent PARAMS TAPE DIRECTION d_d_y d_d_final
    first_step_jvp first_step_backward_jvp start_states_jvp start_states_backward_jvp first_tangent dot_start
    gradients more
    cp Path SOURCE launch kernel here product row_sum row_max running_sum column_sums arithmetic
    compiled call cache ARITHMETIC lies gemm ml_dtypes run_c for_c ends_for_c by_block blockwise
    blockwise_back blockwise_sum apart
    weights weights_backward weights_jvp weights_backward_jvp precise stored accumulate
    along_rows down_columns over_matrices through_time
    STRETCHES stretches_of along_stretches linear_starts newton_starts improve
    parallel newton iterated linearized every_step by_stretch stretches starts stops iterations done change
    largest tolerance entries scan_back linearized_back every_step_back back carries
    one_launch sharing cooperative alive needed BLOCKS ROWS CHUNK THREADS blocks limits
    row_by_row row_blocks kept_numbers roomy
    """.split()
) | {*HELPERS, *keyword.kwlist, *dir(builtins), "where", "keep", "known"}

# Names that `init` and `init_buffers` use, beside the letters of the sizes; a further size that is one of
# them is an argument with a trailing underscore.
SIZE_WORDS = frozenset(
    "input_size hidden_size seed dtype rng k np cp proper shapes Params Buffers params filled blocks".split()
)


# Names that `forward` and `step` cannot take as arguments: those they have, and what they refer to.
GLOBALS = frozenset(
    """
    params x initial lengths tape buffers training x_t state np cp NamedTuple Any Params States Grads Tape
    Buffers init_buffers measure precision check memory over backwards chunks tiles project os first_step
    start_states forward launch kernel type_of here product row_sum row_max running_sum column_sums arithmetic
    in_parts
    run_c for_c ends_for_c weights weights_backward along_rows down_columns over_matrices
    parallel newton stretches_of along_stretches linear_starts newton_starts
    """.split()
) | {*HELPERS, *dir(builtins)}

# What a thing is, of those that have names.
Role = Literal[
    "memory",  # a buffer of the plan, an input, a state
    "field",  # of Params
    "field gradient",
    "given",  # what `forward` knows of the whole run: valid, count, training, running statistics
    "output",  # where there are several
    "first output",  # of the rule for the first step
    "tangent",  # of an output
    "first tangent",  # of an output at the first step
    "gradient",  # of an input, where it lies beside others
    "first gradient",  # of an input at the first step
    "kept",  # the gradient of a state, set aside
    "now",  # a state in a function for one step
    "next",  # the same behind that step
    "view",  # part of an array, or a weight as products want it
    "number",  # that is an array
    "scratch",
]


class Scope:
    """The names of one function, or of the module: each thing has one, and no two share one."""

    def __init__(
        self,
        taken: Iterable[str],
        sizes: dict[str, str],
        known: Mapping[tuple[Role, str, str], str] | None = None,
        words: Set[str] = WORDS,
    ) -> None:
        self.taken = set(taken)
        self.words = words  # of the language and of the templates
        self.sizes = sizes
        self.known = dict(known or {})  # by role, by what the thing is called in the plan, and by level
        self.divided = "{} // {}"  # how integers are divided
        self.widths: dict[sp.Expr, str] = {}  # as text; the same few are asked for again and again

    def new(self, wish: str) -> str:
        name = fresh(f"{wish}_" if wish in self.words else wish, self.taken)
        self.taken.add(name)
        return name

    def of(self, role: Role, thing: str, wish: str, level: str = "") -> str:
        """The one name of a thing; `level` where every level of a schedule has one of its own."""
        key = role, thing, level
        if key not in self.known:
            self.known[key] = self.new(wish)
        return self.known[key]

    def __getitem__(self, key: tuple[Role, str]) -> str:
        """The name of a thing that has one."""
        return self.known[*key, ""]

    def find(self, role: Role, thing: str) -> str:
        """The name of a thing, empty where it has none."""
        return self.known.get((role, thing, ""), "")

    def put(self, role: Role, thing: str, name: str) -> None:
        """Call a thing what it is called in every module."""
        self.known[role, thing, ""] = name

    def inner(self) -> Scope:
        """A scope inside this one."""
        made = Scope(self.taken, self.sizes, self.known, self.words)
        made.divided = self.divided
        return made

    def size(self, expr: sp.Expr) -> str:
        """`3 * H`, `H + I`: a width in the module's size letters."""
        if expr not in self.widths:
            found = sp.sympify(expr)
            shares = {s.name: self.letter(s.name) for s in found.free_symbols if shared(s.name)[0]}
            self.widths[expr] = Printer(rename={**self.sizes, **shares})(found)
        return self.widths[expr]

    def width(self, width: sp.Expr, axes: Axes = ()) -> str:
        """How many numbers a row has: `2 * H`, of a matrix `H * K`."""
        return " * ".join(f"({s})" if " " in s else s for s in map(self.letter, axes)) or self.size(width)

    def letter(self, size: Extent) -> str:
        """The letter of a size, `H, K` of a matrix; a number is its own."""
        if isinstance(size, tuple):
            return ", ".join(map(self.letter, size))
        parts = factors(regrouped(size))
        if len(parts) > 1:
            return " * ".join(map(self.letter, parts))
        (size,) = parts
        whole, count = shared(size)
        if whole:
            return self.divided.format(self.letter(whole), self.letter(count))
        return self.sizes.get(str(size), str(size))


def names_of(plan: Plan, words: Set[str] = WORDS) -> Scope:
    """The names that all functions of a module share, none of `words`. Rules share buffers by name only."""
    return own_names(plan, words) if plan.of is None else names_beside(plan, own_names(plan.of, words))


def names_beside(plan: Plan, names: Scope) -> Scope:
    """The names of a module of second derivatives: those of the module that it stands beside, and its own."""
    for f in (*plan.dots, *plan.computed_dots):
        names.of("field", f.name, f.name)
    for f in plan.gradients:
        names.of("field gradient", f.name, f"d_{f.name}")
    for f in (*plan.fields, *plan.computed):
        names.put("field gradient", f.name, names.new(f"dot_d_{f.name}"))
    for rule in plan.rules:
        for buffer in rule.buffers:
            names.of("memory", buffer, buffer)
    return names


def own_names(plan: Plan, words: Set[str] = WORDS) -> Scope:
    """The names of a module that stands by itself."""
    step, sizes = plan.step, size_letters(plan.cell)
    outputs = [name for name, _ in step.forward.graph.outputs]
    names = Scope({*words, *sizes.values()}, sizes, words=words)
    for f in (*plan.fields, *plan.computed):
        names.of("field", f.name, f.name)
    for f in (*plan.fields, *plan.computed):
        names.of("field gradient", f.name, f"d_{f.name}")
    mask = step.forward.graph.mask
    for word, value in vars(mask).items() if mask else ():
        names.put("memory", value.name, word)
        names.put("given", value.name, word)
    names.put("memory", plan.cell.inputs[0].name, "x")
    if len(outputs) == 1:
        names.put("memory", step.backward.slot[step.backward.graph.inputs[0]].home.name, "d_y")
    for name in outputs if len(outputs) > 1 else ():
        names.of("output", name, name)
    for name in outputs if plan.rule(FIRST_STEP) else ():
        names.of("first output", name, f"first_{name}")
    for rule in plan.rules:
        for buffer in rule.buffers:
            names.of("memory", buffer, buffer)
    return names


def size_letters(cell: Cell) -> dict[str, str]:
    """`H` for hidden, `I` for input, the first letter of a further size where it is free."""
    letters: dict[str, str] = {}
    for size in cell.sizes:
        wish = {**SIZE_LETTERS, **FURTHER_LETTERS}.get(size, size[0].upper())
        letters[size] = fresh(wish if wish not in WORDS else size.upper(), {*WORDS, *letters.values()})
    return letters


def size_argument(size: str, letters: Mapping[str, str]) -> str:
    """How `init` spells a size."""
    if size in SIZE_LETTERS:
        return f"{size}_size"
    wish = f"{size}_" if size in SIZE_WORDS or size in letters.values() else size
    return fresh(wish, letters.keys() - {size})


def contents_argument(cell: Cell, name: str) -> str:
    """How `init` spells a fixed parameter whose contents it asks for."""
    letters = size_letters(cell)
    taken = {*SIZE_WORDS, *letters.values(), *(size_argument(size, letters) for size in letters)}
    others = {array.name for array in cell.arrays} - {name}
    return fresh(f"{name}_" if name in taken else name, {*taken, *others})


def argument_name(cell: Cell, name: str) -> str:
    """What `forward` and `step` call an input: its own name, unless that means something else."""
    if name == cell.inputs[0].name:
        return "x"
    return fresh(f"{name}_" if name in GLOBALS else name, {s.name for s in cell.inputs} - {name})

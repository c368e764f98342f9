"""The Python module that calls C through ctypes, with the names and the results of the NumPy module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gategen.backends import interface
from gategen.backends.c.functions import letters_of
from gategen.backends.folding import call
from gategen.backends.module import Module, OneStep, Target, tape_buffers
from gategen.backends.names import WORDS, names_of
from gategen.plan import FIRST_STEP, Buffer, Plan

# Names that its template uses, beside those of all modules.
PYTHON_WORDS = frozenset(
    """
    kept ends statistics running d_initial array new entries passed address function library compile_to
    processor passing_folder LOCK FLAGS WISHES ARGUMENTS NOTHING SOURCE HEADER ctypes atexit shlex
    shutil subprocess threading cache lru_cache sha256 text_of machine TemporaryDirectory mkdtemp
    """.split()
)


class CtypesModule(Module):
    """The Python module that calls the functions of C, with the names of the NumPy module."""

    target = Target(
        title="C",
        numpy=True,
        cupy=False,
        xp="np",
        as_array="np.asarray(value)",
        dtypes="float32 or float64",
        parameters="params",
        finished_now="",
        real="{}",
        real_dtype="dtype",
        init_dtype="dtype",
        init_note="",
        kept_dtype="",
        shape="np.shape({})",
        broadcast="np.broadcast_to({}, {})",
        one_step="(B",
    )

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.names = names_of(plan, WORDS | PYTHON_WORDS)

    def one_step(self, states: Sequence[str]) -> OneStep:
        raise AssertionError("the functions of rules are in C")


def tape_of(module: CtypesModule, given: interface.Signature) -> tuple[interface.TapeItem, ...]:
    """What `forward` leaves behind, as Python holds it; what has a shape is C's."""
    item, names, plan = interface.TapeItem, module.names, module.plan
    items = [item(i.name, "np.ndarray", i.shape) for i in given.inputs]
    for state in given.states:
        shape = f"(T + 1, B, {state.size})"
        items.append(item(state.array, "np.ndarray", f"{shape}  the initial state first", shape))
    for buffer in tape_buffers(plan.step):
        shape = module.shape(buffer)
        items.append(item(names["memory", buffer.name], "np.ndarray", said_of(shape, buffer), shape))
    if rule := plan.rule(FIRST_STEP):
        for buffer in tape_buffers(rule):
            shape, name = module.shape(buffer).replace("(T, ", "("), f"first_{names['memory', buffer.name]}"
            items.append(item(name, "np.ndarray", f"{said_of(shape, buffer)}, of the first step", shape))
    items += [
        item("ends", "np.ndarray | None", "(B,) the lengths"),
        item("given", "bool", "whether the caller gave the initial states"),
    ]
    if given.extra:
        items.append(item("constant", "list[str]", "inputs that were (B, size), constant in time"))
    if given.buffers:
        items.append(item("training", "bool", "whether the batch gave the statistics"))
    return tuple(items)


def said_of(shape: str, buffer: Buffer) -> str:
    return f"{shape}  {', '.join(buffer.members)}"


def python_context(module: CtypesModule) -> dict[str, object]:
    """All that the template of the Python module prints."""
    given = interface.signature(module)
    graph = module.plan.step.forward.graph
    sources = [module.at(value, module.plan.step.forward) for _, value in graph.outputs]
    outputs = interface.output_records(module, sources, sources)
    passing = interface.Passing(
        outputs, interface.result_of(outputs, "np.ndarray"), tape_of(module, given), ()
    )
    gradients = [f"{i.argument}={i.result}" for i in given.inputs]
    values = {"given": "initial is not None", "training": "bool(training)"}
    kept = [t for t in passing.tape if t.shape]
    count = len(given.inputs)
    others = [t.name for t in passing.tape if not t.shape]
    order = [*others[:count], "*kept", *(values.get(t, t) for t in others[count:])]
    calls = replace(
        interface.calls_of(module, given, passing),
        memory=call("kept = memory(", ["tape", "dtype", *(f"{t.name}={t.shape}" for t in kept)]),
        grads=call("return Grads(", ["params=d_params", *gradients, "initial=d_initial"]),
        untape=call("(", [*others[:count], "*kept", *others[count:]], ") = tape"),
        tape=f"return {passing.result.value}, final, None if kept is None else Tape({', '.join(order)})",
    )
    return {
        **vars(given),
        **vars(passing),
        **run_lines(module, given, outputs),
        "kept": kept,
        "keeps_dtype": "" if given.buffers else "dtype = ",
        "made_final": call(
            "final = States(", [f"np.empty((B, {state.size}), dtype)" for state in given.states]
        ),
        "alone": True,
        "second": False,
        "singular": False,
        "by_gate": False,
        "params_fields": "Params._fields",
        "params_type": "Params",
        "calls": calls,
        "step_shapes": [
            (o.name, f"(B, {module.names.letter(value.size)})")
            for o, (_, value) in zip(outputs, graph.outputs, strict=True)
        ],
    }


def run_lines(
    module: CtypesModule, given: interface.Signature, outputs: Sequence[interface.OutputRecord]
) -> dict[str, object]:
    """The lines that call the functions of C, and what these take: sizes, integers and pointers."""
    letters, normed = letters_of(module), bool(given.buffers)
    size, each, results = "s" * len(letters), "p" * len(given.inputs), "p" * len(outputs)
    inputs = [i.name for i in given.inputs]
    ahead = ["dtype", "T", "B", *letters, "for_c(params)", *inputs]
    statistics = ["statistics", "bool(training)"] * normed
    gradients = f"*for_c(({', '.join(o.gradient for o in outputs)},))"
    targets = ["[*d_params]", *(i.gradient for i in given.inputs), "[*d_initial]"]
    names = [o.name for o in outputs]
    return {
        "arguments": (
            ("workspace", f"ss{size}"),
            ("step_workspace", f"s{size}"),
            ("forward", f"ss{size}p{each}pp{'pi' * normed}{results}ppp"),
            ("backward", f"ss{size}p{each}ip{'i' * normed}p{results}p{each}pp"),
            ("step", f"s{size}p{each}{'p' * normed}pp{results}p"),
        ),
        "run_forward": run_line(
            "forward", *ahead, "initial", "ends", *statistics, *names, "[*final]", "kept"
        ),
        "run_backward": run_line(
            "backward", *ahead, "given", "ends", *(["training"] * normed), "for_c(kept)", gradients, *targets
        ),
        "run_step": run_line(
            "step", "dtype", "B", *letters, "for_c(params)", *inputs, "None", "[*state]", *names
        ),
    }


def run_line(name: str, *arguments: str) -> str:
    """The line of Python that calls a function of C."""
    return call("run_c(", [f'"{name}"', *arguments])

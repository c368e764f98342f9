"""CuPy: a module, and the `.cu` file of the kernels that it launches between stacked matrix products.

text         words, expressions and lines of CUDA, and what a kernel is made of
sums         which threads share sums over axes of matrices
module       the module, and what of its memory is kept in the type that is computed with
kernels      a kernel for the pointwise ops of each phase, and those of sums
loops        all steps in one launch, where no unit waits for another
persistent   all steps in one launch, by blocks that wait for each other
rows         all steps in one launch, by blocks that take a row each
launches     what a module launches for a run, for people
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from gategen.backends.comments import Remark, listed
from gategen.backends.cupy.kernels import Kernels
from gategen.backends.cupy.loops import LinearizedText, LoopText
from gategen.backends.cupy.module import CupyModule
from gategen.backends.cupy.persistent import MOST_UNITS, Persistent
from gategen.backends.cupy.rows import Rows
from gategen.backends.cupy.text import Argument, CudaKernel, in_cuda, mentions, used_functions
from gategen.backends.folding import WIDTH, call, listing
from gategen.backends.functions import context
from gategen.backends.pointwise import filled, times
from gategen.backends.second import context as second_context
from gategen.graph import length
from gategen.plan import Plan, TimeLoop, loops, persists, row_by_row, second
from gategen.render import module_text, render
from gategen.spec.elementwise import called

ARRAYS = False
BOUNDS: dict[str, object] = {"most_units": f"2**{MOST_UNITS.bit_length() - 1}"}  # as templates print them


def files(plan: Plan) -> dict[str, str]:
    """The module and the kernels of a cell, by file name."""
    kernels, made = kernels_and_context(plan)
    name = f"{plan.cell.name}_cupy"
    return {f"{name}.py": module_text(made), f"{name}.cu": kernels_text(name, made, kernels)}


def kernels_and_context(plan: Plan) -> tuple[dict[str, list[CudaKernel]], dict[str, object]]:
    """The kernels by function, and what the templates print of the module."""
    kernels: dict[str, list[CudaKernel]] = {}
    return kernels, BOUNDS | context(CupyModule(loops(plan)), partial(Emitter, kernels))


def second_files(plan: Plan) -> dict[str, str]:
    """The module and the kernels of the second derivatives of a cell, by file name."""
    kernels: dict[str, list[CudaKernel]] = {}
    made = BOUNDS | second_context(CupyModule(loops(second(plan, ARRAYS))), partial(Emitter, kernels))
    name = f"{plan.cell.name}_cupy_jvp"
    return {f"{name}.py": module_text(made, "second"), f"{name}.cu": kernels_text(name, made, kernels)}


def kernels_text(name: str, made: Mapping[str, object], kernels: Mapping[str, list[CudaKernel]]) -> str:
    """The text of the kernels that the module of this name launches."""
    listed = [kernel for some in kernels.values() for kernel in some]
    places = (re.search(r"\bk_(\w+) = k\b", line) for kernel in listed for line in kernel.index)
    along = next((place[1] for place in places if place), "")
    used = used_functions(listed)
    cuda = {**made, "module": name, "kernels": listed, "functions": used, "along": along}
    return render("cupy/kernels.cu.jinja", cuda).rstrip() + "\n"


class Emitter(Kernels):
    """Those of loops that are one launch too."""

    def time_loop(self, loop: TimeLoop) -> None:
        """A kernel whose threads take an entry of a row each through all steps."""
        back, launch = self.schedule.graph.backwards, "through_time"
        ruled = self.module.plan.opens
        text = LoopText(self, loop, "first" if ruled and not back else "0")
        ends = (*loop.stores, *(then for _, then in loop.carries))  # on the way back others have no memory
        told = self.comment(*(ends if back else (op.out for op in loop.ops)))
        made = listed([v.name for v in dict.fromkeys((*ends, *loop.writes))])
        above = (f"Computes {made}.",) if back else told.text
        self.module.helpers.update((launch, "steps_of"))
        given: tuple[str, ...] = ()
        much = [times("B", text.width), *(self.stretches(loop, text) if loop.linearized else ())]
        if loop.linearized:
            launch = "along_stretches"
            given = ("const Index stretches", "const Index count", "ReadReal starts")
        lines = (text.index, text.loads, text.computes)
        self.emit(above, told, *lines, text.arguments, launch, much, ("B", "T", "first"), given)

    def stretches(self, loop: TimeLoop, text: LoopText) -> tuple[str, str]:
        """Say the line that finds where stretches of a loop start; how many steps they are of, its name."""
        back, cut = self.schedule.graph.backwards, loop.linearized
        assert cut is not None
        steps = "T - start" if self.module.plan.opens and not back else "T"
        name = f"{self.module.cell.name}_{self.way.name}_{len(self.kernels) + 3}"  # behind these two
        early = LinearizedText(self, loop, text.start)
        given = ("const Index stretches", "const Index count", "const Index known", "WriteReal starts")
        told = (
            "Stretches of the next kernel but one to first order: what each makes of what it begins with.",
        )
        lines = (early.index, early.loads, early.computes)
        words = ("B", "T", "first")
        passed = self.note(f"{name}_linearized", told, *lines, early.arguments, words, given)
        n = len(cut.states)
        head = f"hand_on<{n}, {'true' if back else 'false'}>"
        declared = ("const Index stretches", "const Index entries", "WriteReal starts", "WriteReal moved")
        told = ("What each stretch begins with, of what the one before it makes of its own beginning.",)
        line = f"{head}(stretches, entries, starts, moved);"
        self.note(f"{name}_starts", told, (), (), (line,), (), (), declared)
        self.module.helpers.add("stretches")
        entries = times("B", text.width)
        arguments = [f'"{name}"', "dtype", entries, f"{n}", "stretches", steps, *passed]
        if cut.linear:
            self.say(Remark(), call("starts = linear_starts(", arguments, width=self.room))
            if not back:
                self.say(Remark(), "iterations = int(starts is not None)")
        else:
            self.module.helpers.add("newton")
            self.say(Remark(), call("starts, iterations = newton_starts(", arguments, width=self.room))
        return steps, "starts"

    def persistent(self) -> tuple[str, str]:
        if row_by_row(self.schedule):
            return self.own_rows()
        if not persists(self.schedule):
            return super().persistent()
        text = Persistent(self)
        name = f"{self.module.cell.name}_{self.way.name}_{len(self.kernels) + 1}"
        self.module.helpers.update(("all_steps", "one_launch", "steps_of"))
        lines = (text.index, text.loads, tuple(map(in_cuda, text.computes)))
        words = "\n".join(line for some in lines for line in some)
        sizes = [word for word in ("T", "first", *self.names.sizes.values()) if mentions(words, word)]
        fixed = ["unsigned* arrived", "real* parts", "const Index kept", "const Index B"]
        declared = [*fixed, *(f"const Index {w}" for w in sizes), *(d for d, _ in text.arrays)]
        declared += ["const bool* __restrict__ finished"]
        parameters = tuple(filled(declared, WIDTH - 11))
        told = ("All steps in one launch: blocks share the units, and meet before products and sums.",)
        self.kernels.append(CudaKernel(name, told, parameters, *lines))
        held = f"({listing([f'({n}, {size})' for size, n in text.held.items()])})"
        passed = ["start" if word == "first" else word for word in sizes]
        arguments = [*passed, *(host for _, host in text.arrays), "finished"]
        shares = [f"({f.gates}, {self.size(length(f.size))}, {self.size(f.inner)})" for _, f in text.products]
        weights = f"({listing(shares)})"
        head = [f'"{name}"', "dtype", "blocks", "B", f"{len(text.sums)}", held, weights]
        self.say(Remark(), call("one_launch(", [*head, *arguments]))
        return call("blocks = sharing(", ["B", text.widest, f'"{name}"', "dtype", held]), text.widest

    def own_rows(self) -> tuple[str, str]:
        """A kernel whose blocks take a row each through all steps."""
        text = Rows(self)
        lines = (text.index, text.loads, tuple(map(in_cuda, text.computes)))
        words = "\n".join(line for some in lines for line in some)
        helpers = {"lanes_of", "over_lanes", "over_threads"} & {*called(words)}
        self.module.helpers.update(("all_steps", "row_by_row", "steps_of", *helpers))
        arguments = tuple(Argument(*array) for array in text.arrays)
        part = f"of a row of the batch its part of {text.axis}" if text.axis else "a row of the batch"
        told = (f"All steps in one launch: a block takes {part}, and keeps its values.",)
        room = tuple(map(self.size, text.room))
        much = ("blocks", f"({listing(room)})")
        self.emit(told, Remark(), *lines, arguments, "row_by_row", much, ("B", "T", "first"))
        return call("blocks = row_blocks(", ["B", f"({listing(room)})", "dtype"]), ""

"""The planner: what runs before, in and after the time loop, in which buffers, with which stacked products.

It knows no target language. `plan(cell)` runs the passes; each is a module that says what it decides:

    hoist      split a sum in the loop into the part that waits for the state and the part that does not
    retape     recompute in the backward step what is cheaper to compute than to save
    compose    write a gradient's chain of factors in one line
    ahead      compute what gradients are multiplied by for a few steps at once (for backends of whole arrays)
    ends       drop what nothing reads, give every promised value one of its own
    layout     stack parameters so that one product serves all gates, forwards and backwards
    groups     find the products that can be one
    analysis   what several of them ask of one graph, found once
    stages     cut each level (before, loop, after) into products and pointwise kernels
    share      name a subexpression that several ops of one kernel compute
    chains     how long values last, and which may take each other's memory
    place      give every value that outlives its kernel a slot in a buffer, in place where it can be
    write      the stages over those slots, neighbours in one call
    classify   recurrent, elementwise or linear
    second     the plan of second derivatives, from that of a cell

`data` holds the records, `pipeline` the order, and `text(plan)` prints the result.
"""

from gategen.plan.data import (
    FIRST_STEP,
    START_STATES,
    STEP,
    Buffer,
    ColumnSum,
    Field,
    Given,
    Home,
    InBuffer,
    InField,
    InGradient,
    Kernel,
    MatMul,
    OuterSum,
    Plan,
    Rule,
    Schedule,
    Slot,
    Stage,
    Sum,
    Weight,
    members_between,
    offset_rank,
)
from gategen.plan.layout import Told, sizes_told
from gategen.plan.pipeline import plan
from gategen.plan.second import second
from gategen.plan.text import text

__all__ = [
    "FIRST_STEP",
    "START_STATES",
    "STEP",
    "Buffer",
    "ColumnSum",
    "Field",
    "Given",
    "Home",
    "InBuffer",
    "InField",
    "InGradient",
    "Kernel",
    "MatMul",
    "OuterSum",
    "Plan",
    "Rule",
    "Schedule",
    "Slot",
    "Stage",
    "Sum",
    "Told",
    "Weight",
    "members_between",
    "offset_rank",
    "plan",
    "second",
    "sizes_told",
    "text",
]

"""The planner: what runs before, in and after the time loop, in which buffers, with which stacked products.

It knows no target language. `plan(cell)` runs the passes; each is a module that says what it decides:

    hoist      split a sum in the loop into the part that waits for the state and the part that does not
    narrow     compute on vectors what a line of matrices needs of vectors alone
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
    weights    how parameters that are computed are made, and their gradients pulled back
    classify   recurrent, elementwise or linear
    loops      the loop as one stage, where every entry goes through the steps alone (for CUDA)
    newton     the states of all steps at once, where nothing but arithmetic waits for the state
    second     the plan of second derivatives, from that of a cell

`data` holds the records, `pipeline` the order, and `text(plan)` prints the result.
"""

from gategen.plan.data import (
    FIRST_STEP,
    NEWTON,
    NEWTON_BACK,
    START_STATES,
    STEP,
    Buffer,
    ColumnSum,
    Contraction,
    Field,
    Given,
    Home,
    InBuffer,
    InField,
    InGradient,
    Kernel,
    Linearized,
    MatMul,
    Newton,
    OuterSum,
    Plan,
    Rule,
    RunningSum,
    Schedule,
    Shifted,
    Slot,
    Stage,
    Sum,
    TimeLoop,
    Weight,
    Weights,
    members_between,
    offset_rank,
)
from gategen.plan.layout import Told, lengths_told, sizes_told
from gategen.plan.loops import loops
from gategen.plan.overwritten import overwritten
from gategen.plan.phases import parted_by, persists, row_by_row
from gategen.plan.pipeline import plan
from gategen.plan.second import second
from gategen.plan.text import stage_text, text

__all__ = [
    "FIRST_STEP",
    "NEWTON",
    "NEWTON_BACK",
    "START_STATES",
    "STEP",
    "Buffer",
    "ColumnSum",
    "Contraction",
    "Field",
    "Given",
    "Home",
    "InBuffer",
    "InField",
    "InGradient",
    "Kernel",
    "Linearized",
    "MatMul",
    "Newton",
    "OuterSum",
    "Plan",
    "Rule",
    "RunningSum",
    "Schedule",
    "Shifted",
    "Slot",
    "Stage",
    "Sum",
    "TimeLoop",
    "Told",
    "Weight",
    "Weights",
    "lengths_told",
    "loops",
    "members_between",
    "offset_rank",
    "overwritten",
    "parted_by",
    "persists",
    "plan",
    "row_by_row",
    "second",
    "sizes_told",
    "stage_text",
    "text",
]

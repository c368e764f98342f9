"""Graphs: one step of a recurrence, made from a cell, differentiated, checked, run and shown.

    ops          values, ops, `Graph`
    builder      how a pass makes ops
    check        whether a graph is well formed
    flatten      Cell -> Graph
    levels       what runs before, in and after the time loop
    evaluate     the slow interpreter that everything is tested against
    text         graphs for people
    adjoint      Graph -> Graph: the backward step
    tangent      Graph -> Graph: the forward derivative

What other rooms use is here, but for the two derivatives. Nothing here knows of memory, kernels or target
languages.
"""

from gategen.graph.builder import Builder
from gategen.graph.check import check
from gategen.graph.evaluate import Run, evaluate, numeric
from gategen.graph.flatten import flatten, start
from gategen.graph.levels import AFTER, BEFORE, LOOP, levels
from gategen.graph.ops import (
    BatchSum,
    Carry,
    Graph,
    Length,
    Mask,
    Op,
    Outer,
    Pointwise,
    Product,
    Reduce,
    Role,
    Statistic,
    Value,
    common_size,
    derivative,
    fresh,
    length,
    values_in,
)
from gategen.graph.text import ranks, text

__all__ = [
    "AFTER",
    "BEFORE",
    "LOOP",
    "BatchSum",
    "Builder",
    "Carry",
    "Graph",
    "Length",
    "Mask",
    "Op",
    "Outer",
    "Pointwise",
    "Product",
    "Reduce",
    "Role",
    "Run",
    "Statistic",
    "Value",
    "check",
    "common_size",
    "derivative",
    "evaluate",
    "flatten",
    "fresh",
    "length",
    "levels",
    "numeric",
    "ranks",
    "start",
    "text",
    "values_in",
]

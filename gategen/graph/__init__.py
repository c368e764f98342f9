"""Graphs: one step of a recurrence, made from a cell, differentiated, checked, run and shown.

    ops          values, ops, `Graph`
    builder      how a pass makes ops
    check        whether a graph is well formed
    flatten      Cell -> Graph
    weights      Cell -> Graph: matrices that are computed of parameters
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
from gategen.graph.evaluate import Run, evaluate, numeric, with_computed
from gategen.graph.flatten import flatten, start
from gategen.graph.levels import AFTER, BEFORE, LOOP, levels
from gategen.graph.ops import (
    BatchSum,
    Carry,
    Contract,
    CumSum,
    Graph,
    How,
    Length,
    Mask,
    MatrixOp,
    Op,
    Outer,
    Pointwise,
    Product,
    Reduce,
    Role,
    Shift,
    Statistic,
    Value,
    axes,
    common_size,
    derivative,
    extent,
    fresh,
    length,
    shape_of,
    values_in,
)
from gategen.graph.text import ranks, text
from gategen.graph.weights import weights

__all__ = [
    "AFTER",
    "BEFORE",
    "LOOP",
    "BatchSum",
    "Builder",
    "Carry",
    "Contract",
    "CumSum",
    "Graph",
    "How",
    "Length",
    "Mask",
    "MatrixOp",
    "Op",
    "Outer",
    "Pointwise",
    "Product",
    "Reduce",
    "Role",
    "Run",
    "Shift",
    "Statistic",
    "Value",
    "axes",
    "check",
    "common_size",
    "derivative",
    "evaluate",
    "extent",
    "flatten",
    "fresh",
    "length",
    "levels",
    "numeric",
    "ranks",
    "shape_of",
    "start",
    "text",
    "values_in",
    "weights",
    "with_computed",
]

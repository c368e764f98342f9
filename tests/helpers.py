"""What the tests of graphs and derivatives share: random values for a graph, its gradients, complex step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gategen.graph import Graph, Run, Value, evaluate
from gategen.graph.adjoint import adjoint
from gategen.graph.tangent import tangent
from gategen.spec.cell import Cell
from gategen.spec.load import builtins
from gategen.spec.names import extent_of, names_of_size

Array = Any
Arrays = Mapping[str, Array]

CELLS = dict(builtins())
STEPS, BATCH = 4, 2
SIZES = {
    "input": 5,
    "hidden": 3,
    "rank": 6,
    "memory": 7,
    "projection": 8,
    "keys": 9,
    "slots": 10,
    "width": 11,
    "nodes": 12,
    "positions": 13,
}  # all distinct, and distinct from STEPS and BATCH
TINY = 1e-30
MINUTES = 600  # seconds that another process may take: a test is not decided by how busy a machine is


@dataclass(frozen=True)
class Case:
    """A graph with values for all it reads, and weights that make one number, the loss, of all it gives."""

    graph: Graph
    values: Arrays  # parameters, inputs (T, B, size) and states (B, size), by name
    weights: Arrays  # of the outputs (T, B, size) and of the final states (B, size), by name
    lengths: Array = None
    sizes: Mapping[str, int] = field(default_factory=lambda: SIZES)

    @property
    def steps(self) -> int:
        return next(self.values[v.name].shape[0] for v in self.graph.inputs)

    @property
    def free(self) -> list[str]:
        """What a gradient is wanted for."""
        return [v.name for v in self.graph.given if v not in self.graph.fixed]

    def moved(self, by: Arrays) -> "Case":
        return replace(self, values={**self.values, **{k: self.values[k] + d for k, d in by.items()}})


def random_case(
    graph: Graph,
    *,
    seed: int = 0,
    steps: int = STEPS,
    batch: int = BATCH,
    lengths: Any = None,
    scale: float = 0.5,
    sizes: Mapping[str, int] = SIZES,
) -> Case:
    """Everything random and nonzero; states between 0.1 and 0.9, so that they may be probabilities too."""
    rng = np.random.default_rng(seed)
    lengths = None if lengths is None else np.array(lengths)
    batch = batch if lengths is None else len(lengths)
    lead = (steps, batch)
    if any("heads" in names_of_size(size) for v in graph.values for size in v.shape):
        sizes = {**sizes, "heads": 2, "hidden": 2 * max(3, sizes["hidden"] // 2)}

    def shape(value: Value) -> tuple[int, ...]:
        return tuple(extent_of(size, sizes) for size in value.shape)

    values = {v.name: scale * rng.standard_normal(shape(v)) for v in graph.parameters}
    values |= {v.name: rng.standard_normal((*lead, *shape(v))) for v in graph.inputs}
    values |= {c.current.name: rng.uniform(0.1, 0.9, (batch, *shape(c.current))) for c in graph.states}
    values |= _statistics(graph, np.full(batch, steps) if lengths is None else lengths, steps, values)
    weights = {f"d_{name}": rng.standard_normal((*lead, *shape(v))) for name, v in graph.outputs}
    weights |= {f"final_d_{c.name}": rng.standard_normal((batch, *shape(c.current))) for c in graph.states}
    return Case(graph, values, weights, lengths, sizes)


def _statistics(graph: Graph, lengths: Array, steps: int, values: Arrays) -> dict[str, Array]:
    """What is given but not trained: positive numbers, and what batch normalisation reads of the lengths."""
    found: dict[str, Array] = {v.name: 0.5 + np.abs(values[v.name]) for v in graph.fixed}
    if (mask := graph.mask) is not None:
        found[mask.valid.name] = 1.0 * (np.arange(steps)[:, None] < lengths)[..., None]
        found[mask.count.name] = np.float64(max(lengths.sum(), 1))
        found[mask.training.name] = np.float64(1)
    return found


def run(case: Case) -> Run:
    """The graph on the values of the case."""
    given = {v.name: case.values[v.name] for v in (*case.graph.parameters, *case.graph.inputs)}
    initial = {c.name: case.values[c.current.name] for c in case.graph.states}
    return evaluate(case.graph, given, initial, sizes=case.sizes, steps=case.steps, lengths=case.lengths)


def loss(case: Case) -> Any:
    """The weighted sum of all outputs and final states."""
    done = run(case)
    total = sum((case.weights[f"d_{name}"] * done.outputs[name]).sum() for name, _ in case.graph.outputs)
    return total + sum((case.weights[f"final_d_{name}"] * final).sum() for name, final in done.final.items())


def backward(case: Case) -> Run:
    """The adjoint of the graph on the values of the forward run and the weights."""
    back = adjoint(case.graph)
    given = dict(run(case).values)
    given |= {
        v.name: case.weights[f"d_{name}"]
        for v, (name, _) in zip(back.inputs, case.graph.outputs, strict=False)
    }
    initial = {c.name: case.weights[f"final_{c.name}"] for c in back.states}
    return evaluate(back, given, initial, sizes=case.sizes, steps=case.steps, lengths=case.lengths)


def gradients(case: Case) -> dict[str, Array]:
    """The derivative of the loss by everything free, under the forward names."""
    done = backward(case)
    states = {c.current.name: done.final[f"d_{c.name}"] for c in case.graph.states}
    return {**done.sums, **done.outputs, **states}


def forward_derivative(case: Case, by: Arrays) -> Run:
    """The tangent of the graph on the values of the case, in the direction `by`."""
    push, graph = tangent(case.graph), case.graph
    free = [v for v in (*graph.parameters, *graph.inputs) if v not in graph.fixed]
    dots = (*push.parameters[len(graph.parameters) :], *push.inputs[len(graph.inputs) :])
    given = {v.name: case.values[v.name] for v in (*graph.parameters, *graph.inputs)}
    given |= {dot.name: by[v.name] for dot, v in zip(dots, free, strict=True)}
    initial = {c.name: case.values[c.current.name] for c in graph.states}
    initial |= {f"dot_{c.name}": by[c.current.name] for c in graph.states}
    return evaluate(push, given, initial, sizes=case.sizes, steps=case.steps, lengths=case.lengths)


def complex_step(case: Case, name: str) -> Array:
    """The derivative of the loss by every entry of one array, one entry at a time."""
    at = case.values[name]
    derivative = np.zeros(np.shape(at))
    for index in np.ndindex(derivative.shape):
        step = np.zeros(derivative.shape, complex)
        step[index] = 1j * TINY
        derivative[index] = loss(case.moved({name: step})).imag / TINY
    return derivative


def directions(case: Case, seed: int = 9) -> dict[str, Array]:
    """A random direction for everything free."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(np.shape(case.values[name])) for name in case.free}


def along(function: Callable[[Case], Any], case: Case, by: Arrays) -> Any:
    """The directional derivative of a function of a case, by complex step."""
    return function(case.moved({name: 1j * TINY * step for name, step in by.items()})).imag / TINY


def assert_close(found: Any, wanted: Any, tolerance: float, what: str = "") -> None:
    """Equal to within `tolerance` of the largest entry."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape, f"{what}: shape {found.shape}, not {wanted.shape}"
    if wanted.size:
        assert np.isfinite(found).all(), f"{what}: not finite"
        error = np.abs(found - wanted).max()
        assert error <= tolerance * max(np.abs(wanted).max(), 1e-3), f"{what}: off by {error}"


def assert_gradients_are_right(case: Case, tolerance: float = 1e-10) -> None:
    """Every entry of every gradient against complex step."""
    found = gradients(case)
    assert set(found) == set(case.free)
    for name in case.free:
        assert_close(found[name], complex_step(case, name), tolerance, name)


def cell_of(*equations: Any, **more: Any) -> Cell:
    """A cell for one test."""
    return Cell("cell", *equations, **more)


def with_stated(cell: Cell, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters, and those that hold what the cell states, of which `reference.py` needs none."""
    given = [a for a in cell.arrays if a.name in params]
    sizes = {axis: n for a in given for axis, n in zip(a.shape, params[a.name].shape, strict=True)}
    stated = {a.name: a.entries(sizes) for a in cell.arrays if a.contents and not a.trainable}
    return {**stated, **params}

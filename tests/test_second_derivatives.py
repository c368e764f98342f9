"""Derivatives of derivatives: the graphs that `adjoint` and `tangent` return can be differentiated again."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import (
    CELLS,
    TINY,
    Case,
    along,
    assert_close,
    backward,
    cell_of,
    directions,
    forward_derivative,
    gradients,
    random_case,
    run,
)

from gategen import (
    Eq,
    abs,
    cumsum,
    inputs,
    layer_norm,
    logsumexp,
    matrices,
    max_,
    relu,
    sign,
    softmax,
    softplus,
    sqrt,
    square,
    states,
    tanh,
)
from gategen.graph import Graph, Run, check, evaluate, flatten
from gategen.graph.adjoint import adjoint
from gategen.graph.tangent import tangent

SECOND = {
    "adjoint_of_tangent": lambda graph: adjoint(tangent(graph)),
    "tangent_of_adjoint": lambda graph: tangent(adjoint(graph)),
    "adjoint_of_adjoint": lambda graph: adjoint(adjoint(graph)),
    "tangent_of_tangent": lambda graph: tangent(tangent(graph)),
    "adjoint_of_adjoint_of_adjoint": lambda graph: adjoint(adjoint(adjoint(graph))),
}
CASES = {name: flatten(CELLS[name]) for name in ("gru", "lstm", "caru", "gru_concat", "libru_log", "sligru")}

x, h = inputs("x"), states("h")
W, U = matrices("W U")
a = W @ x + U @ h
CASES["many_functions"] = flatten(
    cell_of(
        Eq(
            h.next,
            tanh(layer_norm(a)) / sqrt(1 + square(h))
            + softplus(a)
            + relu(a) ** 2
            - abs(a) * sign(h - 0.5) * (0.1 + square(h)) ** 1.5,
        )
    )
)
CASES["words"] = flatten(
    cell_of(
        Eq(
            h.next,
            tanh(a) * cumsum(softmax(a)) * max_(a, x) + logsumexp(a) * tanh(max_(a) - cumsum(cumsum(h))),
        )
    )
)


@pytest.mark.parametrize("order", SECOND)
@pytest.mark.parametrize("name", CELLS)
def test_derivatives_of_derivatives_are_well_formed_and_can_be_run(name: str, order: str) -> None:
    for first in (False, True) if CELLS[name].first else (False,):
        graph = check(SECOND[order](flatten(CELLS[name], first)))
        done = run(random_case(graph, seed=6))
        for part in (done.outputs, done.final, done.sums):
            assert all(np.isfinite(value).all() for value in part.values())


def curvature_case(name: str) -> Case:
    """A case whose loss is half the weighted sum of the squares of all outputs, and of the final states."""
    return random_case(CASES[name], seed=7, lengths=(4, 2, 0))


def pulled(case: Case) -> Case:
    """The case with the gradient of that loss by its outputs and final states for weights."""
    done = run(case)
    outputs = {f"d_{name}": case.weights[f"d_{name}"] * y for name, y in done.outputs.items()}
    return replace(
        case,
        weights=outputs | {f"final_d_{k}": case.weights[f"final_d_{k}"] * v for k, v in done.final.items()},
    )


def pulled_along(case: Case, by: dict) -> dict[str, np.ndarray]:
    """The derivative of those weights in a direction."""
    done = forward_derivative(case, by)
    outputs = {
        f"d_{name}": case.weights[f"d_{name}"] * done.outputs[f"dot_{name}"] for name, _ in case.graph.outputs
    }
    return outputs | {
        f"final_d_{c.name}": case.weights[f"final_d_{c.name}"] * done.final[f"dot_{c.name}"]
        for c in case.graph.states
    }


def wanted(case: Case, by: dict) -> dict[str, np.ndarray]:
    """The Hessian times a direction, by complex step on the first derivative."""
    return {name: along(lambda moved, n=name: gradients(pulled(moved))[n], case, by) for name in case.free}


def states_of(case: Case) -> list[str]:
    return [carry.current.name for carry in case.graph.states]


def assert_all_close(found: dict, case: Case, by: dict) -> None:
    want = wanted(case, by)
    assert set(found) == set(want)
    for name, value in want.items():
        assert_close(found[name], value, 1e-9, name)


def run_on(graph: Graph, given: dict, initial: dict, case: Case) -> Run:
    return evaluate(graph, given, initial, sizes=case.sizes, steps=case.steps, lengths=case.lengths)


def given_directions(graph: Graph, push: Graph) -> dict[str, str]:
    """Which direction `dot_v` of a tangent belongs to which parameter or input `v` of its graph."""
    free = [v.name for v in (*graph.parameters, *graph.inputs) if v not in graph.fixed]
    dots = (*push.parameters[len(graph.parameters) :], *push.inputs[len(graph.inputs) :])
    return {dot.name: name for dot, name in zip(dots, free, strict=True)}


@pytest.mark.parametrize("name", CASES)
def test_the_adjoint_of_the_tangent_gives_hessian_products(name: str) -> None:
    """<gradient, direction> is one number of the tangent, and the gradient of that number is the product."""
    case = curvature_case(name)
    by = directions(case)
    first, second = pulled(case).weights, pulled_along(case, by)
    push = tangent(case.graph)
    back = adjoint(push)
    dots = given_directions(case.graph, push)
    given = {**forward_derivative(case, by).values, **{dot: by[name] for dot, name in dots.items()}}
    for seed, (output, _) in zip(back.inputs, push.outputs, strict=False):
        given[seed.name] = second[f"d_{output}"] if f"d_{output}" in second else first[f"d_{output[4:]}"]
    finals = [(c.name, f"final_{c.name}", f"final_d_{c.name[6:]}") for c in back.states]
    initial = {name: second[own] if own in second else first[other] for name, own, other in finals}
    done = run_on(back, given, initial, case)
    found = {name: {**done.sums, **done.outputs}[name] for name in dots.values()}
    assert_all_close(found | {c.current.name: done.final[f"d_{c.name}"] for c in case.graph.states}, case, by)


@pytest.mark.parametrize("name", CASES)
def test_the_tangent_of_the_adjoint_gives_hessian_products(name: str) -> None:
    """The derivative of the gradient in a direction, where the saved values move as they do forwards."""
    case = curvature_case(name)
    by = directions(case)
    first, second = pulled(case), pulled_along(case, by)
    back = adjoint(case.graph)
    push = tangent(back)
    moved = case.moved({name: 1j * TINY * step for name, step in by.items()})
    moving = {name: np.imag(value) / TINY for name, value in run(moved).values.items()}
    moving |= {name: step for name, step in by.items() if name not in states_of(case)}
    for seed, (output, _) in zip(back.inputs, case.graph.outputs, strict=False):
        moving[seed.name] = second[f"d_{output}"]
    saved = backward(first).values
    given = {v.name: saved[v.name] for v in (*back.parameters, *back.inputs)}
    given |= {dot: moving[name] for dot, name in given_directions(back, push).items()}
    initial = {c.name: first.weights[f"final_{c.name}"] for c in back.states}
    initial |= {f"dot_{c.name}": second[f"final_{c.name}"] for c in back.states}
    done = run_on(push, given, initial, case)
    found = {
        name: {**done.sums, **done.outputs}[f"dot_{name}"]
        for name in case.free
        if name not in states_of(case)
    }
    assert_all_close(found | {name: done.final[f"dot_d_{name}"] for name in states_of(case)}, case, by)


@pytest.mark.parametrize("name", ["gru", "lstm", "caru", "libru_log"])
def test_the_adjoint_of_the_adjoint_gives_hessian_products(name: str) -> None:
    """The gradient of <gradient, direction>; what reaches the saved values is pulled through the graph."""
    case = curvature_case(name)
    by = directions(case)
    graph, back = case.graph, adjoint(case.graph)
    twice = adjoint(back)
    given = dict(backward(pulled(case)).values)
    given |= {seed.name: by[name] for seed, (name, _) in zip(twice.inputs, back.outputs, strict=False)}
    given |= {seed.name: by[name] for seed, (name, _) in zip(twice.parameters, back.sums, strict=False)}
    initial = {c.name: by[c.name.removeprefix("d_d_")] for c in twice.states}
    done = run_on(twice, given, initial, case)

    tape = back.inputs[len(graph.outputs) :]
    taped = replace(graph, outputs=(*graph.outputs, *((f"saved_{v.name}", v) for v in tape)))
    weights = {f"d_saved_{v.name}": done.outputs[v.name] for v in tape}
    for seed, (output, _) in zip(back.inputs, graph.outputs, strict=False):
        weights[f"d_{output}"] = case.weights[f"d_{output}"] * done.outputs[seed.name]
    weights |= {
        f"final_{c.name}": case.weights[f"final_{c.name}"] * done.final[f"d_{c.name}"] for c in back.states
    }
    found = gradients(replace(case, graph=taped, weights=weights))
    for name, direct in done.sums.items():
        found[name] = found[name] + direct
    assert_all_close(found, case, by)

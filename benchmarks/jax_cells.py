"""The cells as one writes them in JAX: the products with the input for all steps at once, then `lax.scan`.

Parameters have the names and the stacking of the generated modules, and matrices are (in, out), as Flax has
them: `p["W"]` is the transpose of `params.W`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

sigmoid = jax.nn.sigmoid
relu = jax.nn.relu
Array = jax.Array
Parameters = dict[str, Array]
State = Any  # an array, or several
Step = Callable[[State, Array], tuple[State, Array]]


def gru_after(p: Parameters, x: Array) -> tuple[Array, Step]:
    def step(h: Array, g: Array) -> tuple[Array, Array]:
        (g_z, g_r, g_n), (u_z, u_r, u_n) = jnp.split(g, 3, -1), jnp.split(h @ p["U"] + p["c"], 3, -1)
        z, r = sigmoid(g_z + u_z), sigmoid(g_r + u_r)
        n = jnp.tanh(g_n + r * u_n)
        h = (1 - z) * n + z * h
        return h, h

    return x @ p["W"] + p["b"], step


def lstm(p: Parameters, x: Array) -> tuple[Array, Step]:
    def step(state: tuple[Array, Array], g: Array) -> tuple[tuple[Array, Array], Array]:
        h, c = state
        i, f, o, g = jnp.split(g + h @ p["U"], 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    return x @ p["W"] + p["b"], step


def mgu(p: Parameters, x: Array) -> tuple[Array, Step]:
    def step(h: Array, g: Array) -> tuple[Array, Array]:
        g_f, g_n = jnp.split(g, 2, -1)
        f = sigmoid(g_f + h @ p["U_f"])
        h = (1 - f) * h + f * jnp.tanh(g_n + (f * h) @ p["U_h"])
        return h, h

    return x @ p["W"] + p["b"], step


def ligru_nobn(p: Parameters, x: Array) -> tuple[Array, Step]:
    def step(h: Array, g: Array) -> tuple[Array, Array]:
        z, n = jnp.split(g + h @ p["U"], 2, -1)
        z = sigmoid(z)
        h = z * h + (1 - z) * relu(n)
        return h, h

    return x @ p["W"] + p["b"], step


def indrnn(p: Parameters, x: Array) -> tuple[Array, Step]:
    def step(h: Array, g: Array) -> tuple[Array, Array]:
        h = relu(g + p["u"] * h)
        return h, h

    return x @ p["W_h"] + p["b_h"], step


def mingru(p: Parameters, x: Array) -> tuple[Array, Step]:
    def step(h: Array, g: Array) -> tuple[Array, Array]:
        z, n = jnp.split(g, 2, -1)
        z = sigmoid(z)
        h = (1 - z) * h + z * n
        return h, h

    return x @ p["W"] + p["b"], step


def sru(p: Parameters, x: Array) -> tuple[Array, Step]:
    (b_f, b_r), (v_f, v_r) = jnp.split(p["b"], 2), jnp.split(p["v"], 2)

    def step(c: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
        g, x_t = given
        u, g_f, g_r = jnp.split(g, 3, -1)
        f, r = sigmoid(g_f + v_f * c + b_f), sigmoid(g_r + v_r * c + b_r)
        c = f * c + (1 - f) * u
        return c, r * c + (1 - r) * (3**0.5 * x_t)

    return (x @ p["W"], x), step


CELLS = {cell.__name__: cell for cell in (gru_after, lstm, mgu, ligru_nobn, indrnn, mingru, sru)}


def layer(name: str, hidden: int) -> Callable[[Parameters, Array], Array]:
    """The outputs (T, B, H) from parameters and inputs; states begin at 0."""

    def run(p: Parameters, x: Array) -> Array:
        given, step = CELLS[name](p, x)
        h = jnp.zeros((x.shape[1], hidden), x.dtype)
        return jax.lax.scan(step, (h, h) if name == "lstm" else h, given)[1]

    return run


def turned(arrays: Any) -> Any:
    """Matrices of `Params` for JAX, or its gradients for us."""
    return {name: array.T if array.ndim == 2 else array for name, array in arrays.items()}


def training(name: str, params: Any, x: Any, d_y: Any) -> tuple[Callable[[], Any], Callable[[], list[Any]]]:
    """A step, and its results in the order y, d_x, d_params."""
    run = layer(name, x.shape[2])

    @jax.jit
    def both(p: Parameters, x: Array, d_y: Array) -> tuple[Array, Parameters, Array]:
        y, pull = jax.vjp(run, p, x)
        return y, *pull(d_y)

    held = jax.block_until_ready(jax.tree.map(jnp.array, (turned(params._asdict()), x, d_y)))

    def step() -> Any:
        return jax.block_until_ready(both(*held))

    def results() -> list[Any]:
        y, d_p, d_x = step()
        return [y, d_x, *(turned(d_p)[name] for name in params._fields)]  # JAX sorts what is in a dict

    return step, results


def inference(name: str, params: Any, x: Any) -> Callable[[], Any]:
    """The forward pass alone."""
    run = jax.jit(layer(name, x.shape[2]))
    held = jax.block_until_ready(jax.tree.map(jnp.array, (turned(params._asdict()), x)))
    return lambda: jax.block_until_ready(run(*held))

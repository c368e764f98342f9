"""The built-in cells once more, by hand from the papers: what every other form of them is judged by.

Nothing here knows gategen. Each cell is a function `(F, p, x, s) -> new states` on batches `(B, size)`,
where `F` is `numpy_functions()` or `torch_functions()`, so that one transcription gives values,
complex-step derivatives (NumPy) and autograd's (torch). `run` is the loop over time. PyTorch is
imported only where `torch_functions` is called.
"""

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or torch.Tensor
Equations = Callable[[Any, Any, Array, Any], dict[str, Array]]

SHAPES = {"W": ("e", "d"), "U": ("e", "e"), "A": ("e", "e+d"), "b": ("e",), "c": ("e",), "g": ("e",)}


@dataclass(frozen=True)
class Reference:
    """One cell. Sizes are `d` (input), `e` (hidden) and sums of them, as in `"e+d"`."""

    name: str
    params: Mapping[str, tuple[str, ...]]
    states: Mapping[str, float]  # name -> value before the first step
    equations: Equations
    first: Equations | None = None  # instead of `equations` at the first step, when no initial state is given
    output: str = "h"  # the state whose new value is the output
    constants: Mapping[str, float] = field(default_factory=dict)  # `params` may override
    normalized: tuple[str, ...] = ()  # k: `W_k @ x` has batch statistics mu_k and v_k
    momentum: float = 0.05  # of the running statistics

    def shapes(self, d: int, e: int) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter for an input of size d and a hidden state of size e."""
        sizes = {"d": d, "e": e}

        def shape(axes: tuple[str, ...]) -> tuple[int, ...]:
            return tuple(sum(sizes[term] for term in axis.split("+")) for axis in axes)

        return {name: shape(axes) for name, axes in self.params.items()}

    def step(self, F: Any, p: Mapping[str, Any], x: Array, s: Mapping[str, Array]) -> dict[str, Array]:
        """The states after one ordinary step. x (B, d), each state (B, e); batch statistics stand in p."""
        return self.equations(F, self._names(p), x, SimpleNamespace(**s))

    def first_step(self, F: Any, p: Mapping[str, Any], x: Array, s: Mapping[str, Array]) -> dict[str, Array]:
        """The states after a first step from no given state."""
        return (self.first or self.equations)(F, self._names(p), x, SimpleNamespace(**s))

    def initial_buffers(self, e: int) -> dict[str, np.ndarray]:
        """Running statistics before any training: mean 0, variance 1, each (e,)."""
        means = {f"mu_{k}": np.zeros(e) for k in self.normalized}
        return means | {f"v_{k}": np.ones(e) for k in self.normalized}

    def _names(self, p: Mapping[str, Any]) -> SimpleNamespace:
        return SimpleNamespace(**{**self.constants, **p})


def run(
    F: Any,
    reference: Reference,
    params: Mapping[str, Array],
    x: Array,
    initial: Mapping[str, Array] | None = None,
    lengths: Any = None,
    buffers: MutableMapping[str, Array] | None = None,
    training: bool = True,
) -> tuple[Array, dict[str, Array]]:
    """The outputs (T, B, e) and the final states, each (B, e), of a whole sequence x (T, B, d).

    A finished sequence keeps its state and puts out 0. Cells with batch statistics take them from the valid
    steps when training, and then replace the entries of `buffers` if given; otherwise they use `buffers`.
    """
    T, B, e = x.shape[0], x.shape[1], next(iter(params.values())).shape[0]
    lengths = np.full(B, T) if lengths is None else np.asarray(lengths)
    alive = np.arange(T)[:, None, None] < lengths[:, None]  # (T, B, 1)
    p = {**params, **statistics(F, reference, params, x, alive, buffers, training)}
    state = dict(initial or {name: F.full((B, e), value, x) for name, value in reference.states.items()})
    outputs = []
    for t in range(T):
        step = reference.first_step if t == 0 and initial is None else reference.step
        new = step(F, p, x[t], state)
        state = {name: F.where(alive[t], new[name], state[name]) for name in state}
        outputs.append(F.where(alive[t], new[reference.output], 0.0))
    return F.stack(outputs) if outputs else F.full((0, B, e), 0.0, x), state


def statistics(
    F: Any,
    reference: Reference,
    params: Mapping[str, Array],
    x: Array,
    alive: np.ndarray,
    buffers: MutableMapping[str, Array] | None,
    training: bool,
) -> dict[str, Array]:
    """mu_k and v_k, each (e,), of `W_k @ x` over the valid positions; the running ones when not training."""
    if not training and reference.normalized:
        if buffers is None:
            raise ValueError(f"{reference.name}: evaluation needs buffers")
        return dict(buffers)
    N = max(int(alive.sum()), 1)
    found: dict[str, Array] = {}
    for k in reference.normalized:
        a = x @ params[f"W_{k}"].T
        mu = F.where(alive, a, 0.0).sum((0, 1)) / N
        v = F.where(alive, (a - mu) ** 2, 0.0).sum((0, 1)) / N
        found |= {f"mu_{k}": mu, f"v_{k}": v}
        if buffers is not None:
            m = reference.momentum
            buffers[f"mu_{k}"] = (1 - m) * buffers[f"mu_{k}"] + m * F.detach(mu)
            buffers[f"v_{k}"] = (1 - m) * buffers[f"v_{k}"] + m * F.detach(v) * (N / max(N - 1, 1))
    return found


# -------------------------------------------------------------------------------- functions


def numpy_functions() -> SimpleNamespace:
    """The functions for NumPy arrays, real or complex: whatever branches decides by the real part."""

    def where(condition: Array, a: Array, b: Array) -> Array:
        return np.where(condition, a, b)

    def relu(v: Array) -> Array:
        return where(v.real > 0, v, 0.0)

    def exp_minus_abs(v: Array) -> Array:
        return np.exp(where(v.real > 0, -v, v))

    def sigmoid(v: Array) -> Array:
        """Exact to the last digit where tiny, unlike (1 + tanh(v / 2)) / 2: libru takes its logarithm."""
        e = exp_minus_abs(v)
        return where(v.real > 0, 1.0, e) / (1.0 + e)

    def softplus(v: Array) -> Array:
        return relu(v) + np.log1p(exp_minus_abs(v))

    def full(shape: tuple[int, ...], value: float, like: Array) -> Array:
        return np.full(shape, value, dtype=like.dtype)

    return SimpleNamespace(
        sigmoid=sigmoid,
        tanh=np.tanh,
        relu=relu,
        exp=np.exp,
        log=np.log,
        sqrt=np.sqrt,
        softplus=softplus,
        log_sigmoid=lambda v: -softplus(-v),
        square=lambda v: v * v,
        concat=lambda *vs: np.concatenate(vs, axis=-1),
        sum=lambda v: v.sum(-1, keepdims=True),
        mean=lambda v: v.mean(-1, keepdims=True),
        where=where,
        stack=np.stack,
        full=full,
        detach=lambda v: v,
    )


def torch_functions() -> SimpleNamespace:
    """The functions for torch tensors, differentiable by autograd."""
    import torch

    def where(condition: Array, a: Array, b: Array) -> Array:
        return torch.where(torch.as_tensor(condition, device=a.device), a, b)

    def full(shape: tuple[int, ...], value: float, like: Array) -> Array:
        return torch.full(shape, value, dtype=like.dtype, device=like.device)

    return SimpleNamespace(
        sigmoid=torch.sigmoid,
        tanh=torch.tanh,
        relu=torch.relu,
        exp=torch.exp,
        log=torch.log,
        sqrt=torch.sqrt,
        softplus=lambda v: -torch.nn.functional.logsigmoid(-v),  # torch's own softplus turns linear at 20
        log_sigmoid=torch.nn.functional.logsigmoid,
        square=torch.square,
        concat=lambda *vs: torch.cat(vs, dim=-1),
        sum=lambda v: v.sum(-1, keepdim=True),
        mean=lambda v: v.mean(-1, keepdim=True),
        where=where,
        stack=torch.stack,
        full=full,
        detach=lambda v: v.detach(),
    )


# -------------------------------------------------------------------------------- cells

REFERENCES: dict[str, Reference] = {}


def cell(params: str, states: Mapping[str, float] | None = None, **more: Any) -> Any:
    """Enter the decorated equations into `REFERENCES`; a parameter's first letter says its shape."""

    def enter(equations: Equations) -> Equations:
        name = equations.__name__
        shapes = {param: SHAPES[param[0]] for param in params.split()}
        REFERENCES[name] = Reference(name, shapes, states or {"h": 0.0}, equations, **more)
        return equations

    return enter


# gru*: the side of z and the place of r are the whole difference between the first four.


@cell("W_z W_r W_h U_z U_r U_h b_z b_r b_h")
def gru(F, p, x, s):
    z = F.sigmoid(x @ p.W_z.T + s.h @ p.U_z.T + p.b_z)
    r = F.sigmoid(x @ p.W_r.T + s.h @ p.U_r.T + p.b_r)
    n = F.tanh(x @ p.W_h.T + (r * s.h) @ p.U_h.T + p.b_h)
    return {"h": (1 - z) * s.h + z * n}


@cell("W_z W_r W_h U_z U_r U_h")
def gru_cho(F, p, x, s):
    z = F.sigmoid(x @ p.W_z.T + s.h @ p.U_z.T)
    r = F.sigmoid(x @ p.W_r.T + s.h @ p.U_r.T)
    n = F.tanh(x @ p.W_h.T + (r * s.h) @ p.U_h.T)
    return {"h": z * s.h + (1 - z) * n}


@cell("W_z W_r W_h U_z U_r U_h b_z b_r b_h")
def gru_before(F, p, x, s):
    z = F.sigmoid(x @ p.W_z.T + s.h @ p.U_z.T + p.b_z)
    r = F.sigmoid(x @ p.W_r.T + s.h @ p.U_r.T + p.b_r)
    n = F.tanh(x @ p.W_h.T + (r * s.h) @ p.U_h.T + p.b_h)
    return {"h": z * s.h + (1 - z) * n}


@cell("W_z W_r W_h U_z U_r U_h b_z b_r b_h c_z c_r c_h")
def gru_after(F, p, x, s):
    z = F.sigmoid(x @ p.W_z.T + p.b_z + s.h @ p.U_z.T + p.c_z)
    r = F.sigmoid(x @ p.W_r.T + p.b_r + s.h @ p.U_r.T + p.c_r)
    n = F.tanh(x @ p.W_h.T + p.b_h + r * (s.h @ p.U_h.T + p.c_h))
    return {"h": (1 - z) * n + z * s.h}


@cell("A_r A_z A_h b_r b_z b_h")
def gru_concat(F, p, x, s):
    r = F.sigmoid(F.concat(s.h, x) @ p.A_r.T + p.b_r)
    z = F.sigmoid(F.concat(s.h, x) @ p.A_z.T + p.b_z)
    n = F.tanh(F.concat(r * s.h, x) @ p.A_h.T + p.b_h)
    return {"h": (1 - z) * s.h + z * n}


@cell("W_h U_z U_r U_h b_z b_r b_h")
def gru_type1(F, p, x, s):
    z = F.sigmoid(s.h @ p.U_z.T + p.b_z)
    r = F.sigmoid(s.h @ p.U_r.T + p.b_r)
    n = F.tanh(x @ p.W_h.T + (r * s.h) @ p.U_h.T + p.b_h)
    return {"h": (1 - z) * s.h + z * n}


@cell("W_h U_z U_r U_h b_h")
def gru_type2(F, p, x, s):
    z = F.sigmoid(s.h @ p.U_z.T)
    r = F.sigmoid(s.h @ p.U_r.T)
    n = F.tanh(x @ p.W_h.T + (r * s.h) @ p.U_h.T + p.b_h)
    return {"h": (1 - z) * s.h + z * n}


@cell("W_h U_h b_z b_r b_h")
def gru_type3(F, p, x, s):
    z = F.sigmoid(p.b_z)
    r = F.sigmoid(p.b_r)
    n = F.tanh(x @ p.W_h.T + (r * s.h) @ p.U_h.T + p.b_h)
    return {"h": (1 - z) * s.h + z * n}


# mgu*: f is both gates, and multiplies the candidate.


@cell("W_f W_h U_f U_h b_f b_h")
def mgu(F, p, x, s):
    f = F.sigmoid(x @ p.W_f.T + s.h @ p.U_f.T + p.b_f)
    n = F.tanh(x @ p.W_h.T + (f * s.h) @ p.U_h.T + p.b_h)
    return {"h": (1 - f) * s.h + f * n}


@cell("W_h U_f U_h b_f b_h")
def mgu1(F, p, x, s):
    f = F.sigmoid(s.h @ p.U_f.T + p.b_f)
    n = F.tanh(x @ p.W_h.T + (f * s.h) @ p.U_h.T + p.b_h)
    return {"h": (1 - f) * s.h + f * n}


@cell("W_h U_f U_h b_h")
def mgu2(F, p, x, s):
    f = F.sigmoid(s.h @ p.U_f.T)
    n = F.tanh(x @ p.W_h.T + (f * s.h) @ p.U_h.T + p.b_h)
    return {"h": (1 - f) * s.h + f * n}


@cell("W_h U_h b_f b_h")
def mgu3(F, p, x, s):
    f = F.sigmoid(p.b_f)
    n = F.tanh(x @ p.W_h.T + (f * s.h) @ p.U_h.T + p.b_h)
    return {"h": (1 - f) * s.h + f * n}


# caru*: l multiplies the candidate; the two differ in the first step alone.


def caru_first(F, p, x, s):
    return {"h": x @ p.W_n.T + p.b_n}


def caru_code_first(F, p, x, s):
    return {"h": F.tanh(x @ p.W_n.T + p.b_n)}


@cell("W_n W_z U_n U_z b_n b_z c_n c_z", first=caru_first)
def caru(F, p, x, s):
    a = x @ p.W_n.T + p.b_n
    n = F.tanh(s.h @ p.U_n.T + p.c_n + a)
    z = F.sigmoid(x @ p.W_z.T + p.b_z + s.h @ p.U_z.T + p.c_z)
    l = F.sigmoid(a) * z  # noqa: E741 (the paper's name)
    return {"h": (1 - l) * s.h + l * n}


@cell("W_n W_z U_n U_z b_n b_z c_n c_z", first=caru_code_first)
def caru_code(F, p, x, s):
    return caru(F, p, x, s)


# ligru and its kin: z multiplies the previous state.


@cell("W_z W_h U_z U_h g_z g_h b_z b_h", constants={"eps": 1e-5}, normalized=("z", "h"))
def ligru(F, p, x, s):
    q_z = p.g_z * (x @ p.W_z.T - p.mu_z) / F.sqrt(p.v_z + p.eps) + p.b_z
    q_h = p.g_h * (x @ p.W_h.T - p.mu_h) / F.sqrt(p.v_h + p.eps) + p.b_h
    z = F.sigmoid(q_z + s.h @ p.U_z.T)
    n = F.relu(q_h + s.h @ p.U_h.T)
    return {"h": z * s.h + (1 - z) * n}


@cell("W_z W_h U_z U_h b_z b_h")
def ligru_nobn(F, p, x, s):
    z = F.sigmoid(x @ p.W_z.T + s.h @ p.U_z.T + p.b_z)
    n = F.relu(x @ p.W_h.T + s.h @ p.U_h.T + p.b_h)
    return {"h": z * s.h + (1 - z) * n}


@cell("W_z W_h U_z U_h g_z g_h b_z b_h", constants={"eps": 1e-5}, normalized=("z", "h"))
def sligru(F, p, x, s):
    q_z = p.g_z * (x @ p.W_z.T - p.mu_z) / F.sqrt(p.v_z + p.eps) + p.b_z
    q_h = p.g_h * (x @ p.W_h.T - p.mu_h) / F.sqrt(p.v_h + p.eps) + p.b_h
    p_h = s.h @ p.U_h.T
    p_z = s.h @ p.U_z.T
    features = 2 * p_h.shape[-1]
    m = (F.sum(p_h) + F.sum(p_z)) / features
    v = (F.sum(F.square(p_h - m)) + F.sum(F.square(p_z - m))) / features
    z = F.sigmoid(q_z + (p_z - m) / F.sqrt(v + p.eps))
    n = F.relu(q_h + (p_h - m) / F.sqrt(v + p.eps))
    return {"h": z * s.h + (1 - z) * n}


@cell("W_z W_h U_z U_h b_z b_h", constants={"eps": 1e-11})
def libru(F, p, x, s):
    z = F.sigmoid(x @ p.W_z.T + F.log(s.h + p.eps) @ p.U_z.T + p.b_z)
    n = F.sigmoid(x @ p.W_h.T + F.log(s.h + p.eps) @ p.U_h.T + p.b_h)
    return {"h": z * s.h + (1 - z) * n}


@cell("W_z W_h U_z U_h b_z b_h", states={"h": -1.0})
def libru_log(F, p, x, s):
    z = F.sigmoid(x @ p.W_z.T + s.h @ p.U_z.T + p.b_z)
    n = F.log_sigmoid(x @ p.W_h.T + s.h @ p.U_h.T + p.b_h)
    return {"h": F.log(z * F.exp(s.h) + (1 - z) * F.exp(n))}


@cell("W_z W_h U_z U_h b_z b_h")
def libru_geomean(F, p, x, s):
    z = F.sigmoid(x @ p.W_z.T + s.h @ p.U_z.T + p.b_z)
    n = F.softplus(x @ p.W_h.T + s.h @ p.U_h.T + p.b_h)
    return {"h": z * s.h + (1 - z) * n}


# The classics.


@cell("W_i W_f W_g W_o U_i U_f U_g U_o b_i b_f b_g b_o", states={"h": 0.0, "c": 0.0})
def lstm(F, p, x, s):
    i = F.sigmoid(x @ p.W_i.T + s.h @ p.U_i.T + p.b_i)
    f = F.sigmoid(x @ p.W_f.T + s.h @ p.U_f.T + p.b_f)
    g = F.tanh(x @ p.W_g.T + s.h @ p.U_g.T + p.b_g)
    o = F.sigmoid(x @ p.W_o.T + s.h @ p.U_o.T + p.b_o)
    c = f * s.c + i * g
    return {"h": o * F.tanh(c), "c": c}


@cell("W_h U_h b_h")
def rnn(F, p, x, s):
    return {"h": F.tanh(x @ p.W_h.T + s.h @ p.U_h.T + p.b_h)}

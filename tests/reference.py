"""The built-in cells once more, by hand from the papers: what every other form of them is judged by.

Nothing here knows gategen. Each cell is a function `(F, p, x, s) -> new states and outputs` on batches
`(B, size)`, or `(B, rows, columns)` of a matrix for every sequence, where `F` is `numpy_functions()` or
`torch_functions()`, so that one transcription gives values, complex-step derivatives (NumPy) and autograd's
(torch); `p` holds parameters, constants and the further inputs of the step. `run` is the loop over time.
PyTorch is imported only where `torch_functions` is called.
"""

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or torch.Tensor
Equations = Callable[[Any, Any, Array, Any], dict[str, Array]]

MATRICES = {"W": "e,d", "U": "e,e", "A": "e,e+d"}  # every other parameter is a vector of size e


@dataclass(frozen=True)
class Reference:
    """One cell. Sizes are `d` (input), `e` (hidden), `q` and `r` (further), `c` (the share of a head), `1`,
    and sums as `"e+d"`.

    A state that is a matrix has two, as in `"e,q"`.
    """

    name: str
    params: Mapping[str, tuple[str, ...]]
    states: Mapping[str, float]  # name -> value before the first step
    equations: Equations
    first: Equations | None = None  # instead of `equations` at the first step, when no initial state is given
    outputs: tuple[str, ...] = ("h",)  # of what the equations give, new states or others
    inputs: tuple[str, ...] = ()  # beside x
    sizes: Mapping[str, str] = field(default_factory=dict)  # of inputs, states, outputs: d for x, else e
    constants: Mapping[str, float] = field(default_factory=dict)  # `params` may override
    normalized: tuple[str, ...] = ()  # k: `W_k @ x` has batch statistics mu_k and v_k
    momentum: float = 0.05  # of the running statistics
    fixed: tuple[str, ...] = ()  # parameters that training does not change
    start: Callable[[Any, Any], dict[str, Array]] | None = None  # states of parameters, of any row

    def lengths(self, d: int, e: int, q: int = 4, r: int = 5) -> dict[str, int]:
        """What the sizes are, where d is e if the cell adds its input to its state."""
        return {"d": e if self.sizes.get("x") == "e" else d, "e": e, "q": q, "r": r, "c": 1}

    def shapes(self, d: int, e: int, q: int = 4, r: int = 5) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter."""
        lengths = self.lengths(d, e, q, r)
        return {name: tuple(_length(axis, lengths) for axis in axes) for name, axes in self.params.items()}

    def widths(self, d: int, e: int, q: int = 4, r: int = 5) -> dict[str, tuple[int, ...]]:
        """The size of x, of every other input, state and output; two of a matrix."""
        lengths = self.lengths(d, e, q, r)
        given = {name: "e" for name in (*self.inputs, *self.states, *self.outputs)} | {"x": "d"} | self.sizes
        return {
            name: tuple(_length(part, lengths) for part in size.split(",")) for name, size in given.items()
        }

    def measured(self, x: Array, params: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
        """The widths, as the arrays tell them."""
        own = self.sizes.get("x", "d").split(",")
        found = {"d": 0, "e": 0, "q": 0, "r": 0} | dict(zip(own, x.shape[-len(own) :], strict=True))
        for name, axes in self.params.items():
            found |= {axis: n for axis, n in zip(axes, params[name].shape, strict=True) if axis in found}
        return self.widths(**found)

    def step(self, F: Any, p: Mapping[str, Any], x: Array, s: Mapping[str, Array]) -> dict[str, Array]:
        """States and outputs after one ordinary step. x (B, d), each state (B, size); all else is in p."""
        return self.equations(F, self._names(p), x, SimpleNamespace(**s))

    def starts(self, F: Any, p: Mapping[str, Any], B: int, x: Array) -> dict[str, Array]:
        """The states before the first step where none are given, for B sequences."""
        widths = self.measured(x, p)
        starts = {name: F.full((B, *widths[name]), value, x) for name, value in self.states.items()}
        trained = self.start(F, self._names(p)) if self.start else {}
        return {name: value + trained.get(name, 0) for name, value in starts.items()}

    def first_step(self, F: Any, p: Mapping[str, Any], x: Array, s: Mapping[str, Array]) -> dict[str, Array]:
        """States and outputs after a first step from no given state."""
        return (self.first or self.equations)(F, self._names(p), x, SimpleNamespace(**s))

    def initial_buffers(self, e: int) -> dict[str, np.ndarray]:
        """Running statistics before any training: mean 0, variance 1, each (e,)."""
        means = {f"mu_{k}": np.zeros(e) for k in self.normalized}
        return means | {f"v_{k}": np.ones(e) for k in self.normalized}

    def _names(self, p: Mapping[str, Any]) -> SimpleNamespace:
        return SimpleNamespace(**{**self.constants, **p})


def _length(axis: str, lengths: Mapping[str, int]) -> int:
    """The number that an axis such as `e+d`, `4e` or `1` stands for."""
    return 1 if axis == "1" else sum(int(term[:-1] or 1) * lengths[term[-1]] for term in axis.split("+"))


def run(
    F: Any,
    reference: Reference,
    params: Mapping[str, Array],
    x: Array,
    initial: Mapping[str, Array] | None = None,
    lengths: Any = None,
    buffers: MutableMapping[str, Array] | None = None,
    training: bool = True,
    inputs: Mapping[str, Array] | None = None,
) -> tuple[Any, dict[str, Array]]:
    """The output (T, B, size), a tuple of them where there are several, and the final states.

    x is (T, B, d), and so are the further `inputs`. A finished sequence keeps its state and puts out 0. Cells
    with batch statistics take them from the valid steps when training, and then replace the entries of
    `buffers` if given; otherwise they use `buffers`.
    """
    T, B = x.shape[0], x.shape[1]
    widths = reference.measured(x, params)
    lengths = np.full(B, T) if lengths is None else np.asarray(lengths)
    alive = np.arange(T)[:, None, None] < lengths[:, None]  # (T, B, 1)
    p = {**params, **statistics(F, reference, params, x, alive, buffers, training)}
    state = dict(initial or reference.starts(F, p, B, x))
    outputs: dict[str, list[Array]] = {name: [] for name in reference.outputs}
    for t in range(T):
        step = reference.first_step if t == 0 and initial is None else reference.step
        new = step(F, p | {name: inputs[name][t] for name in reference.inputs}, x[t], state)
        valid = {name: alive[t].reshape(B, *(1 for _ in widths[name])) for name in widths}
        state = {name: F.where(valid[name], new[name], state[name]) for name in state}
        for name, steps in outputs.items():
            steps.append(F.where(valid[name], new[name], 0.0))
    y = tuple(
        F.stack(steps) if steps else F.full((0, B, *widths[name]), 0.0, x) for name, steps in outputs.items()
    )
    return (y if len(y) > 1 else y[0]), state


def outputs_of(y: Any) -> tuple[Array, ...]:
    """The outputs that `run`, or a generated module, gives: a tuple also where there is one."""
    return y if isinstance(y, tuple) else (y,)


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

    def maximum(a: Array, b: Array) -> Array:
        return where(np.real(a) >= np.real(b), a, b)

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
        cos=np.cos,
        sin=np.sin,
        softplus=softplus,
        log_sigmoid=lambda v: -softplus(-v),
        silu=lambda v: v * sigmoid(v),
        elu=lambda v: where(v.real > 0, v, np.expm1(where(v.real > 0, 0.0, v))),
        abs=lambda v: where(v.real > 0, v, -v),
        square=lambda v: v * v,
        concat=lambda *vs: np.concatenate(vs, axis=-1),
        inv=np.linalg.inv,
        unit=lambda like: np.eye(len(like)),
        sum=lambda v: v.sum(-1, keepdims=True),
        mean=lambda v: v.mean(-1, keepdims=True),
        where=where,
        maximum=maximum,
        clip=lambda v, low, high: -maximum(-maximum(v, low), -high),
        real=np.real,
        largest=lambda v: v.real.max(-1, keepdims=True),
        step=lambda v: where(v.real > 0, 1.0, 0.0),
        surrogate=lambda f, psi: f + 1j * psi.imag if np.iscomplexobj(psi) else f + 0 * psi,
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
        cos=torch.cos,
        sin=torch.sin,
        softplus=lambda v: -torch.nn.functional.logsigmoid(-v),  # torch's own softplus turns linear at 20
        log_sigmoid=torch.nn.functional.logsigmoid,
        silu=torch.nn.functional.silu,
        elu=torch.nn.functional.elu,
        abs=torch.abs,
        square=torch.square,
        concat=lambda *vs: torch.cat(vs, dim=-1),
        inv=torch.linalg.inv,
        unit=lambda like: torch.eye(len(like), dtype=like.dtype, device=like.device),
        sum=lambda v: v.sum(-1, keepdim=True),
        mean=lambda v: v.mean(-1, keepdim=True),
        where=where,
        maximum=torch.maximum,
        clip=torch.clip,
        real=lambda v: v,
        stack=torch.stack,
        full=full,
        detach=lambda v: v.detach(),
        largest=lambda v: v.detach().amax(-1, keepdim=True),
        step=lambda v: (v > 0).to(v.dtype),
        surrogate=lambda f, psi: f + (psi - psi.detach()),
    )


# -------------------------------------------------------------------------------- cells

REFERENCES: dict[str, Reference] = {}


def cell(params: str, states: Mapping[str, float] | str = "h", **more: Any) -> Any:
    """Enter the decorated equations into `REFERENCES`; a parameter is a name, or `name:rows,columns`."""

    def axes(param: str) -> tuple[str, ...]:
        name, given, shape = param.partition(":")
        shape = shape if given else MATRICES.get(name[0], "e")
        return tuple(shape.split(",")) if shape else ()  # `alpha:` is a scalar

    def enter(equations: Equations) -> Equations:
        name = equations.__name__
        shapes = {param.partition(":")[0]: axes(param) for param in params.split()}
        starts = states if isinstance(states, Mapping) else dict.fromkeys(states.split(), 0.0)
        REFERENCES[name] = Reference(name, shapes, starts, equations, **more)
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


@cell("W_i W_f W_g W_o U_i U_f U_g U_o b_i b_f b_g b_o", states="h c")
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


# The LSTM's kin: the output gate looks at the new cell state.


@cell("W_i W_g W_o U_i U_g U_o b_i b_g b_o", states="h c")
def lstm_1997(F, p, x, s):
    i = F.sigmoid(x @ p.W_i.T + s.h @ p.U_i.T + p.b_i)
    g = F.tanh(x @ p.W_g.T + s.h @ p.U_g.T + p.b_g)
    o = F.sigmoid(x @ p.W_o.T + s.h @ p.U_o.T + p.b_o)
    c = s.c + i * g
    return {"h": o * F.tanh(c), "c": c}


@cell("W_i W_f W_g W_o U_i U_f U_g U_o b_i b_f b_g b_o p_i p_f p_o", states="h c")
def lstm_peephole(F, p, x, s):
    i = F.sigmoid(x @ p.W_i.T + s.h @ p.U_i.T + p.p_i * s.c + p.b_i)
    f = F.sigmoid(x @ p.W_f.T + s.h @ p.U_f.T + p.p_f * s.c + p.b_f)
    g = F.tanh(x @ p.W_g.T + s.h @ p.U_g.T + p.b_g)
    c = f * s.c + i * g
    o = F.sigmoid(x @ p.W_o.T + s.h @ p.U_o.T + p.p_o * c + p.b_o)
    return {"h": o * F.tanh(c), "c": c}


@cell(
    "W_i W_f W_g W_o R_i:e,q R_f:e,q R_g:e,q R_o:e,q P:q,e b_i b_f b_g b_o p_i p_f p_o",
    states="r c",
    outputs=("r",),
    sizes={"r": "q"},
)
def lstm_sak(F, p, x, s):
    i = F.sigmoid(x @ p.W_i.T + s.r @ p.R_i.T + p.p_i * s.c + p.b_i)
    f = F.sigmoid(x @ p.W_f.T + s.r @ p.R_f.T + p.p_f * s.c + p.b_f)
    g = F.tanh(x @ p.W_g.T + s.r @ p.R_g.T + p.b_g)
    c = f * s.c + i * g
    o = F.sigmoid(x @ p.W_o.T + s.r @ p.R_o.T + p.p_o * c + p.b_o)
    return {"r": (o * F.tanh(c)) @ p.P.T, "c": c}


@cell("W_i W_g W_o U_i U_g U_o b_i b_g b_o p_i p_o", states="h c")
def lstm_cifg(F, p, x, s):
    i = F.sigmoid(x @ p.W_i.T + s.h @ p.U_i.T + p.p_i * s.c + p.b_i)
    g = F.tanh(x @ p.W_g.T + s.h @ p.U_g.T + p.b_g)
    c = i * g + (1 - i) * s.c
    o = F.sigmoid(x @ p.W_o.T + s.h @ p.U_o.T + p.p_o * c + p.b_o)
    return {"h": o * F.tanh(c), "c": c}


@cell("W_f W_c U_f U_c b_f b_c", constants={"beta": 1.0})
def janet(F, p, x, s):
    forget = x @ p.W_f.T + s.h @ p.U_f.T + p.b_f
    g = F.tanh(x @ p.W_c.T + s.h @ p.U_c.T + p.b_c)
    return {"h": F.sigmoid(forget) * s.h + (1 - F.sigmoid(forget - p.beta)) * g}


@cell("W_m W_i W_f W_o W_u U_m U_i U_f U_o U_u b_i b_f b_o b_u", states="h c")
def mlstm(F, p, x, s):
    m = (x @ p.W_m.T) * (s.h @ p.U_m.T)
    i = F.sigmoid(x @ p.W_i.T + m @ p.U_i.T + p.b_i)
    f = F.sigmoid(x @ p.W_f.T + m @ p.U_f.T + p.b_f)
    o = F.sigmoid(x @ p.W_o.T + m @ p.U_o.T + p.b_o)
    u = F.tanh(x @ p.W_u.T + m @ p.U_u.T + p.b_u)
    c = f * s.c + i * u
    return {"h": o * F.tanh(c), "c": c}


@cell("W_i W_f W_z W_o U_i U_f U_z U_o b_i b_f b_z b_o", states="h c n m")
def slstm(F, p, x, s):
    i_pre = x @ p.W_i.T + s.h @ p.U_i.T + p.b_i
    f_pre = x @ p.W_f.T + s.h @ p.U_f.T + p.b_f
    z = F.tanh(x @ p.W_z.T + s.h @ p.U_z.T + p.b_z)
    o = F.sigmoid(x @ p.W_o.T + s.h @ p.U_o.T + p.b_o)
    log_f = F.log_sigmoid(f_pre) + s.m
    m = F.where(F.real(s.n) == 0, i_pre, F.maximum(i_pre, log_f))
    i, f = F.exp(i_pre - m), F.exp(log_f - m)
    c = f * s.c + i * z
    n = f * s.n + i
    return {"h": o * c / n, "c": c, "n": n, "m": m}


def in_blocks(F, R, v):
    """`R @ v` for each part of v with a block of its own; the blocks lie one below the other."""
    columns = R.shape[1]
    heads = v.shape[1] // columns
    rows = len(R) // heads
    return F.concat(
        *(v[:, k * columns : (k + 1) * columns] @ R[k * rows : (k + 1) * rows].T for k in range(heads))
    )


@cell(
    "W_i W_f W_z W_o R_i:e,c R_f:e,c R_z:e,c R_o:e,c b_i b_f b_z b_o",
    states="h c n m",
)
def slstm_heads(F, p, x, s):
    i_pre = x @ p.W_i.T + in_blocks(F, p.R_i, s.h) + p.b_i
    f_pre = x @ p.W_f.T + in_blocks(F, p.R_f, s.h) + p.b_f
    z = F.tanh(x @ p.W_z.T + in_blocks(F, p.R_z, s.h) + p.b_z)
    o = F.sigmoid(x @ p.W_o.T + in_blocks(F, p.R_o, s.h) + p.b_o)
    log_f = F.log_sigmoid(f_pre) + s.m
    m = F.where(F.real(s.n) == 0, i_pre, F.maximum(i_pre, log_f))
    i, f = F.exp(i_pre - m), F.exp(log_f - m)
    c = f * s.c + i * z
    n = f * s.n + i
    return {"h": o * c / n, "c": c, "n": n, "m": m}


@cell("W_g W_j b_g b_j")
def gilr(F, p, x, s):
    g = F.sigmoid(x @ p.W_g.T + p.b_g)
    return {"h": g * s.h + (1 - g) * F.tanh(x @ p.W_j.T + p.b_j)}


# One and two gates.


@cell("W_g W_c U_g U_c b_g b_c")
def ugrnn(F, p, x, s):
    g = F.sigmoid(x @ p.W_g.T + s.h @ p.U_g.T + p.b_g)
    return {"h": g * s.h + (1 - g) * F.tanh(x @ p.W_c.T + s.h @ p.U_c.T + p.b_c)}


@cell("W_c W_i W_f U_i U_f b_i b_f", states="h c")
def ran(F, p, x, s):
    i = F.sigmoid(x @ p.W_i.T + s.h @ p.U_i.T + p.b_i)
    f = F.sigmoid(x @ p.W_f.T + s.h @ p.U_f.T + p.b_f)
    c = i * (x @ p.W_c.T) + f * s.c
    return {"h": F.tanh(c), "c": c}


@cell("W_z W_r U_r U_h b_z b_r b_h", sizes={"x": "e"})
def mut1(F, p, x, s):
    z = F.sigmoid(x @ p.W_z.T + p.b_z)
    r = F.sigmoid(x @ p.W_r.T + s.h @ p.U_r.T + p.b_r)
    n = F.tanh((r * s.h) @ p.U_h.T + F.tanh(x) + p.b_h)
    return {"h": n * z + s.h * (1 - z)}


@cell("W_z W_k U_k b_z b_k")
def star(F, p, x, s):
    z = F.tanh(x @ p.W_z.T + p.b_z)
    k = F.sigmoid(x @ p.W_k.T + s.h @ p.U_k.T + p.b_k)
    return {"h": F.tanh((1 - k) * s.h + k * z)}


@cell("W_z W_a W_h w_z w_a b_z b_a")
def brc(F, p, x, s):
    z = F.sigmoid(x @ p.W_z.T + p.w_z * s.h + p.b_z)
    a = 1 + F.tanh(x @ p.W_a.T + p.w_a * s.h + p.b_a)
    return {"h": z * s.h + (1 - z) * F.tanh(x @ p.W_h.T + a * s.h)}


@cell("W_h U_h b_h")
def atr(F, p, x, s):
    projected, fed_back = x @ p.W_h.T, s.h @ p.U_h.T + p.b_h
    i, f = F.sigmoid(projected + fed_back), F.sigmoid(projected - fed_back)
    return {"h": i * projected + f * s.h}


@cell("W_g W_z U_g U_z b_g b_z")
def sgu(F, p, x, s):
    a = x @ p.W_g.T + p.b_g
    n = F.softplus(F.tanh((a * s.h) @ p.U_g.T) * s.h)
    z = F.clip(0.2 * (x @ p.W_z.T + p.b_z + s.h @ p.U_z.T) + 0.5, 0.0, 1.0)
    return {"h": (1 - z) * s.h + z * n}


@cell("W_r W_z W_h u_r u_z u_h b_r b_z b_h")
def indygru(F, p, x, s):
    r = F.sigmoid(x @ p.W_r.T + p.u_r * s.h + p.b_r)
    z = F.sigmoid(x @ p.W_z.T + p.u_z * s.h + p.b_z)
    n = F.tanh(x @ p.W_h.T + p.u_h * r * s.h + p.b_h)
    return {"h": z * s.h + (1 - z) * n}


@cell("W_z W_r W_h U_z U_r U_h b_z b_r b_h", inputs=("m",))
def zoneout_gru(F, p, x, s):
    return {"h": p.m * s.h + (1 - p.m) * gru(F, p, x, s)["h"]}


# Simple, residual, weighted by scalars.


@cell("W_h U_h b_h")
def irnn(F, p, x, s):
    return {"h": F.relu(x @ p.W_h.T + s.h @ p.U_h.T + p.b_h)}


@cell("W_h u b_h")
def indrnn(F, p, x, s):
    return {"h": F.relu(x @ p.W_h.T + p.u * s.h + p.b_h)}


@cell("W_h U_h b_h alpha: beta:")
def fastrnn(F, p, x, s):
    n = F.tanh(x @ p.W_h.T + s.h @ p.U_h.T + p.b_h)
    return {"h": F.sigmoid(p.alpha) * n + F.sigmoid(p.beta) * s.h}


@cell("W_h U_h b_z b_h zeta: nu:")
def fastgrnn(F, p, x, s):
    a = x @ p.W_h.T + s.h @ p.U_h.T
    z, n = F.sigmoid(a + p.b_z), F.tanh(a + p.b_h)
    return {"h": z * s.h + (F.sigmoid(p.zeta) * (1 - z) + F.sigmoid(p.nu)) * n}


@cell(
    "B:q,d P:e,q W_h U_h",
    states="h s",
    outputs=("h", "s"),
    sizes={"s": "q"},
    constants={"alpha": 0.95},
)
def scrn(F, p, x, s):
    slow = (1 - p.alpha) * (x @ p.B.T) + p.alpha * s.s
    return {"h": F.sigmoid(slow @ p.P.T + x @ p.W_h.T + s.h @ p.U_h.T), "s": slow}


@cell("W_h W_t U_h1 U_t1 U_h2 U_t2 U_h3 U_t3 b_h1 b_t1 b_h2 b_t2 b_h3 b_t3")
def rhn(F, p, x, s):
    a = F.tanh(x @ p.W_h.T + s.h @ p.U_h1.T + p.b_h1)
    t = F.sigmoid(x @ p.W_t.T + s.h @ p.U_t1.T + p.b_t1)
    h = (a - s.h) * t + s.h
    for U_h, U_t, b_h, b_t in ((p.U_h2, p.U_t2, p.b_h2, p.b_t2), (p.U_h3, p.U_t3, p.b_h3, p.b_t3)):
        a, t = F.tanh(h @ U_h.T + b_h), F.sigmoid(h @ U_t.T + b_t)
        h = (a - h) * t + h
    return {"h": h}


# Gates of the input alone, and linear recurrences.


@cell(
    "W_z W_f W_o V_z:e,d V_f:e,d V_o:e,d b_z b_f b_o",
    states="c xp",
    sizes={"xp": "d"},
)
def qrnn(F, p, x, s):
    z = F.tanh(x @ p.W_z.T + s.xp @ p.V_z.T + p.b_z)
    f = F.sigmoid(x @ p.W_f.T + s.xp @ p.V_f.T + p.b_f)
    o = F.sigmoid(x @ p.W_o.T + s.xp @ p.V_o.T + p.b_o)
    c = f * z + (1 - f) * s.c
    return {"c": c, "xp": x, "h": o * c}


@cell("W_c W_f W_r v_f v_r b_f b_r", states="c", sizes={"x": "e"}, constants={"alpha": 3**0.5})
def sru(F, p, x, s):
    f = F.sigmoid(x @ p.W_f.T + p.v_f * s.c + p.b_f)
    r = F.sigmoid(x @ p.W_r.T + p.v_r * s.c + p.b_r)
    c = f * s.c + (1 - f) * (x @ p.W_c.T)
    return {"c": c, "h": r * c + (1 - r) * p.alpha * x}


@cell("W_z W_h b_z b_h")
def mingru(F, p, x, s):
    z = F.sigmoid(x @ p.W_z.T + p.b_z)
    return {"h": (1 - z) * s.h + z * (x @ p.W_h.T + p.b_h)}


def positive_candidate(F, v):
    return F.where(F.real(v) >= 0, v + 0.5, F.sigmoid(v))


@cell("W_z W_h")
def mingru_log(F, p, x, s):
    z = F.sigmoid(x @ p.W_z.T)
    return {"h": (1 - z) * s.h + z * positive_candidate(F, x @ p.W_h.T)}


@cell("W_f W_i W_h")
def minlstm(F, p, x, s):
    f, i = F.sigmoid(x @ p.W_f.T), F.sigmoid(x @ p.W_i.T)
    return {"h": f / (f + i) * s.h + i / (f + i) * positive_candidate(F, x @ p.W_h.T)}


@cell("W_z W_f b_f")
def t_rnn(F, p, x, s):
    f = F.sigmoid(x @ p.W_f.T + p.b_f)
    return {"h": f * s.h + (1 - f) * (x @ p.W_z.T)}


@cell(
    "nu th gl Br:e,d Bi:e,d Cr:d,e Ci:d,e D:d",
    states="hr hi",
    outputs=("y",),
    sizes={"y": "d"},
)
def lru(F, p, x, s):
    modulus, phase, scale = F.exp(-F.exp(p.nu)), F.exp(p.th), F.exp(p.gl)
    real, imaginary = modulus * F.cos(phase), modulus * F.sin(phase)
    hr = real * s.hr - imaginary * s.hi + scale * (x @ p.Br.T)
    hi = real * s.hi + imaginary * s.hr + scale * (x @ p.Bi.T)
    return {"hr": hr, "hi": hi, "y": hr @ p.Cr.T - hi @ p.Ci.T + p.D * x}


def rglru_first(F, p, x, s):
    return {"h": F.sigmoid(x @ p.W_i.T + p.b_i) * x}


@cell("W_i W_a b_i b_a k", sizes={"x": "e"}, first=rglru_first)
def rglru(F, p, x, s):
    i, r = F.sigmoid(x @ p.W_i.T + p.b_i), F.sigmoid(x @ p.W_a.T + p.b_a)
    log_a = -8 * r * F.softplus(p.k)
    return {"h": F.exp(log_a) * s.h + F.sqrt(1 - F.exp(2 * log_a)) * (i * x)}


def griffin_first(F, p, x, s):
    return {"h": F.sigmoid(in_blocks(F, p.W_i, x) + p.b_i) * x}


@cell("W_i:e,c W_a:e,c b_i b_a k", sizes={"x": "e"}, first=griffin_first)
def griffin(F, p, x, s):
    i, r = F.sigmoid(in_blocks(F, p.W_i, x) + p.b_i), F.sigmoid(in_blocks(F, p.W_a, x) + p.b_a)
    log_a = -8 * r * F.softplus(p.k)
    return {"h": F.exp(log_a) * s.h + F.sqrt(1 - F.exp(2 * log_a)) * (i * x)}


# Dynamical systems.


@cell("W_h U_h b_h", constants={"ep": 0.1, "gamma": 0.01})
def antisymmetric(F, p, x, s):
    return {"h": s.h + p.ep * F.tanh(s.h @ (p.U_h.T - p.U_h) - p.gamma * s.h + x @ p.W_h.T + p.b_h)}


@cell(
    "W_h U_z U_y b_h",
    states="y z",
    outputs=("y",),
    constants={"dt": 0.1, "gamma": 2.7, "epsilon": 4.7},
)
def cornn(F, p, x, s):
    force = F.tanh(x @ p.W_h.T + s.z @ p.U_z.T + s.y @ p.U_y.T + p.b_h)
    z = s.z + p.dt * (force - p.gamma * s.y - p.epsilon * s.z)
    return {"y": s.y + p.dt * z, "z": z}


# Matrices that are computed of parameters.


@cell(
    "W_i W_f W_g W_o U_i U_f U_g U_o M_i:e,e M_f:e,e M_g:e,e M_o:e,e b_i b_f b_g b_o",
    states="h c",
    fixed=("M_i", "M_f", "M_g", "M_o"),
)
def weight_drop_lstm(F, p, x, s):
    i = F.sigmoid(x @ p.W_i.T + s.h @ (p.U_i * p.M_i).T + p.b_i)
    f = F.sigmoid(x @ p.W_f.T + s.h @ (p.U_f * p.M_f).T + p.b_f)
    g = F.tanh(x @ p.W_g.T + s.h @ (p.U_g * p.M_g).T + p.b_g)
    o = F.sigmoid(x @ p.W_o.T + s.h @ (p.U_o * p.M_o).T + p.b_o)
    c = f * s.c + i * g
    return {"h": o * F.tanh(c), "c": c}


@cell("W_h U_h b_h d", fixed=("d",))
def cayley_rnn(F, p, x, s):
    A, one = p.U_h - p.U_h.T, F.unit(p.U_h)
    a = x @ p.W_h.T + s.h @ (F.inv(one + A) @ (one - A) * p.d).T
    size = F.where(F.real(a) > 0, a, -a)
    return {"h": F.where(F.real(a) > 0, 0 * a + 1, 0 * a - 1) * F.relu(size + p.b_h)}


# Spikes.


@cell(
    "W_v U_v",
    states="z v a",
    outputs=("z",),
    constants={"alpha": 0.951229, "rho": 0.995012, "beta": 1.6, "theta": 0.5, "gamma": 0.3},
)
def li_spiking(F, p, x, s):
    v = p.alpha * s.v + x @ p.W_v.T + s.z @ p.U_v.T - s.z * p.theta
    a = p.rho * s.a + s.z
    u = (v - (p.theta + p.beta * a)) / p.theta
    ramp = F.where(F.real(u) < 0, (1 + F.clip(u, -1.0, 0.0)) ** 2, 2 - (1 - F.clip(u, 0.0, 1.0)) ** 2)
    return {"z": F.surrogate(F.step(u), p.gamma / 2 * ramp), "v": v, "a": a}


# Joint layer norms.


def layer_norm(F, v, gain, shift, eps):
    centred = v - F.mean(v)
    return gain * centred / F.sqrt(F.mean(F.square(centred)) + eps) + shift


@cell(
    "A:4e,d R:4e,e b:4e g_x:4e g_h:4e g_c b_c",
    states="h c",
    constants={"eps": 1e-5},
)
def ln_lstm(F, p, x, s):
    v = layer_norm(F, x @ p.A.T, p.g_x, 0.0, p.eps) + layer_norm(F, s.h @ p.R.T, p.g_h, 0.0, p.eps) + p.b
    e = s.h.shape[-1]
    i, g, f, o = (v[..., k * e : (k + 1) * e] for k in range(4))
    c = F.sigmoid(f) * s.c + F.sigmoid(i) * F.tanh(g)
    return {"h": F.sigmoid(o) * F.tanh(layer_norm(F, c, p.g_c, p.b_c, p.eps)), "c": c}


@cell("A:3e,d R:3e,e b:3e c:3e g_x:3e g_h:3e", constants={"eps": 1e-5})
def ln_gru(F, p, x, s):
    v = layer_norm(F, x @ p.A.T, p.g_x, 0.0, p.eps) + p.b
    w = layer_norm(F, s.h @ p.R.T, p.g_h, 0.0, p.eps) + p.c
    e = s.h.shape[-1]
    z = F.sigmoid(v[..., :e] + w[..., :e])
    r = F.sigmoid(v[..., e : 2 * e] + w[..., e : 2 * e])
    n = F.tanh(v[..., 2 * e :] + r * w[..., 2 * e :])
    return {"h": z * s.h + (1 - z) * n}


# Diagonal recurrent weights.


@cell("W_z W_r W_c a_z a_r a_c b_z b_r b_c")
def paragru(F, p, x, s):
    z = F.sigmoid(x @ p.W_z.T + p.a_z * s.h + p.b_z)
    r = F.sigmoid(x @ p.W_r.T + p.a_r * s.h + p.b_r)
    c = F.tanh(x @ p.W_c.T + p.a_c * r * s.h + p.b_c)
    return {"h": s.h + z * (c - s.h)}


@cell("W_f W_z W_o a_f a_z a_o c_f c_o b_f b_z b_o", states="h c")
def paralstm(F, p, x, s):
    f = F.sigmoid(x @ p.W_f.T + p.a_f * s.h + p.c_f * s.c + p.b_f)
    z = F.tanh(x @ p.W_z.T + p.a_z * s.h + p.b_z)
    c = z + f * (s.c - z)
    o = F.sigmoid(x @ p.W_o.T + p.a_o * s.h + p.c_o * c + p.b_o)
    return {"h": o * F.tanh(c), "c": c}


# A matrix for every sequence, values (e) by keys (q): outer products are written to it, and a query reads it.


def outer(v, k):
    """(B, e) and (B, q) to (B, e, q)."""
    return v[:, :, None] * k[:, None, :]


def look_up(S, k):
    """What a matrix (B, e, q) has for a key (B, q)."""
    return (S * k[:, None, :]).sum(-1)


@cell("W_q:q,d W_k:q,d W_v W_1:r,d W_2:q,r b_a:q", states="S", outputs=("y",), sizes={"S": "e,q"})
def gla(F, p, x, s):
    decay = F.exp(F.log_sigmoid(x @ p.W_1.T @ p.W_2.T + p.b_a) / 16)
    S = s.S * decay[:, None, :] + outer(x @ p.W_v.T, x @ p.W_k.T)
    return {"S": S, "y": look_up(S, x @ p.W_q.T)}


@cell("W_q:q,d W_k:q,d W_v", states="S", outputs=("y",), sizes={"S": "e,q"})
def retnet(F, p, x, s):
    S = (1 - 2**-5) * s.S + outer(x @ p.W_v.T, x @ p.W_k.T)
    return {"S": S, "y": look_up(S, x @ p.W_q.T)}


@cell(
    "W_f:q,d W_i:e,d W_o:q,d b_f:q b_i b_o:q",
    states="h",
    outputs=("y",),
    sizes={"h": "e,q"},
    constants={"gamma": 0.0},
)
def hgrn2(F, p, x, s):
    forget = p.gamma + (1 - p.gamma) * F.sigmoid(x @ p.W_f.T + p.b_f)
    h = s.h * forget[:, None, :] + outer(F.silu(x @ p.W_i.T + p.b_i), 1 - forget)
    return {"h": h, "y": look_up(h, F.sigmoid(x @ p.W_o.T + p.b_o))}


@cell("W_q:q,d W_k:q,d W_v", states="F z", outputs=("y",), sizes={"F": "e,q", "z": "q"})
def fast_weights(F, p, x, s):
    query, key = F.elu(x @ p.W_q.T) + 1, F.elu(x @ p.W_k.T) + 1
    fast, total = s.F + outer(x @ p.W_v.T, key), s.z + key
    return {"F": fast, "z": total, "y": look_up(fast, query) / (F.sum(total * query) + 1e-6)}


def unit(F, v):
    return v / F.sqrt(F.sum(F.square(v)) + 1e-6)


@cell("W_q:q,d W_k:q,d W_v W_b:1,d", states="S", outputs=("y",), sizes={"S": "e,q"})
def deltanet(F, p, x, s):
    key, new = unit(F, F.silu(x @ p.W_k.T)), F.silu(x @ p.W_v.T)
    rate = F.sigmoid(x @ p.W_b.T)
    old = look_up(s.S, key)
    S = s.S - outer(old, key) + outer(rate * new + (1 - rate) * old, key)
    return {"S": S, "y": look_up(S, unit(F, F.silu(x @ p.W_q.T)))}


@cell("W_q:q,d W_k:q,d W_v W_a:1,d W_b:1,d A_log: b_a:", states="S", outputs=("y",), sizes={"S": "e,q"})
def gated_deltanet(F, p, x, s):
    key, new = unit(F, F.silu(x @ p.W_k.T)), F.silu(x @ p.W_v.T)
    rate = F.sigmoid(x @ p.W_b.T)[:, :, None]
    decay = F.exp(-F.exp(p.A_log) * F.softplus(x @ p.W_a.T + p.b_a))[:, :, None]
    S = decay * (s.S - rate * outer(look_up(s.S, key), key)) + rate * outer(new, key)
    return {"S": S, "y": look_up(S, unit(F, F.silu(x @ p.W_q.T)))}


@cell(
    "W_q:q,d W_k:q,d W_v W_o W_i:1,d W_f:1,d b_q:q b_k:q b_v b_i: b_f: b_o",
    states="C n m",
    outputs=("h",),
    sizes={"C": "e,q", "n": "q", "m": "1"},
)
def matrix_lstm(F, p, x, s):
    query, value = x @ p.W_q.T + p.b_q, x @ p.W_v.T + p.b_v
    key = x @ p.W_k.T * len(p.b_k) ** -0.5 + p.b_k
    i_pre = x @ p.W_i.T + p.b_i
    log_f = F.log_sigmoid(x @ p.W_f.T + p.b_f) + s.m
    m = F.maximum(log_f, i_pre)
    i, f = F.exp(i_pre - m), F.exp(log_f - m)
    C = f[:, :, None] * s.C + i[:, :, None] * outer(value, key)
    n = f * s.n + i * key
    h = look_up(C, query) / F.maximum(F.abs(F.sum(n * query)), F.exp(-m))
    return {"C": C, "n": n, "m": m, "h": F.sigmoid(x @ p.W_o.T + p.b_o) * h}


@cell(
    "A_log:e,q W_B:q,e W_C:q,e W_1:r,e W_2:e,r b_t D",
    states="h",
    outputs=("y",),
    sizes={"x": "e", "h": "e,q"},
)
def mamba(F, p, x, s):
    step = F.softplus(x @ p.W_1.T @ p.W_2.T + p.b_t)
    A = -F.exp(p.A_log)
    h = F.exp(step[:, :, None] * A) * s.h + outer(step * x, x @ p.W_B.T)
    return {"h": h, "y": look_up(h, x @ p.W_C.T) + p.D * x}


@cell("W_u:e,d W_B:q,d W_C:q,d W_t:1,d A_log: b_t: D:", states="h", outputs=("y",), sizes={"h": "e,q"})
def mamba2(F, p, x, s):
    step = F.softplus(x @ p.W_t.T + p.b_t)
    u = x @ p.W_u.T
    h = F.exp(-step * F.exp(p.A_log))[:, :, None] * s.h + outer(step * u, x @ p.W_B.T)
    return {"h": h, "y": look_up(h, x @ p.W_C.T) + p.D * u}


@cell(
    "W_r:q,d W_k:q,d W_v W_g mu_x:d l_r:d l_k:d l_v:d l_g:d l_w:d l_d:q u:q g_y b_y "
    "A_r:r,d A_k:r,d A_v:r,d A_g:r,d A_w:r,d A_d:r,d B_r:d,r B_k:d,r B_v:d,r B_g:d,r B_w:d,r B_d:q,r",
    states="S x_1",
    outputs=("y",),
    sizes={"S": "e,q", "x_1": "d"},
)
def rwkv6(F, p, x, s):
    shift = s.x_1 - x
    mixed = x + shift * p.mu_x

    def shifted(lam, A, B):
        return x + shift * (lam + F.tanh(mixed @ A.T) @ B.T)

    r = shifted(p.l_r, p.A_r, p.B_r) @ p.W_r.T
    k = shifted(p.l_k, p.A_k, p.B_k) @ p.W_k.T
    v = shifted(p.l_v, p.A_v, p.B_v) @ p.W_v.T
    g = shifted(p.l_g, p.A_g, p.B_g) @ p.W_g.T
    d = p.l_d + F.tanh(shifted(p.l_w, p.A_w, p.B_w) @ p.A_d.T) @ p.B_d.T
    read = look_up(s.S, r) + F.sum(r * p.u * k) * v
    y = F.silu(g) * layer_norm(F, read, p.g_y, p.b_y, 64e-5)
    return {"S": s.S * F.exp(-F.exp(d))[:, None, :] + outer(v, k), "x_1": x, "y": y}


@cell(
    "W_r:q,d W_k:q,d W_v mu_r:d mu_k:d mu_v:d mu_w:d mu_a:d mu_g:d b_w:q b_a:q xi:q alpha:q rho:q g_y b_y "
    "A_w:r,d A_a:r,d A_g:r,d B_w:q,r B_a:q,r B_g:e,r",
    states="S x_1",
    outputs=("y",),
    sizes={"S": "e,q", "x_1": "d"},
)
def rwkv7(F, p, x, s):
    shift = s.x_1 - x
    r, k, v = (x + shift * p.mu_r) @ p.W_r.T, (x + shift * p.mu_k) @ p.W_k.T, (x + shift * p.mu_v) @ p.W_v.T
    d = p.b_w + F.tanh((x + shift * p.mu_w) @ p.A_w.T) @ p.B_w.T
    a = F.sigmoid(p.b_a + (x + shift * p.mu_a) @ p.A_a.T @ p.B_a.T)
    g = F.sigmoid((x + shift * p.mu_g) @ p.A_g.T) @ p.B_g.T
    kappa = k * p.xi / F.sqrt(F.sum(F.square(k * p.xi)) + 1e-24)
    key = k - k * p.alpha * (1 - a)
    removed = outer(look_up(s.S, kappa), a * kappa)
    S = s.S * F.exp(-np.exp(-0.5) * F.sigmoid(d))[:, None, :] - removed + outer(v, key)
    normed = layer_norm(F, look_up(S, r), p.g_y, p.b_y, 64e-5)
    return {"S": S, "x_1": x, "y": g * (normed + F.sum(r * key * p.rho) * v)}


# A memory of slots, and nodes of a graph.


def softmax(F, v):
    shares = F.exp(v - F.largest(v))
    return shares / F.sum(shares)


def ntm_start(F, p):
    return {"M": p.m_M, "r": p.m_r, "w_w": softmax(F, p.m_ww), "w_r": softmax(F, p.m_wr)}


def ntm_head(F, p, n, h, memory, before):
    """Equations 5 to 9 for the head n."""
    key, told = h @ p[f"K_{n}"].T + p[f"b_k{n}"], h @ p[f"V_{n}"].T + p[f"c_{n}"]
    lengths = F.square(memory).sum(-1) + p["eps"], F.sum(F.square(key)) + p["eps"]
    similarity = look_up(memory, key) / F.sqrt(lengths[0] * lengths[1])
    content = softmax(F, F.softplus(told[:, :1]) * similarity)
    gate = F.sigmoid(told[:, 1:2])
    at = gate * content + (1 - gate) * before
    shares = softmax(F, told[:, 2:5])
    ahead, behind = F.concat(at[:, 1:], at[:, :1]), F.concat(at[:, -1:], at[:, :-1])
    moved = shares[:, :1] * ahead + shares[:, 1:2] * at + shares[:, 2:] * behind
    return softmax(F, (1 + F.softplus(told[:, 5:])) * F.log(moved + p["eps"]))


@cell(
    "W_h U_h:e,r b_h K_w:r,e b_kw:r V_w:6c,e c_w:6c W_e:r,e b_e:r W_a:r,e b_a:r K_r:r,e b_kr:r "
    "V_r:6c,e c_r:6c m_M:r m_r:r m_ww:q m_wr:q",
    states="M r w_w w_r",
    outputs=("h", "r"),
    sizes={"M": "q,r", "r": "r", "w_w": "q", "w_r": "q"},
    constants={"eps": 1e-8},
    start=ntm_start,
)
def ntm(F, p, x, s):
    h = F.tanh(x @ p.W_h.T + s.r @ p.U_h.T + p.b_h)
    w_w = ntm_head(F, vars(p), "w", h, s.M, s.w_w)
    erase, add = F.sigmoid(h @ p.W_e.T + p.b_e), h @ p.W_a.T + p.b_a
    M = s.M * (1 - outer(w_w, erase)) + outer(w_w, add)
    w_r = ntm_head(F, vars(p), "r", h, M, s.w_r)
    return {"M": M, "r": (w_r[:, None, :] @ M)[:, 0], "w_w": w_w, "w_r": w_r, "h": h}


@cell(
    "W_r:5d,e W_u:5d,e W_c:5d,e U_r:5e,e U_u:5e,e U_c:5e,e b_r b_u b_c P:q,q Q:q,q",
    states="H",
    outputs=("H",),
    sizes={"x": "q,d", "H": "q,e"},
    fixed=("P", "Q"),
)
def dcgru(F, p, x, s):
    def diffused(v):
        """All powers side by side, as the paper stacks them."""
        return F.concat(v, p.P @ v, p.P @ p.P @ v, p.Q @ v, p.Q @ p.Q @ v)

    seen, before = diffused(x), diffused(s.H)
    r = F.sigmoid(seen @ p.W_r + before @ p.U_r + p.b_r)
    u = F.sigmoid(seen @ p.W_u + before @ p.U_u + p.b_u)
    c = F.tanh(seen @ p.W_c + diffused(r * s.H) @ p.U_c + p.b_c)
    return {"H": u * s.H + (1 - u) * c}


def around(F, v):
    """What lies before, at and behind every position, side by side; zeros beyond the ends."""
    rows = v.swapaxes(1, 2)
    before, behind = F.concat(0 * rows[..., :1], rows[..., :-1]), F.concat(rows[..., 1:], 0 * rows[..., :1])
    return F.concat(before.swapaxes(1, 2), v, behind.swapaxes(1, 2))


@cell(
    "W_z:3d,e W_r:3d,e W:3d,e U_z:3e,e U_r:3e,e U:3e,e",
    states="h",
    sizes={"x": "q,d", "h": "q,e"},
)
def conv_gru(F, p, x, s):
    seen, before = around(F, x), around(F, s.h)
    z, r = F.sigmoid(seen @ p.W_z + before @ p.U_z), F.sigmoid(seen @ p.W_r + before @ p.U_r)
    n = F.tanh(seen @ p.W + around(F, r * s.h) @ p.U)
    return {"h": (1 - z) * s.h + z * n}


@cell(
    "W_i:3d,e W_f:3d,e W_c:3d,e W_o:3d,e U_i:3e,e U_f:3e,e U_c:3e,e U_o:3e,e "
    "p_i:q,e p_f:q,e p_o:q,e b_i b_f b_c b_o",
    states="h c",
    sizes={"x": "q,d", "h": "q,e", "c": "q,e"},
)
def conv_lstm(F, p, x, s):
    seen, before = around(F, x), around(F, s.h)
    i = F.sigmoid(seen @ p.W_i + before @ p.U_i + p.p_i * s.c + p.b_i)
    f = F.sigmoid(seen @ p.W_f + before @ p.U_f + p.p_f * s.c + p.b_f)
    c = f * s.c + i * F.tanh(seen @ p.W_c + before @ p.U_c + p.b_c)
    o = F.sigmoid(seen @ p.W_o + before @ p.U_o + p.p_o * c + p.b_o)
    return {"h": o * F.tanh(c), "c": c}

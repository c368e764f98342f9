"""What to write instead of functions that people look for and that the language has no word for.

Each recipe reads the same in Python and in the text form.
"""

_SIGMOID = "sigmoid(v)"
_STACKED = "A @ concat(a, b), with one matrix A over both"
_INNER = "sum_(a * b)"

RECIPES = {
    **dict.fromkeys(("sigma", "sigm", "logistic", "expit"), _SIGMOID),
    **dict.fromkeys(("heaviside", "unit_step"), "step(v)"),
    **dict.fromkeys(("concatenate", "cat", "hstack", "vstack", "stack"), _STACKED),
    **dict.fromkeys(("dot", "inner", "vdot"), _INNER),
    **dict.fromkeys(("matmul", "mm", "linear", "Linear"), "W @ v"),
    **dict.fromkeys(
        ("ones", "zeros", "ones_like", "zeros_like", "full"), "a number: it stands for all entries"
    ),
    **dict.fromkeys(("max", "amax"), "max_(v) over the features, maximum(a, b) of two values"),
    **dict.fromkeys(("min", "amin"), "-max_(-v) over the features, minimum(a, b) of two values"),
    **dict.fromkeys(("round", "rint"), "v + 0.5 - mod(v + 0.5, 1)"),
    "cosh": "(exp(v) + exp(-v)) / 2",
    "dropout": "mask * v, with a further input mask",
    "floor": "v - mod(v, 1)",
    "log_softmax": "v - logsumexp(v)",
    "mish": "v * tanh(softplus(v))",
    "pow": "v**2",
    "power": "v**2",
    "relu6": "clip(v, 0, 6)",
    "selu": "1.0507 * elu(v, 1.67326)",
    "sinh": "(exp(v) - exp(-v)) / 2",
    "sum": "sum_(v)",
    "swish": "silu(v)",
    "tan": "sin(v) / cos(v)",
}

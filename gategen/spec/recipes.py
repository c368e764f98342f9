"""What to write instead of functions that people look for and that the language has no word for.

Each recipe reads the same in Python and in the text form.
"""

_SIGMOID, _STEP = "sigmoid(v)", "where(v > 0, 1, 0)"
_STACKED = "A @ concat(a, b), with one matrix A over both"
_INNER = "sum_(a * b)"
_EXP = "exp(clip(v - mean(v), -30, 30))"  # finite in float32, and so is the gradient of a quotient of it

RECIPES = {
    **dict.fromkeys(("sigma", "sigm", "logistic", "expit"), _SIGMOID),
    **dict.fromkeys(("step", "heaviside", "unit_step"), _STEP),
    **dict.fromkeys(("concatenate", "cat", "hstack", "vstack", "stack"), _STACKED),
    **dict.fromkeys(("dot", "inner", "vdot"), _INNER),
    **dict.fromkeys(("matmul", "mm", "linear", "Linear"), "W @ v"),
    **dict.fromkeys(
        ("ones", "zeros", "ones_like", "zeros_like", "full"), "a number: it stands for all entries"
    ),
    **dict.fromkeys(("round", "rint"), "v + 0.5 - mod(v + 0.5, 1)"),
    "cosh": "(exp(v) + exp(-v)) / 2",
    "cumsum": 'S @ v, with S = matrices("S", trainable=False, initial=lower)',
    "dropout": "mask * v, with a further input mask",
    "floor": "v - mod(v, 1)",
    "logsumexp": f"log(sum_({_EXP}))",
    "mish": "v * tanh(softplus(v))",
    "norm": "sqrt(sum_(v**2))",
    "pow": "v**2",
    "power": "v**2",
    "relu6": "clip(v, 0, 6)",
    "selu": "1.0507 * elu(v, 1.67326)",
    "sinh": "(exp(v) - exp(-v)) / 2",
    "softmax": f"e / sum_(e), with a gate e = {_EXP}",
    "sum": "sum_(v)",
    "swish": "silu(v)",
    "tan": "sin(v) / cos(v)",
}

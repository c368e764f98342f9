"""The smallest forms of cells that were once wrong: random ones (`tests/hunt.py`), and what readers found."""

from sympy import Min, Rational, pi

from gategen import (
    Cell,
    Eq,
    abs,
    batch_norm,
    clip,
    concat,
    constants,
    exp,
    gates,
    inputs,
    layer_norm,
    matrices,
    mean,
    minimum,
    scalars,
    sigmoid,
    softplus,
    sqrt,
    states,
    sum_,
    tanh,
    var,
    vectors,
    where,
)

x = inputs("x")
b = inputs("b")
m = inputs("m", size="hidden")
b_z, b_r, p = vectors("b_z b_r p")
h = states("h")
c = states("c", initial=sigmoid(Min(0, 1)))
v = states("v", initial=b_z**2 - mean(b_z))
n = states("n", size="steps")
r, z = gates("r z")
W = matrices("W", shape=("hidden", "input"))
U, V = matrices("U V")
beta = constants(beta=0.5)
alpha = scalars("alpha")

# SymPy writes abs(exp(v)) as exp(re(v)), where it cannot see that v is real.
real = Cell("real", Eq(h.next, tanh(W @ x) * abs(exp(-((1 + softplus(U @ h)) ** 1.4)))))

# Numbers that are no integers, decimals or fractions.
irrational = Cell(
    "irrational", Eq(r, sqrt(2) * h + p * (1 + pi) / 9), Eq(h.next, tanh(V @ r) + W @ x), output=r
)
folded = Cell(
    "folded",
    Eq(c.next, clip(U @ c + W @ x, minimum(pi / 4, -0.1), abs(beta)) * minimum(beta, 0.1) ** 2),
)

# The stem of b_z and b_r is what an input is called.
stem = Cell("stem", Eq(v.next, tanh(v * b_r + mean(b))))

# A parameter has the name that the carried gradient of n would have.
d_n_later = matrices("d_n_later", shape=("hidden", 1))
Q = matrices("Q", shape=("hidden", "steps"))
S = matrices("S", shape=(1, "steps"))
later = Cell(
    "later",
    Eq(n.next, Q.T @ m),
    Eq(h.next, S @ n),
    first=[Eq(h.next, d_n_later.T @ m), Eq(n.next, alpha)],
)

# The blocks of a matrix that is not trained are no statistics.
A = matrices("A", shape=("hidden", ("hidden", "input")), trainable=False)
frozen = Cell("frozen", Eq(h.next, tanh(batch_norm(V @ x, p) + A @ concat(h, x))))

# The output lies beside other values, and nothing runs after the loop.
R = matrices("R", shape=(5, "input"))
K = matrices("K", shape=("hidden", 5))
beside = Cell("beside", Eq(r, W @ x), Eq(h.next, tanh(K @ (R @ x) + h)), output=r)

# A sum of products, of which one has size 1.
T_1 = matrices("T_1", shape=("hidden", 1))
uneven = Cell("uneven", Eq(c.next, c / 2 + W @ x), Eq(h.next, m * tanh(T_1.T @ c + U.T @ h)))

# The gradient of an input of size 1 comes out of a product beside others.
u = inputs("u", size=1)
P_u = matrices("P_u", shape=(1, "steps"))
P_h = matrices("P_h", shape=("hidden", "steps"))
P = matrices("P", shape=("hidden", "steps"))
neighbours = Cell(
    "neighbours",
    Eq(r, P @ tanh(P_u.T @ u + P_h.T @ h.next)),
    Eq(h.next, U @ h / 2 + W @ x),
    output=r,
    first=[Eq(r, P @ (P_u.T @ u)), Eq(h.next, W @ x)],
)

# A next value that waits for no state meets statistics over time: its gradient is read behind the loop.
driven = Cell("driven", Eq(c.next, W @ x), Eq(h.next, tanh(batch_norm(c.next, 1, p)) + h / 2))

# A size is called like a value.
K_x = matrices("K_x", shape=("x", "hidden"))
measured = Cell("measured", Eq(h.next, tanh(W @ x**2 + mean(K_x @ h) * p)))

# Reductions of one number.
S_h = matrices("S_h", shape=(1, "hidden"))
single = Cell(
    "single",
    Eq(h.next, tanh(W @ x + U @ h) * (var(S @ n, alpha) + var(S_h @ h) + mean(beta))),
    Eq(n.next, n * var(alpha)),
)

# Names that CuPy modules have.
cp, launch, compiled = matrices("cp launch compiled")
number, row_sum = vectors("number row_sum")
words = Cell(
    "words_of_cupy",
    Eq(z, sigmoid(cp @ x + launch @ h + number)),
    Eq(h.next, z * h + (1 - z) * tanh(compiled @ (z * row_sum)) + mean(z)),
)

# A constant takes the width of what it makes 0.
one = constants(one=1)
vanishing = Cell(
    "vanishing",
    Eq(h.next, tanh(U @ ((1 - one) * h) + W @ x + V @ ((1 - one) * h + alpha))),
    Eq(c.next, c * sum_((1 - one) * x + alpha) + mean((1 - one) * h + alpha, c) * var((1 - one) * h, x)),
)

# Two gradients share a part that only reads a parameter, in a kernel that has rows.
frozen_b = vectors("frozen_b", trainable=False)
part = Cell("part", Eq(h.next, b_r * (frozen_b - 1) ** 2 * m))

# Nothing is computed in the loop.
idle = Cell("idle", Eq(z, W @ x), Eq(h.next, h), output=z)

# The derivative of a root is read off the root, which a finished sequence replaces by the state it keeps.
root = Cell("root", Eq(h.next, sqrt((U @ h + W @ x) ** 2 + 0.5)))

# A number and a vector of one feature, in an expression of parameters alone.
b_1 = vectors("b_1", size=1)
of_one = Cell("of_one", Eq(h.next, sigmoid(alpha + b_1) + tanh(W @ x)))

# A constant decides a condition.
decided = Cell(
    "decided", Eq(c.next, W @ x), Eq(h.next, where(beta >= 0, beta * h, c) + where(beta < 0, h, c))
)

# A state behind one step is the one before the next: what is cleared behind the lengths must not be a state.
cleared = Cell("cleared", Eq(h.next, tanh(W @ x) / (2 + h**2)), Eq(c.next, V @ (h.next * (U.T @ h))))

# The gradient of W @ x takes over memory that was cleared behind the lengths, and 0 * inf comes anew.
anew = Cell("anew", Eq(h.next, W @ x + sqrt(var(W @ x) + 0.1) + p))

# The name of the state's gradient is taken in the ordinary equations, and free in the first step.
x_T = states("x_T")
d_x_T = gates("d_x_T")
taken = Cell("taken", Eq(d_x_T, tanh(x_T)), Eq(x_T.next, V @ d_x_T), first=[Eq(x_T.next, W @ x)])

# A state is called as the letter of a size, which scratch memory of the first step was told apart by.
I = states("I")  # noqa: E741
k = states("k", size="input")
letter = Cell("letter", Eq(I.next, I), Eq(k.next, x), first=[Eq(I.next, I), Eq(k.next, sigmoid(W.T @ I) * x)])

# The stem of two gates is what the gradient of the outputs is called.
d_y_1, d_y_2 = gates("d_y_1 d_y_2")
W_x, U_h = matrices("W_x U_h")
seed = Cell(
    "seed",
    Eq(d_y_1, exp(b_r)),
    Eq(d_y_2, sigmoid(p)),
    Eq(h.next, tanh(W_x @ x + d_y_1 * h + d_y_2 * (U_h @ h))),
)

# What is not finite where the input is 0 goes into the statistics of a batch, and into a gradient.
inverse = Cell("inverse", Eq(h.next, tanh(batch_norm(W_x @ (x / (x**2)), p) + U_h @ h)))

# Inputs whose names are words of the module, each renamed to what another one is called.
count, count_ = inputs("count count_", size="hidden")
renamed = Cell("renamed", Eq(h.next, tanh(W_x @ x + count * 2 + count_ * (U_h @ h))))

# An input is called as what the first step gives back.
one_input = inputs("one", size="hidden")
one_more = Cell(
    "one_more",
    Eq(h.next, tanh(W_x @ x + one_input + U_h @ h)),
    first=[Eq(h.next, tanh(W_x @ x + 2 * one_input))],
)

# Sizes of which one is called as the argument for the other.
K, L = matrices("K", shape=("k", "hidden")), matrices("L", shape=("k_", "k"))
alike = Cell("alike", Eq(h.next, tanh(W_x @ x + U_h @ h) + mean(K @ h) + mean(L @ (K @ h))))

# A name that no line is long enough for.
long_h = states("a_state_with_a_name_as_long_as_a_line".ljust(99, "e"))
long_name = Cell("long_name", Eq(long_h.next, tanh(W_x @ x + U_h @ long_h)))

# The gradient of s is first read where the next one of h is computed, which has a memory of its own.
late_s = states("late_s")
U_s = matrices("U_s", shape=("hidden", "hidden"))
follower = Cell(
    "follower",
    Eq(h.next, h + late_s),
    Eq(late_s.next, h),
    Eq(c.next, W_x @ x + U_s @ late_s),
    output=late_s.next,
)

# A single value that is computed ahead for a few steps lies in scratch memory of its own width.
G = matrices("G", shape=("input", "hidden"))
i = states("i", size="input")
single = Cell("single", Eq(h.next, layer_norm(h, p) ** 2 / 4), Eq(i.next, G @ (m * h)))

# A stack that no product for all steps fills lies gate by gate as well, and is cleared behind the lengths.
s = states("s")
A_c, A_s = matrices("A_c A_s", shape=("hidden", ("hidden", "hidden")))
beside = Cell(
    "beside",
    Eq(h.next, tanh(c) + W_x @ x),
    Eq(c.next, tanh(A_c @ concat(c, h)) * (V @ h.next)),
    Eq(s.next, where(A_s @ concat(h.next, s) >= 0, h / (2 + s**2), h)),
)

# A gradient is read once more, by what the loop could wait for, where another one has taken its memory.
waiting = Cell(
    "waiting",
    Eq(r, layer_norm(U.T @ h, p) - m),
    Eq(h.next, sigmoid(W_x @ x) * h),
    Eq(z, G @ r),
    output=z,
)

# Initial states of two sizes, whose scratch memory on the way back is not that of the way there.
b_e, b_f = vectors("b_e", size="memory"), vectors("b_f")
e, f = states("e", size="memory", initial=alpha * tanh(b_e)), states("f", initial=alpha * tanh(b_f))
starting = Cell("starting", Eq(f.next, tanh(W_x @ x + U_h @ f)), Eq(e.next, e * mean(f)))

# Only an input tells a size, and nothing else is read of it.
told = Cell("told", Eq(h.next, h / 2 + mean(x)), Eq(z, h.next * m))

# A single value that is computed ahead lies in no stack with wider ones.
b_one, quota = vectors("b_one", size=1), gates("part")
W_part = matrices("W_part", shape=("hidden", "hidden"))
quotient = Cell(
    "quotient",
    Eq(h.next, h + mean(x)),
    Eq(quota, W_part @ (b_one * h / (b_one**2 + Rational(1, 1000)))),
    output=(quota,),
)

# A product reads some columns of an array and writes others.
W_turn, V_turn = matrices("W_turn V_turn")
turn = states("turn")
taking_turns = Cell("taking_turns", Eq(turn.next, where(W_turn @ x > 0, 1, 0) * (W_turn @ (V_turn @ x))))

# The gradient of an input is called what the gradients of initial states are.
given = inputs("initial")
begun = Cell("begun", Eq(h.next, W @ given))

# All steps in one launch, where each row of a matrix has a number of its own.
matrix = inputs("X", size=("hidden", "keys"))
held = states("held", size=("hidden", "keys"))
W_c = vectors("W_c", size="keys")
by_rows_at_once = Cell("by_rows_at_once", Eq(held.next, b_f * held + matrix + W_c))

# The function of a choice between two integers.
chosen = Cell("chosen", Eq(h.next, (W @ x) * tanh(where(h < 0.1, 1, 2))))

"""Leaky integrate-and-fire neurons with adaptive thresholds, the LSNN (Bellec et al. 2018, arXiv:1803.09574).

z is the spike, v the voltage, a the adaptation of the threshold; u is by how much the voltage is above the
threshold, in parts of `theta`. The derivative of a spike by u is taken to be gamma*max(0, 1 - |u|), which is
that of gamma*c*(1 - |c|/2) with c = clip(u, -1, 1). Neurons may be connected with themselves, and there is
neither a refractory period nor a delay. The defaults of alpha and rho are decays of 20 and of 200 steps.
"""

from gategen import Cell, Eq, abs, constants, gates, hard_tanh, inputs, matrices, states, step, surrogate

x = inputs("x")
z, v, a = states("z v a")
W_v, U_v = matrices("W_v U_v")
u, c = gates("u c")
alpha, rho, beta = constants(alpha=0.951229, rho=0.995012, beta=1.6)
theta, gamma = constants(theta=0.5, gamma=0.3)

li_spiking = Cell(
    "li_spiking",
    Eq(v.next, alpha * v + W_v @ x + U_v @ z - theta * z),
    Eq(a.next, rho * a + z),
    Eq(u, (v.next - theta - beta * a.next) / theta),
    Eq(c, hard_tanh(u)),
    Eq(z.next, surrogate(step(u), gamma * c * (1 - abs(c) / 2))),
    title="Leaky integrate-and-fire neurons with adaptive thresholds (LSNN)",
    reference="G. Bellec, D. Salaj, A. Subramoney, R. Legenstein, W. Maass 2018, Long short-term memory and "
    "learning-to-learn in networks of spiking neurons, arXiv:1803.09574; G. Bellec et al. 2020, A solution "
    "to the learning dilemma for recurrent networks of spiking neurons, Nature Communications 11:3625",
)

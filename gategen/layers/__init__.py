"""Layers over a generated module: stacked, in both directions, with dropout between them; of either backend.

    from gategen.layers import RNN
    from generated import gru_numpy

    net = RNN(gru_numpy, input_size=8, hidden_size=32, num_layers=2, bidirectional=True, seed=0)
    y, final = net(x, lengths=lengths)  # x (T, B, 8) -> y (T, B, 64), final.h (4, B, 32)
    grads = net.backward(d_y)  # grads.params, grads.x, grads.initial, grads.inputs
    for name, parameter in net.parameters().items():
        parameter -= 0.01 * grads.params[name]

Shapes, the order of layers and directions, and dropout are those of `torch.nn.GRU`. All arithmetic is the
module's; what is here arranges arrays, and finds in the module what it must know. It imports nothing of the
rest of gategen, and neither SymPy nor Jinja.
"""

from gategen.layers.rnn import RNN, Grads

__all__ = ["RNN", "Grads"]

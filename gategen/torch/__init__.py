"""Cells as modules of PyTorch: `RNN` in place of `torch.nn.GRU` and `torch.nn.LSTM`, `RNNCell` for a step.

Needs the extra `torch`. SymPy and Jinja are imported only where a cell must be compiled.
"""

from gategen.torch.rnn import RNN, RNNCell

__all__ = ["RNN", "RNNCell"]

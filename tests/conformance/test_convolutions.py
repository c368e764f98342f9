"""Convolutions are those of PyTorch, with as much padding as makes the result as long."""

import numpy as np
import pytest
import torch

import gategen
from gategen import Cell, Eq, conv, gates, inputs, matrices, states

T, B, I, H = 2, 3, 4, 5  # noqa: E741


@pytest.mark.parametrize("extents", [(7,), (6, 4)])
@pytest.mark.parametrize("width", [1, 3, 5])
def test_a_convolution_and_its_gradients(extents, width):
    axes = ("height", "width")[: len(extents)]
    x, h, y = inputs("x", size=(*axes, "input")), states("h", size=(*axes, "hidden")), gates("y")
    K = matrices("K", shape=(("input",) * width ** len(axes), "hidden"))
    module = gategen.compile(Cell("cell", Eq(y, conv(x, K, over=axes)), Eq(h.next, h + y), output=y))
    rng = np.random.default_rng(0)
    given, d_y = rng.standard_normal((T, B, *extents, I)), rng.standard_normal((T, B, *extents, H))
    kernel = rng.standard_normal((*(width for _ in axes), I, H))
    params = module.pack({"K": kernel.reshape(-1, H)})
    found, _, tape = module.forward(params, given)
    grads = module.backward(params, tape, d_y)

    tensor, weight = (torch.tensor(array, requires_grad=True) for array in (given, kernel))
    function = (torch.nn.functional.conv1d, torch.nn.functional.conv2d)[len(axes) - 1]
    made = function(tensor.flatten(0, 1).movedim(-1, 1), weight.movedim((-1, -2), (0, 1)), padding="same")
    made = made.movedim(1, -1).reshape(d_y.shape)
    made.backward(torch.tensor(d_y))
    np.testing.assert_allclose(found, made.detach(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(grads.x, tensor.grad, rtol=0, atol=1e-12)
    np.testing.assert_allclose(grads.params.K.reshape(kernel.shape), weight.grad, rtol=0, atol=1e-11)

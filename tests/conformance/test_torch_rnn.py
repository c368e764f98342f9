"""`gategen.torch` as users of PyTorch know its layers: the same numbers and errors, with all their tools."""

import copy
import pickle
import threading
from functools import cache
from inspect import signature
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from test_torch_layers import ALL, close
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import gategen
from gategen.judge.problem import uses
from gategen.layers import RNN as Net
from gategen.spec.load import builtins
from gategen.torch import RNN, RNNCell, function, ops
from gategen.torch.binding import Call

T, B, I, H = 4, 3, 3, 4  # noqa: E741
DOUBLE = torch.float64
TWINS = {"RNN": {"tanh": "rnn", "relu": "irnn"}, "GRU": "gru_after", "LSTM": "lstm"}


def twin_of(layer: torch.nn.Module) -> torch.nn.Module:
    """The module of gategen that a layer of PyTorch becomes in one line, with its parameters."""
    kind = type(layer).__name__.removesuffix("Cell")
    cell = TWINS[kind][layer.nonlinearity] if kind == "RNN" else TWINS[kind]
    if type(layer).__name__.endswith("Cell"):
        twin = RNNCell(cell, layer.input_size, layer.hidden_size, layer.bias, dtype=DOUBLE)
    else:
        twin = RNN(
            cell,
            layer.input_size,
            layer.hidden_size,
            layer.num_layers,
            layer.bias,
            layer.batch_first,
            layer.dropout,
            layer.bidirectional,
            layer.proj_size,
            dtype=DOUBLE,
        )
    twin.load_state_dict(layer.state_dict())
    return twin


def parts(value: Any) -> list[torch.Tensor]:
    """The tensors of a result, in order."""
    if isinstance(value, PackedSequence):
        return [value.data]
    return [part for one in value for part in parts(one)] if isinstance(value, tuple) else [value]


def results(
    layer: torch.nn.Module, leaves: list[torch.Tensor], *given: Any, twice: bool = False
) -> list[torch.Tensor]:
    """What a call gives, and the gradients of all leaves and parameters of a sum with random weights.

    With `twice`, the gradients of such a sum of these gradients as well.
    """
    found = parts(layer(*given))
    wanted = [*leaves, *layer.parameters()]
    generator = torch.Generator().manual_seed(5)

    def gradients(values: list[torch.Tensor], again: bool) -> list[torch.Tensor]:
        weights = [torch.randn(value.shape, dtype=value.dtype, generator=generator) for value in values]
        loss = sum((weight * value).sum() for weight, value in zip(weights, values, strict=True))
        return list(torch.autograd.grad(loss, wanted, retain_graph=True, create_graph=again))

    first = gradients(found, twice)
    return found + first + (gradients(first, False) if twice else [])


def assert_same(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    for k, (one, other) in enumerate(zip(found, wanted, strict=True)):
        close(f"d_{k}", one.detach().numpy(), other.detach().numpy())


# -------------------------------------------------------------------------------- PyTorch's layers


@pytest.mark.parametrize(("layer_class", "constructor", "given"), ALL)
def test_a_sample_of_pytorchs_own_tests_agrees(layer_class, constructor, given):
    torch.manual_seed(1)
    layer = layer_class(*constructor.args, **constructor.kwargs, dtype=DOUBLE)
    twin = twin_of(layer)
    assert [name for name, _ in twin.named_parameters()] == [name for name, _ in layer.named_parameters()]
    leaves = [part for one in given.args if one is not None for part in parts(one)]
    ours, theirs = (results(one, leaves, *given.args, twice=True) for one in (twin, layer))
    assert_same(ours, theirs)
    layer.load_state_dict(twin.state_dict())


@pytest.mark.parametrize("ordered", [True, False], ids=["sorted", "as_they_come"])
@pytest.mark.parametrize("given", [True, False], ids=["given_start", "own_start"])
@pytest.mark.parametrize("bidirectional", [True, False], ids=["both_ways", "forward"])
@pytest.mark.parametrize("batch_first", [True, False], ids=["batch_first", "time_first"])
@pytest.mark.parametrize(
    ("layer_class", "options"),
    [(torch.nn.RNN, {"nonlinearity": "relu"}), (torch.nn.GRU, {}), (torch.nn.GRU, {"bias": False}),
     (torch.nn.LSTM, {}), (torch.nn.LSTM, {"proj_size": 2}), (torch.nn.LSTM, {"bias": False})],
)  # fmt: skip
def test_packed_sequences_agree(layer_class, options, batch_first, bidirectional, given, ordered):
    torch.manual_seed(2)
    layer = layer_class(
        5, 4, num_layers=2, bidirectional=bidirectional, batch_first=batch_first, **options, dtype=DOUBLE
    )
    lengths = torch.tensor((7, 7, 3, 2, 1) if ordered else (3, 7, 1, 7, 2))
    x = torch.randn(*((5, 7) if batch_first else (7, 5)), 5, dtype=DOUBLE, requires_grad=True)
    leaves, hx = [x], None
    if given:
        widths = [layer.proj_size or 4, 4] if layer_class is torch.nn.LSTM else [4]
        count = 2 * (2 if bidirectional else 1)
        starts = [torch.randn(count, 5, w, dtype=DOUBLE, requires_grad=True) for w in widths]
        leaves += starts
        hx = tuple(starts) if len(starts) > 1 else starts[0]
    packed = pack_padded_sequence(x, lengths, batch_first=batch_first, enforce_sorted=ordered)
    twin = twin_of(layer)
    assert_same(results(twin, leaves, packed, hx), results(layer, leaves, packed, hx))
    ours, theirs = twin(packed, hx)[0], layer(packed, hx)[0]
    for found, wanted in zip(ours[1:], theirs[1:], strict=True):
        assert found is wanted or torch.equal(found, wanted)

    padded, _ = pad_packed_sequence(ours, batch_first=batch_first, total_length=7)
    assert torch.equal(padded, twin(x, hx, lengths)[0])


@pytest.mark.parametrize(
    ("layer_class", "constructor", "given"), [one for one in ALL if "Cell" not in one.id]
)
def test_weights_go_from_pytorch_to_layers_of_both_kinds_and_back(layer_class, constructor, given):
    layer = layer_class(*constructor.args, **constructor.kwargs, dtype=DOUBLE)
    ours = RNN.from_torch(layer)
    assert_same(parts(ours(*given.args)), parts(layer(*given.args)))
    again = ours.to_torch()
    assert type(again) is layer_class and repr(again) == repr(layer)
    for name, tensor in layer.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    net = ours.to_net()
    x, *hx = given.args
    start = None if not hx or hx[0] is None else [part.detach().numpy() for part in parts(hx[0])]
    if not isinstance(x, PackedSequence):
        y, final = net(x.detach().numpy(), start)
        assert_same([torch.from_numpy(part) for part in (y, *final)], parts(layer(*given.args)))


@pytest.mark.parametrize("name", ["gru", "ligru", "scrn", "caru"])
def test_nets_of_gategen_layers_go_both_ways(name):
    sizes = {"memory": 2} if name == "scrn" else {}
    net = Net(name, I, H, 1 if sizes else 2, bidirectional=not sizes, dtype="float64", seed=0, **sizes).eval()
    layer = RNN.from_net(net)
    x = np.random.default_rng(0).standard_normal((T, B, I))
    y, final = net(x)
    outputs = y if isinstance(y, tuple) else (y,)
    assert_same(parts(layer(torch.from_numpy(x))), [torch.from_numpy(part) for part in (*outputs, *final)])
    for one, other in zip(layer.to_net().state_dict().values(), net.state_dict().values(), strict=True):
        np.testing.assert_array_equal(one, other)
    gru = RNN("gru_after", I, H, dtype=DOUBLE)
    for one, other in zip(gru.to_keras()[0], Net.from_torch(gru.to_torch()).to_keras()[0], strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="no cell whose weights other libraries have"):
        RNN("mgu", I, H).to_torch()


def test_other_equations_under_a_name_of_pytorchs_keep_their_own_names():
    text = """
    name: lstm
    i = sigmoid(W_i @ x + U_i @ h + b_i)
    f = sigmoid(W_f @ x + U_f @ h + b_f)
    g = tanh(W_g @ x + U_g @ h + b_g)
    o = sigmoid(W_o @ x + U_o @ h + b_o)
    c' = f * c + (1 - f) * i * g
    h' = o * tanh(c')
    """
    layer = RNN(text, I, H)
    assert set(layer.state_dict()) == {f"{name}_l0" for name in layer.module.PARAMETERS}
    with pytest.raises(RuntimeError, match="Missing key"):
        layer.load_state_dict(torch.nn.LSTM(I, H).state_dict())


def test_initial_values_are_drawn_from_the_same_distribution_and_by_torchs_seed():
    torch.manual_seed(3)
    ours = RNN("gru_after", 7, 40)
    torch.manual_seed(3)
    again = RNN("gru_after", 7, 40)
    theirs = torch.nn.GRU(7, 40)
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter, dict(again.named_parameters())[name])
        other = dict(theirs.named_parameters())[name]
        assert abs(parameter.abs().max() - other.abs().max()) < 0.02 and parameter.abs().max() <= 40**-0.5


# -------------------------------------------------------------------------------- every cell


@cache
def layer_of(name: str, **options: Any) -> RNN:
    torch.manual_seed(4)
    cell = builtins()[name]
    further = {size: H for size in cell.sizes if size not in ("input", "hidden")}
    sizes = {"input": H if cell.inputs[0].size == "hidden" else I, "hidden": H, **further}
    rng = np.random.default_rng(4)
    asked = [a for a in cell.arrays if not a.trainable and not a.contents]
    held = {a.name: rng.random(a.lengths(sizes)) for a in asked}
    return RNN(name, sizes["input"], H, dtype=DOUBLE, **further, **held)


def drawn(name: str, given: bool) -> tuple[RNN, torch.Tensor, Any, dict[str, torch.Tensor]]:
    """A layer, x, hx and further inputs, all of which take gradients."""
    layer = layer_of(name)
    module = layer.module
    generator = torch.Generator().manual_seed(6)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(shape, dtype=DOUBLE, generator=generator).add_(0.1).requires_grad_()

    def extents(size: Any) -> tuple[int, ...]:
        return tuple(map(layer._size, size if isinstance(size, tuple) else (size,)))

    x, *more = (draw(T, B, *extents(size)) for size in module.INPUTS.values())
    states = [draw(1, B, *extents(size)) for size in module.STATES.values()] if given else []
    hx = None if not given else states[0] if len(states) == 1 else tuple(states)
    return layer, x, hx, dict(zip(list(module.INPUTS)[1:], more, strict=True))


def call_of(name: str, given: bool, lengths: Any = None) -> tuple[RNN, Call]:
    layer, x, hx, more = drawn(name, given)
    starts = [] if hx is None else [state[0] for state in parts(hx)]
    starts = [state.detach().requires_grad_() for state in starts]
    tensors = layer._held(layer._binding.layout.names, "_l0")
    buffers = layer._held(layer._running, "_l0")
    return layer, Call(tensors, [x, *more.values()], starts, lengths, buffers, True, {})


# Every cell in one of four settings, which take their turns.
IN_TURN = [
    pytest.param(name, bool(k % 2), (2, 0, T) if k % 4 > 1 else None, id=name)
    for k, name in enumerate(builtins())
]


@pytest.mark.parametrize(("name", "given", "lengths"), IN_TURN)
def test_the_operators_keep_the_rules_of_operators(name, given, lengths):
    layer, call = call_of(name, given, None if lengths is None else torch.tensor(lengths))
    arguments = (
        layer._binding.key, list(call.tensors), list(call.inputs), list(call.initial), call.lengths,
        [buffer.clone() for buffer in call.buffers], True, True,
    )  # fmt: skip
    torch.library.opcheck(ops.run_op, arguments)
    found = ops.run_op(*arguments)
    ends = len(layer.module.OUTPUTS) + len(layer.module.STATES)
    outputs, final = (
        found[: len(layer.module.OUTPUTS)],
        found[len(layer.module.OUTPUTS) : ends],
    )
    tape = [tensor.detach() for tensor in found[ends + len(call.buffers) :]]
    directions = [[torch.ones_like(end).requires_grad_() for end in part] for part in (outputs, final)]
    torch.library.opcheck(ops.pull_op, (*arguments[:7], tape, *directions))
    detached = [[tensor.detach() for tensor in group] for group in (*call[:3], *directions)]
    moved = [torch.ones_like(tensor) for group in detached[:3] for tensor in group]
    given = (arguments[0], *detached[:3], *arguments[4:7], tape)
    torch.library.opcheck(ops.push_op, (*given, *detached[3:], moved))
    torch.library.opcheck(ops.push_op, (*given, [], [], moved))


@pytest.mark.parametrize("name", builtins())
def test_operators_and_functions_give_the_same(name):
    layer, call = call_of(name, True)
    leaves = [*call.tensors, *call.inputs, *call.initial]
    runs = []
    for way in (function, ops):
        buffers = [buffer.clone() for buffer in call.buffers]
        found = list(way.run(layer._binding, call._replace(buffers=buffers)))
        loss = sum((k + 1) * part.square().sum() for k, part in enumerate(found))
        grads = torch.autograd.grad(loss, [leaf for leaf in leaves if leaf.requires_grad])
        runs.append([*found, *buffers, *grads])
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)


# A spike has another derivative than its value has.
SMOOTH = [case for case in IN_TURN if not uses(builtins()[case.id], gategen.surrogate)]


@pytest.mark.parametrize(("name", "given", "lengths"), SMOOTH)
def test_gradients_forward_mode_and_second_derivatives_are_what_differences_say(name, given, lengths):
    layer, x, hx, more = drawn(name, given)
    names = [n for n, _ in layer.named_parameters()]
    starts = [] if hx is None else parts(hx)

    def run(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        at = len(names)
        own, rest = dict(zip(names, tensors[:at], strict=True)), tensors[at + 1 :]
        states = rest[: len(starts)]
        state = None if not starts else states[0] if len(states) == 1 else tuple(states)
        inputs = dict(zip(more, rest[len(starts) :], strict=True))
        return tuple(parts(torch.func.functional_call(layer, own, (tensors[at], state, lengths), inputs)))

    tensors = [*(p for _, p in layer.named_parameters()), x, *starts, *more.values()]
    assert torch.autograd.gradcheck(run, tensors, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, tensors, atol=1e-4, fast_mode=True)


@pytest.mark.parametrize("name", builtins())
def test_no_byte_of_weights_and_sequences_is_copied(name, monkeypatch):
    """The module's arrays lie where the tensors do, but for weights of PyTorch's cells, of another order."""
    layer, x, hx, more = drawn(name, True)
    module, seen = layer.module, {}

    def forward(params: Any, x: Any, **given: Any) -> Any:
        seen.update(params=params, x=x, **given)
        return original(params, x, **given)

    original = module.forward
    monkeypatch.setattr(module, "forward", forward)
    layer(x, hx, **more)
    own = layer._held(layer._binding.layout.names, "_l0")
    places = {tensor.data_ptr() for tensor in (*own, x, *more.values(), *parts(hx))}
    arrays = [seen["x"], *seen["initial"], *(seen[name] for name in more)]
    if layer._binding.layout.names == module.PARAMETERS:
        arrays += list(seen["params"])
    assert {array.ctypes.data for array in arrays} <= places
    assert all(array.strides[-1] in (0, array.itemsize) for array in arrays if array.ndim)


# -------------------------------------------------------------------------------- a user's tools


class Three(torch.nn.Module):
    """A model with three different cells, one of them both ways and one with lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.below = RNN("ligru_nobn", I, H, bidirectional=True)
        self.middle = RNN("lstm", 2 * H, H, num_layers=2)
        self.above = RNN("mgu", H, H)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        y, _ = self.below(x)
        y, (h, c) = self.middle(y)
        z, last = self.above(y, None, lengths)
        return z.sum() + (last * h[-1:]).sum() + c.sum()


def test_compile_without_a_break_equals_eager_and_is_not_repeated_for_another_length():
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = Three()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    counts = []
    for steps in (20, 21, 22):
        x = torch.randn(steps, B, I, requires_grad=True)
        lengths = torch.tensor([steps, 3, steps - 2])
        leaves = [x, *model.parameters()]
        eager = [model(x, lengths), *torch.autograd.grad(model(x, lengths), leaves)]
        loss = compiled(x, lengths)
        for one, other in zip([loss, *torch.autograd.grad(loss, leaves)], eager, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        counts.append(counter.frame_count)
    assert counts[0] > 0 and counts == counts[:1] * 3


def test_export_holds_the_layer_for_any_length():
    layer = RNN("ligru", I, H).eval()
    dynamic = {"input": {0: torch.export.Dim("T", min=2, max=100)}}
    program = torch.export.export(layer, (torch.randn(T, B, I),), dynamic_shapes=dynamic)
    x = torch.randn(9, B, I)
    for one, other in zip(parts(program.module()(x)), parts(layer(x)), strict=True):
        torch.testing.assert_close(one, other)


def test_vmap_and_grad_of_torch_func():
    layer = RNN("mgu", I, H, dtype=DOUBLE)
    names = dict(layer.named_parameters())
    x = torch.randn(5, T, B, I, dtype=DOUBLE)

    def loss(parameters: Any, x: torch.Tensor) -> torch.Tensor:
        y, h = torch.func.functional_call(layer, parameters, (x,))
        return (y * y).sum() + h.sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(names, x)
    for name, parameter in names.items():
        rows = [torch.autograd.grad(loss(names, one), parameter)[0] for one in x]
        torch.testing.assert_close(each[name], torch.stack(rows))
    ensemble = {name: torch.stack([p, 2 * p]) for name, p in names.items()}
    outputs = torch.func.vmap(loss, in_dims=(0, None))(ensemble, x[0])
    torch.testing.assert_close(outputs[0], loss(names, x[0]))


def test_jvp_and_hessian_of_torch_func_and_of_autograd():
    layer = RNN("lstm", I, H, dtype=DOUBLE)
    x, v = torch.randn(2, T, B, I, dtype=DOUBLE)

    def run(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([part.flatten() for part in parts(layer(x))])

    _, moved = torch.autograd.functional.jvp(run, x, v)
    torch.testing.assert_close(torch.func.jvp(run, (x,), (v,))[1], moved)
    with torch.autograd.forward_ad.dual_level():
        dual = run(torch.autograd.forward_ad.make_dual(x, v))
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(dual).tangent, moved)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return run(x).square().sum()

    product = torch.autograd.functional.hvp(loss, x, v)[1]
    torch.testing.assert_close(torch.func.vjp(torch.func.grad(loss), x)[1](v)[0], product)
    torch.testing.assert_close(torch.func.jvp(torch.func.grad(loss), (x,), (v,))[1], product)
    torch.testing.assert_close(torch.func.grad(lambda x: torch.func.jvp(loss, (x,), (v,))[1])(x), product)
    whole = torch.func.jacrev(torch.func.grad(loss))(x)
    torch.testing.assert_close((whole * v).sum((-1, -2, -3)), product)


def test_third_derivatives_are_refused():
    x = torch.randn(T, B, I, requires_grad=True)
    (first,) = torch.autograd.grad(RNN("mgu", I, H)(x)[0].square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivatives"):
        second.sum().backward()


def test_autocast_runs_in_float32_on_the_cpu():
    layer, x = RNN("gru", I, H), torch.randn(T, B, I)
    with torch.autocast("cpu", torch.bfloat16):
        y, h = layer(torch.nn.functional.linear(x, torch.eye(I)))
    assert y.dtype == h.dtype == torch.float32
    torch.testing.assert_close(y, layer(x)[0], rtol=2e-2, atol=2e-2)


def test_what_is_not_contiguous_or_expanded_gives_the_same():
    layer = RNN("mgu", I, H, dtype=DOUBLE)
    x = torch.randn(B, I, T, dtype=DOUBLE).permute(2, 0, 1).requires_grad_()
    assert_same(results(layer, [x], x), results(layer, [x], x.contiguous()))
    one = torch.randn(T, 1, I, dtype=DOUBLE, requires_grad=True)
    h = torch.randn(1, 1, H, dtype=DOUBLE).expand(1, B, H)
    wide = one.expand(T, B, I)
    assert_same(results(layer, [one], wide, h), results(layer, [one], wide.contiguous(), h.contiguous()))


@pytest.mark.parametrize("chosen", ["x", "h", "W_f_l0", "b_h_l0"])
def test_any_subset_may_take_gradients(chosen):
    layer = RNN("mgu", I, H, dtype=DOUBLE).requires_grad_(False)
    tensors = {"x": torch.randn(T, B, I, dtype=DOUBLE), "h": torch.randn(1, B, H, dtype=DOUBLE)}
    leaf = {**tensors, **dict(layer.named_parameters())}[chosen].requires_grad_()
    y, h = layer(tensors["x"], tensors["h"])
    (y.sum() + h.sum()).backward()
    assert leaf.grad is not None and leaf.grad.abs().sum() > 0
    others = [*tensors.values(), *layer.parameters()]
    assert all(other.grad is None for other in others if other is not leaf)


@pytest.mark.parametrize("name", ["gru", "lstm", "ligru", "caru"])
def test_copies_and_files_hold_the_same_layer(name, tmp_path):
    layer, x = RNN(name, I, H, num_layers=2, bidirectional=True), torch.randn(T, B, I)
    layer.eval()
    y, _ = layer(x)
    torch.save(layer, tmp_path / "whole.pt")
    others = [
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(tmp_path / "whole.pt", weights_only=False),
        RNN(name, I, H, num_layers=2, bidirectional=True).eval(),
        layer.double().float(),
    ]
    others[3].load_state_dict(layer.state_dict())
    for other in others:
        assert torch.equal(other(x)[0], y)
        pairs = zip(layer.parameters(), other.parameters(), strict=True)
        assert other is layer or all(one is not another for one, another in pairs)
    with torch.no_grad():
        next(others[0].parameters()).add_(1)
    assert torch.equal(layer(x)[0], y) and not torch.equal(others[0](x)[0], y)


def test_weight_norm_and_with_it_a_dropped_weight():
    layer = RNN("mgu", I, H, dtype=DOUBLE)
    x = torch.randn(T, B, I, dtype=DOUBLE)
    plain = layer(x)[0]
    torch.nn.utils.parametrizations.weight_norm(layer, "U_h_l0")
    torch.testing.assert_close(layer(x)[0], plain)
    layer(x)[0].sum().backward()
    assert layer.parametrizations.U_h_l0.original0.grad.abs().sum() > 0

    class Dropped(torch.nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.dropout(weight, 0.5, self.training)

    dropped = RNN("lstm", I, H, dtype=DOUBLE)
    torch.nn.utils.parametrize.register_parametrization(dropped, "weight_hh_l0", Dropped())
    assert not torch.equal(dropped(x)[0], dropped(x)[0])
    dropped.eval()
    assert torch.equal(dropped(x)[0], dropped(x)[0])


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_gives_the_same_gradients(reentrant):
    layer, x = RNN("lstm", I, H, num_layers=2), torch.randn(T, B, I, requires_grad=True)
    leaves = [x, *layer.parameters()]
    wanted = torch.autograd.grad(layer(x)[0].square().sum(), leaves)
    y, _ = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=reentrant)
    y.square().sum().backward()
    for leaf, gradient in zip(leaves, wanted, strict=True):
        torch.testing.assert_close(leaf.grad, gradient)


def test_hooks_see_outputs_and_gradients():
    layer, x, seen = RNN("mgu", I, H), torch.randn(T, B, I, requires_grad=True), []
    layer.register_forward_hook(lambda module, given, found: seen.append(found[0].shape))
    layer.U_h_l0.register_hook(lambda gradient: seen.append(gradient.shape))
    layer(x)[0].sum().backward()
    assert seen == [(T, B, H), (H, H)]


def test_running_statistics_move_while_training_alone():
    layer, x = RNN("ligru", I, H), torch.randn(T, B, I)
    before = layer.mean_z_l0.clone()
    layer.eval()(x)
    assert torch.equal(layer.mean_z_l0, before)
    layer.train()(x)
    assert not torch.equal(layer.mean_z_l0, before)
    assert {"mean_z_l0", "var_n_l0"} <= set(layer.state_dict())


def test_threads_may_share_a_layer():
    layer, wanted, found = RNN("gru", I, H), {}, {}
    xs = {k: torch.randn(50, B, I) for k in range(8)}

    def gradient(k: int) -> torch.Tensor:
        x = xs[k].clone().requires_grad_()
        return torch.autograd.grad(layer(x)[0].square().sum(), x)[0]

    wanted = {k: gradient(k) for k in xs}
    threads = [threading.Thread(target=lambda k=k: found.update({k: gradient(k)})) for k in xs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[k], wanted[k]) for k in xs)


# -------------------------------------------------------------------------------- what goes wrong


def test_wrong_calls_raise_what_pytorch_raises():
    ours, theirs = RNN("lstm", I, H, dtype=DOUBLE), torch.nn.LSTM(I, H, dtype=DOUBLE)
    x, h = torch.randn(T, B, I, dtype=DOUBLE), torch.zeros(1, B, H, dtype=DOUBLE)
    for given in (
        (torch.randn(T, B, I + 1, dtype=DOUBLE),),
        (torch.randn(2, T, B, I, dtype=DOUBLE),),
        (torch.randn(T, B, I),),
        (x, (h, torch.zeros(1, B, H + 1, dtype=DOUBLE))),
        (x, (torch.zeros(2, B, H, dtype=DOUBLE), h)),
    ):
        with pytest.raises((RuntimeError, ValueError)) as wanted:
            theirs(*given)
        with pytest.raises(wanted.type) as found:
            ours(*given)
        assert str(found.value)
    with pytest.raises(RuntimeError, match="needs 2 tensors in hx"):
        ours(x, h)
    with pytest.raises(TypeError, match="takes the inputs"):
        ours(x, m=h)
    with pytest.raises(ValueError, match="from 0 to 5, expected from 0 to 4"):
        ours(x, None, [5, 0, 1])
    with pytest.raises(TypeError, match="bfloat16"):
        RNN("gru", I, H, dtype=torch.bfloat16)(torch.randn(T, B, I, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="only supported for lstm"):
        RNN("gru", I, H, proj_size=2)


def test_a_change_in_place_between_the_directions_is_noticed():
    layer = RNN("mgu", I, H)
    for change in ("x", "weight"):
        x = torch.randn(T, B, I, requires_grad=True).clone()
        y, _ = layer(x)
        with torch.no_grad():
            (x if change == "x" else layer.U_h_l0).add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_backward_twice_needs_the_graph_kept():
    layer, x = RNN("mgu", I, H), torch.randn(T, B, I)
    y, _ = layer(x)
    y.sum().backward(retain_graph=True)
    first = layer.U_h_l0.grad.clone()
    y.sum().backward()
    torch.testing.assert_close(layer.U_h_l0.grad, 2 * first)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.sum().backward()


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (4, 0), (0, 0), (1, 1)])
@pytest.mark.parametrize("name", ["gru", "lstm", "ligru", "caru", "zoneout_gru"])
def test_empty_batches_and_sequences(name, steps, batch):
    layer = layer_of(name)
    module = layer.module
    x, *more = (torch.randn(steps, batch, layer._size(s), dtype=DOUBLE) for s in module.INPUTS.values())
    y, final = layer(x.requires_grad_(), **dict(zip(list(module.INPUTS)[1:], more, strict=True)))
    assert y.shape == (steps, batch, H) and all(part.shape == (1, batch, H) for part in parts(final))
    (y.sum() + sum(part.sum() for part in parts(final))).backward()
    assert x.grad.shape == x.shape


def test_a_cell_a_path_a_text_and_a_module_make_the_same_layer(tmp_path):
    text = "name: mine\nh' = tanh(W_h @ x + U_h @ h + b_h)\n"
    path = tmp_path / "mine.gate"
    path.write_text(text)
    cell = gategen.load(path)[0]
    x = torch.randn(T, B, I)
    layers = [RNN(given, I, H) for given in (text, path, cell, gategen.compile(cell, "c"))]
    for layer in layers:
        layer.load_state_dict(layers[0].state_dict())
        assert torch.equal(layer(x)[0], layers[0](x)[0])
    assert layers[0].module is layers[3].module
    plain = RNN(gategen.compile(cell), I, H)
    plain.load_state_dict(layers[0].state_dict())
    assert torch.allclose(plain(x)[0], layers[0](x)[0], atol=1e-6) and "numpy" in plain.module.__name__
    assert repr(layers[0]) == f"RNN(mine, {I}, {H})"


@pytest.mark.parametrize("backend", ["numpy", "c"])
def test_a_tape_holds_the_input_once(backend):
    layer = RNN(gategen.compile("gru", backend), I, H)
    x = torch.randn(T, B, I)
    binding = layer._binding
    call = Call(list(layer.parameters()), [x], [], None, [], False, {})
    with torch.no_grad():
        ran = binding.run(call, tape=True)
    assert binding.backend == backend and all(kept.data_ptr() != x.data_ptr() for kept in ran.tape)


def test_the_signature_is_that_of_pytorchs_layers():
    names = """cell input_size hidden_size num_layers bias batch_first dropout bidirectional proj_size device
        dtype sizes"""
    assert list(signature(RNN).parameters) == names.split()


# -------------------------------------------------------------------------------- matrices as inputs

NODES = """
inputs: X[nodes, input], E[nodes, 2]
states: H[nodes, hidden]
fixed matrices: P[nodes, nodes]
matrices: W[input, hidden], U[hidden, hidden], V[2, hidden]
H' = tanh(P @ (X @ W) + H @ U + E @ V)
"""


@pytest.mark.parametrize("constant", [False, True], ids=["in_time", "constant"])
@pytest.mark.parametrize("way", [function, ops], ids=["function", "ops"])
def test_layers_of_matrices_agree_with_those_of_nets(monkeypatch, constant, way):
    rng = np.random.default_rng(0)
    net = Net(NODES, 3, 4, num_layers=2, bidirectional=True, nodes=5, P=rng.random((5, 5)), dtype="float64")
    layer = RNN.from_net(net)
    monkeypatch.setattr("gategen.torch.rnn._way", lambda call: way)
    x, E = rng.standard_normal((6, 2, 5, 3)), rng.standard_normal((2, 5, 2) if constant else (6, 2, 5, 2))
    wanted, last = net(x, lengths=[6, 4], E=E)
    d_y = rng.standard_normal(wanted.shape)
    grads = net.backward(d_y)
    given = [torch.tensor(array, requires_grad=True) for array in (x, E)]
    y, final = layer(given[0], lengths=torch.tensor([6, 4]), E=given[1])
    (y * torch.tensor(d_y)).sum().backward()
    close("y", y.detach().numpy(), wanted)
    close("final", final.detach().numpy(), last.H)
    close("d_x", given[0].grad.numpy(), grads.x)
    close("d_E", given[1].grad.numpy(), grads.inputs["E"])


def test_a_step_reads_matrices():
    cell = RNNCell(NODES, 3, 4, nodes=5, P=np.eye(5))
    assert cell(torch.zeros(2, 5, 3), E=torch.zeros(2, 5, 2)).shape == (2, 5, 4)
    assert cell(torch.zeros(5, 3), E=torch.zeros(5, 2)).shape == (5, 4)
    with pytest.raises(ValueError, match="Expected input to be 2D or 3D, got 1D instead"):
        cell(torch.zeros(3), E=torch.zeros(5, 2))

"""`RNN` and `RNNCell`: any cell as a module of PyTorch, called as `torch.nn.GRU` and `torch.nn.LSTM` are.

All arithmetic of a step is the generated module's; how it meets autograd is in `function.py` and `ops.py`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from inspect import signature
from numbers import Real
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils._python_dispatch import _get_current_dispatch_mode

from gategen.layers import RNN as Net
from gategen.layers.arrange import host
from gategen.layers.rnn import length_of
from gategen.layers.weights import TORCH, torch_kind
from gategen.torch import function, ops, transforms
from gategen.torch.binding import Binding, Call, field_of
from gategen.torch.names import PROJECTED, is_bias, known_to_pytorch, layout_of

Tensor = Any
_PLAIN = (torch.Tensor, torch.nn.Parameter)
_TAKEN = {"self", "input", "hx"}  # names of what calls and layers take otherwise
_TAKEN_SIZES = {"self", "cell", "module", "num_layers", "bias", "batch_first", "dropout", "bidirectional",
                "proj_size", "device", "dtype", "seed"}  # fmt: skip


class _Kept(dict[str, dict[Any, Any]]):
    """For every layer and direction, where the arrays of its parameters are kept; a copy starts with none."""

    def __deepcopy__(self, memo: Any) -> _Kept:
        return _Kept((suffix, {}) for suffix in self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Kept, ([(suffix, {}) for suffix in self],)


class _Layers(torch.nn.Module):
    """What `RNN` and `RNNCell` share: parameters by layer and direction, and one run of one of them."""

    def __init__(
        self, net: Net, twin: Net, cell: Any, bias: bool, suffixes: Sequence[str], device: Any, dtype: Any
    ) -> None:
        """`net` and `twin` are of different seeds: what they have in common is stated, and not drawn."""
        super().__init__()
        if not isinstance(bias, bool):
            raise TypeError(f"bias should be of type bool, got: {type(bias).__name__}")
        where = {"device": device or torch.get_default_device(), "dtype": dtype or torch.get_default_dtype()}
        self._sizes = net.sizes
        self.input_size, self.hidden_size, self.bias = net.input_size, net.hidden_size, bias
        module = net.module
        self._binding = Binding(module, layout_of(module, net.cells[0].params), cell)
        self._suffixes = tuple(suffixes)
        self._arrays = _Kept((suffix, {}) for suffix in suffixes)
        self._drawn: set[str] = set()
        self._stated: dict[str, Tensor] = {}  # of which one entry is enough where all are the same
        self._absent: list[str] = []  # biases
        self._fixed = [name for name in self._binding.layout.names if name in getattr(module, "FIXED", ())]
        for suffix, held, other in zip(suffixes, net.cells, twin.cells, strict=True):
            pairs = zip(self._tensors_of(held.params), self._tensors_of(other.params), strict=True)
            for name, (value, again) in zip(self._binding.layout.names, pairs, strict=True):
                full, data = name + suffix, value.to(**where, copy=True)
                if hasattr(self, full):
                    raise ValueError(f"a layer has an attribute {full!r}: give the parameter another name")
                if not bias and is_bias(name, value.ndim):
                    self.register_buffer(full, torch.zeros_like(data), persistent=False)
                    self._absent.append(full)
                elif name in self._fixed:
                    self.register_buffer(full, data)
                    self._stated[full] = value
                else:
                    self.register_parameter(full, torch.nn.Parameter(data))
                    if torch.equal(value, again):
                        self._stated[full] = value
                    else:
                        self._drawn.add(full)
            running = {} if held.buffers is None else held.buffers._asdict()
            for name, array in running.items():
                value = self._stated[name + suffix] = torch.from_numpy(array)
                self.register_buffer(name + suffix, value.to(**where, copy=True))
        for name, value in self._stated.items():
            if torch.equal(value, value.flatten()[0].expand_as(value)):
                self._stated[name] = value.flatten()[0].clone()
        self._running = tuple(running)
        self.reset_parameters()
        self.flatten_parameters()

    def _tensors_of(self, params: Any) -> list[Tensor]:
        """The tensors of a layer, from the fields of the module's `Params` on the host."""
        fields = [field.get() if hasattr(field, "get") else field for field in params]
        found = self._binding.of_tensors(fields, list(self.module.unpack(params).values()))
        for source in self._binding.layout.sources:
            for number in source.tensors[1:] if source.blocks else ():  # what is added to the first
                found[number] = np.zeros_like(found[number])
        return [torch.from_numpy(array) for array in found]

    @property
    def module(self) -> ModuleType:
        """The generated module."""
        return self._binding.module

    # ------------------------------------------------------------------------------------------ parameters

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw uniformly from ±1/sqrt(hidden_size), as PyTorch does, what the cell does not state.

        What it states is again as stated, and running statistics are those of a new layer.
        """
        bound = self.hidden_size**-0.5
        for name, parameter in self.named_parameters():
            if name in self._drawn:
                torch.nn.init.uniform_(parameter, -bound, bound)
        for name, tensor in (*self._parameters.items(), *self._buffers.items()):
            if name in self._stated and tensor is not None:
                tensor.copy_(self._stated[name])
        self._clear_absent()

    def _clear_absent(self) -> None:
        """Fill the biases that the layer does not have, of which `to_empty` leaves anything, with 0."""
        for name in self._absent:
            buffer = self._buffers[name]
            self._buffers[name] = next(self.parameters(), buffer).new_zeros(buffer.shape)

    def _load_from_state_dict(self, *given: Any, **options: Any) -> None:
        super()._load_from_state_dict(*given, **options)
        self._clear_absent()

    @torch.no_grad()
    def flatten_parameters(self) -> None:
        """Lay the parameters so that one product serves all gates, and no run needs to copy them.

        It is done whenever the module is made, moved or copied; the parameters stay the same objects. Those
        that processes share stay where they are.
        """
        for suffix in self._suffixes:
            for source in self._binding.layout.sources:
                names = [self._binding.layout.names[k] for k in source.tensors]
                fixed = all(name in self._fixed for name in names)
                held: Any = self._buffers if fixed else self._parameters
                parts = [held.get(name + suffix) for name in names]
                kind = torch.Tensor if fixed else torch.nn.Parameter
                if (
                    source.blocks
                    or len(parts) < 2
                    or any(type(part) is not kind or _shared(part) for part in parts)
                ):
                    continue
                whole = torch.cat([part.data for part in parts])
                for part, data in zip(parts, whole.split([len(part) for part in parts]), strict=True):
                    part.data = data

    def _apply(self, *given: Any, **options: Any) -> Any:
        super()._apply(*given, **options)
        self._arrays = deepcopy(self._arrays)  # which forgets: the old memory is not needed any more
        self.flatten_parameters()
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.flatten_parameters()

    def _held(self, names: Sequence[str], suffix: str) -> list[Tensor]:
        """Parameters and buffers of a layer; attributes where something stands in their place."""
        parameters, buffers = self._parameters, self._buffers
        found = []
        for name in names:
            tensor = parameters.get(name + suffix)
            if tensor is None:
                tensor = buffers.get(name + suffix)
            found.append(getattr(self, name + suffix) if tensor is None else tensor)
        return found

    # ------------------------------------------------------------------------------------------ one layer

    def _run(self, suffix: str, inputs: Sequence[Tensor], initial: Sequence[Tensor], lengths: Any) -> Any:
        """The outputs, (T, B, size) each, and the final states, (B, size) each."""
        tensors: Sequence[Tensor] = self._held(self._binding.layout.names, suffix)
        tensors, inputs, initial = _of_one_dtype(tensors, inputs, initial)
        held = {} if torch.compiler.is_compiling() else self._arrays[suffix]
        for name, tensor in zip(self._fixed, self._held(self._fixed, suffix), strict=True):
            if _moves(tensor):
                raise RuntimeError(
                    f"{name + suffix} requires a gradient, but {name} is fixed in {self.module.NAME}"
                )
        running = self._held(self._running, suffix)
        call = Call(tensors, inputs, initial, lengths, running, self.training, held)
        way = _way(call)
        found = way.run(self._binding, call)
        outputs = len(self.module.OUTPUTS)
        return found[:outputs], found[outputs:]

    # ------------------------------------------------------------------------------------------ what is given

    @property
    def _further(self) -> list[str]:
        """The names of the inputs beside x."""
        return list(self.module.INPUTS)[1:]

    @property
    def _rank(self) -> int:
        """How many axes a row of x has."""
        return self._binding.ranks[0]

    def _ranks(self, inputs: Mapping[str, Any]) -> dict[str, int]:
        """The same of further inputs, by name."""
        known = dict(zip(self._further, self._binding.ranks[1:], strict=True))
        return {name: known.get(name, 1) for name in inputs}

    def _size(self, size: str | int) -> int:
        """A size of the cell, that of x being the one of the first layer."""
        return length_of(size, {"input": self.input_size, **self._sizes})

    def _states(self, hx: Any, shape: Sequence[int]) -> list[Tensor]:
        """`hx` as a tensor for every state, each of this shape and then its size; none for None."""
        states = self.module.STATES
        if hx is None:
            return []
        given = list(hx) if isinstance(hx, (tuple, list)) else [hx]
        for value in given:
            if not isinstance(value, torch.Tensor):
                raise TypeError(f"hx has {type(value).__name__}, expected tensors")
        if len(given) != len(states):
            wants = f"{len(states)} tensors in hx ({', '.join(states)})"
            raise RuntimeError(f"{self.module.NAME} needs {wants}, got {len(given)}")
        for tensor, (name, size) in zip(given, states.items(), strict=True):
            expected = (*shape, *map(self._size, size if isinstance(size, tuple) else (size,)))
            if tuple(tensor.shape) != expected:
                which = f" of {name}" if len(states) > 1 else ""
                raise RuntimeError(f"Expected hidden size{which} {expected}, got {list(tensor.shape)}")
        return given

    def _inputs(self, x: Tensor, given: Mapping[str, Tensor]) -> list[Tensor]:
        """x and the further inputs, in the order of the module."""
        if set(given) != set(self._further):
            wants = ["x", *self._further]
            raise TypeError(f"{self.module.NAME} takes the inputs {wants}, got {['x', *sorted(given)]}")
        if x.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {x.shape[-1]}"
            )
        return [x, *(given[name] for name in self._further)]

    def _output(self, parts: Sequence[Tensor]) -> Any:
        return parts[0] if len(parts) == 1 else tuple(parts)


class RNN(_Layers):
    """`num_layers` layers of any cell, with the call and the results of `torch.nn.GRU` and `torch.nn.LSTM`.

    cell: a `Cell`, the name of a built-in one, a path, the text of a .gate file, or a generated module. All
        but the last are compiled in memory, which takes SymPy.
    bias: with False the cell's biases, the vectors and scalars called `b` or `b_...`, `c` or `c_...`, are 0
        and not trained.
    proj_size: as in `torch.nn.LSTM`; for `lstm` alone.
    sizes: the further sizes of the cell, and what its fixed parameters hold where it does not say so.

    Parameters are called as in the cell, layer and direction behind: `W_z_l0`, `W_z_l0_reverse`. Those of
    `gru_after`, `lstm`, `rnn` and `irnn`, which are PyTorch's GRU, LSTM and RNN with tanh and with ReLU, are
    called and stacked as PyTorch's are, so that a `state_dict` goes from one to the other.

    On the CPU the module of C works on the memory of the tensors, in float32 and float64, or that of NumPy
    where there is no compiler or a NumPy module was given; on a GPU the CuPy module, on the device and stream
    that are PyTorch's at the moment.
    """

    def __init__(
        self,
        cell: Any,
        input_size: int | None = None,
        hidden_size: int | None = None,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        device: Any = None,
        dtype: Any = None,
        **sizes: Any,
    ) -> None:
        if not isinstance(dropout, Real) or isinstance(dropout, bool) or not 0 <= dropout <= 1:
            raise ValueError(f"dropout should be a number in range [0, 1], got {dropout!r}")
        if dropout > 0 and num_layers == 1:
            warnings.warn("dropout acts between layers, and num_layers is 1", stacklevel=2)
        if proj_size:
            cell, sizes = _projected(cell, hidden_size, proj_size), {**sizes, "projection": proj_size}
        module, cell = _module_of(cell)
        net, twin = (
            Net(
                module,
                input_size,
                hidden_size,
                num_layers,
                bidirectional,
                batch_first,
                seed=seed,
                dtype="float64",
                **sizes,
            )
            for seed in (0, 1)
        )
        ways = ("", "_reverse") if bidirectional else ("",)
        suffixes = [f"_l{layer}{way}" for layer in range(num_layers) for way in ways]
        super().__init__(net, twin, cell, bias, suffixes, device, dtype)
        self._given = dict(sizes)
        self.num_layers, self.bidirectional, self.proj_size = num_layers, bidirectional, proj_size
        self.batch_first, self.dropout = batch_first, float(dropout)

    _given: dict[str, Any]
    num_layers: int
    bidirectional: bool
    proj_size: int
    batch_first: bool
    dropout: float

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters, a list for every layer and direction, as of `torch.nn.GRU`."""
        names = self._binding.layout.names
        return [[getattr(self, n + s) for n in names if n + s not in self._buffers] for s in self._suffixes]

    def extra_repr(self) -> str:
        said = [self.module.NAME, str(self.input_size), str(self.hidden_size)]
        said += [f"num_layers={self.num_layers}"] * (self.num_layers > 1)
        said += ["bias=False"] * (not self.bias) + ["batch_first=True"] * self.batch_first
        said += [f"dropout={self.dropout}"] * (self.dropout > 0) + ["bidirectional=True"] * self.bidirectional
        said += [f"{name}={size}" for name, size in self._sizes.items() if name != "hidden"]
        return ", ".join(said)

    def forward(self, input: Any, hx: Any = None, lengths: Any = None, **inputs: Tensor) -> tuple[Any, Any]:
        """The outputs, and the states after the last step.

        input: (T, B, input_size), with `batch_first` (B, T, input_size), for one sequence (T, input_size), or
            a `PackedSequence`.
        hx: the states before the first step, (num_layers * directions, B, size) each: a tensor, or for
            several states a tuple of them; None for the cell's own start.
        lengths: (B,) integers from 0 to T. Behind its length a sequence keeps its state and its outputs are
            0; the backward direction starts at its end.
        inputs: the further inputs of the cell, laid out as `input`, or (B, size) where constant in time.

        The outputs are laid out as `input`, (T, B, directions * size), a tuple where the cell has several;
        the states as `hx`. Of several outputs the next layer reads the first. Raises RuntimeError and
        ValueError where PyTorch's layers do.
        """
        if isinstance(input, PackedSequence):
            return self._packed(input, hx, lengths, inputs)
        _all_tensors(inputs)
        rank, ranks = self._rank, self._ranks(inputs)
        if input.dim() not in (1 + rank, 2 + rank):
            wanted = f"{1 + rank}D or {2 + rank}D"
            raise ValueError(f"RNN: Expected input to be {wanted}, got {input.dim()}D instead")
        if input.dim() == 1 + rank:
            if lengths is not None:
                raise ValueError("lengths are for batches, but input is one sequence")
            given = {name: value.unsqueeze(-1 - ranks[name]) for name, value in inputs.items()}
            starts = self._states(hx, (len(self._suffixes),))
            outputs, final = self._layers(input.unsqueeze(1), [s.unsqueeze(1) for s in starts], None, given)
            return self._output([y.squeeze(1) for y in outputs]), self._output([s.squeeze(1) for s in final])
        if self.batch_first:
            input = input.transpose(0, 1)
            inputs = {
                name: v.transpose(0, 1) if v.dim() == 2 + ranks[name] else v for name, v in inputs.items()
            }
        starts = self._states(hx, (len(self._suffixes), input.shape[1]))
        outputs, final = self._layers(input, starts, _checked(lengths, input), inputs)
        return self._output([self._outward(y) for y in outputs]), self._output(final)

    def _outward(self, y: Tensor) -> Tensor:
        return y.transpose(0, 1) if self.batch_first else y

    def _packed(
        self, packed: PackedSequence, hx: Any, lengths: Any, inputs: Mapping[str, Any]
    ) -> tuple[Any, Any]:
        """Of a packed sequence, in its own order, which `sorted_indices` leads to."""
        if lengths is not None:
            raise ValueError("a PackedSequence has its own lengths")
        data, sizes, order, back = packed
        x, ends = pad_packed_sequence(PackedSequence(data, sizes))
        ranks = self._ranks(inputs)
        given = {name: _padded(name, value, order, ends, ranks[name]) for name, value in inputs.items()}
        starts = self._states(hx, (len(self._suffixes), x.shape[1]))
        starts = starts if order is None else [state.index_select(1, order) for state in starts]
        outputs, final = self._layers(x, starts, ends, given)
        made = [PackedSequence(pack_padded_sequence(y, ends).data, sizes, order, back) for y in outputs]
        final = final if back is None else [state.index_select(1, back) for state in final]
        return self._output(made), self._output(final)

    def _layers(
        self, x: Tensor, starts: Sequence[Tensor], lengths: Any, inputs: Mapping[str, Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """All layers: the outputs, (T, B, directions * size), and the states of all."""
        directions = 2 if self.bidirectional else 1
        _, *further = self._inputs(x, inputs)
        order = _reversal(lengths, x) if self.bidirectional and lengths is not None else None
        finals: list[Sequence[Tensor]] = []
        outputs = [x]
        for layer in range(self.num_layers):
            below = outputs[0]
            if layer and self.dropout:
                below = torch.nn.functional.dropout(below, self.dropout, self.training)
            sides = []
            for k in range(layer * directions, (layer + 1) * directions):
                backward = k % directions == 1
                given = [
                    _turned(value, order) if backward and value.dim() == 2 + rank else value
                    for value, rank in zip((below, *further), self._binding.ranks, strict=True)
                ]
                found, final = self._run(self._suffixes[k], given, [state[k] for state in starts], lengths)
                sides.append([_turned(y, order) if backward else y for y in found])
                finals.append(final)
            outputs = [
                torch.cat(parts, -1) if directions > 1 else parts[0] for parts in zip(*sides, strict=True)
            ]
        if len(finals) == 1:
            return outputs, [state.unsqueeze(0) for state in finals[0]]
        return outputs, [torch.stack(states) for states in zip(*finals, strict=True)]

    # ------------------------------------------------------------------------------------------ others

    @classmethod
    def from_net(cls, net: Net, **where: Any) -> RNN:
        """The layers of a net of `gategen.layers`, with copies of its parameters. `where`: device, dtype."""
        options: dict[str, Any] = {"dtype": getattr(torch, str(net.cells[0].params[0].dtype)), **where}
        layers = cls(
            net.module,
            net.input_size,
            net.hidden_size,
            net.num_layers,
            batch_first=net.batch_first,
            dropout=net.dropout,
            bidirectional=net.bidirectional,
            **options,
            **_further(net),
        )
        state: dict[str, Tensor] = {}
        for suffix, held in zip(layers._suffixes, net.cells, strict=True):
            names = zip(layers._binding.layout.names, layers._tensors_of(held.params), strict=True)
            state |= {name + suffix: tensor for name, tensor in names}
            running = {} if held.buffers is None else held.buffers._asdict()
            state |= {name + suffix: torch.as_tensor(host(array)) for name, array in running.items()}
        layers.load_state_dict(state)
        layers.train(net.training)
        return layers

    def to_net(self) -> Net:
        """The same as a net of `gategen.layers`, on the host, with copies of the parameters.

        Of two biases that are only added the net has the sum.
        """
        layout = self._binding.layout
        state: dict[str, Tensor] = {}  # also biases that are 0, which no `state_dict` holds
        for suffix in self._suffixes:
            names = (*layout.names, *self._running)
            for name, tensor in zip(names, self._held(names, suffix), strict=True):
                state[name + suffix] = tensor.detach().cpu()
        (dtype, *_) = {tensor.dtype for tensor in state.values()}
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"a net of gategen.layers is of float32 or float64 here, not of {dtype}")
        net = Net(
            self.module,
            self.input_size,
            self.hidden_size,
            self.num_layers,
            self.bidirectional,
            self.batch_first,
            self.dropout,
            dtype=str(dtype).removeprefix("torch."),
            **self._given,
        )
        held: dict[str, Any] = {}
        for suffix in self._suffixes:
            tensors = [state[name + suffix] for name in layout.names]
            fields = (field_of(source, tensors, lambda tensor: tensor.numpy()) for source in layout.sources)
            params = self.module.unpack(self.module.Params(*fields))
            held |= {name + suffix: array for name, array in params.items()}
            held |= {name + suffix: state[name + suffix].numpy() for name in self._running}
        net.load_state_dict(held)
        return net.train(self.training)

    @classmethod
    def from_torch(cls, source: Any, **where: Any) -> RNN:
        """The layer that is an `nn.GRU`, `nn.LSTM` or `nn.RNN`, or has its `state_dict` (an RNN with tanh).

        `where`: device and dtype, by default its own. Raises TypeError and ValueError for anything else.
        """
        state = dict(source.state_dict() if isinstance(source, torch.nn.Module) else source)
        kind = torch_kind(state)
        if "weight_ih_l0" not in state:
            raise ValueError(
                f"a layer has weight_ih_l0, and this {sorted(state)}: RNN is of layers, not of cells"
            )
        relu = getattr(source, "nonlinearity", "tanh") == "relu"
        first, projection = state["weight_ih_l0"], state.get("weight_hr_l0")
        layer = cls(
            {"GRU": "gru_after", "LSTM": "lstm", "RNN": "irnn" if relu else "rnn"}[kind],
            first.shape[1],
            len(first) // len(TORCH.orders[kind]),
            num_layers=sum(re.fullmatch(r"weight_ih_l\d+", name) is not None for name in state),
            bias="bias_ih_l0" in state,
            batch_first=getattr(source, "batch_first", False),
            dropout=getattr(source, "dropout", 0.0),
            bidirectional="weight_ih_l0_reverse" in state,
            proj_size=0 if projection is None else len(projection),
            **{"device": first.device, "dtype": first.dtype, **where},
        )
        layer.load_state_dict(state)
        layer.train(getattr(source, "training", True))
        return layer

    @classmethod
    def from_keras(cls, source: Any, **where: Any) -> RNN:
        """The layers of Keras that `gategen.layers.RNN.from_keras` reads; `where`: device and dtype."""
        return cls.from_net(Net.from_keras(source), **where)

    @classmethod
    def from_onnx(cls, source: Any, nodes: Any = None, **where: Any) -> RNN:
        """The nodes of ONNX that `gategen.layers.RNN.from_onnx` reads; `where`: device and dtype."""
        return cls.from_net(Net.from_onnx(source, nodes), **where)

    def to_torch(self) -> Any:
        """The same as an `nn.GRU`, `nn.LSTM` or `nn.RNN`. Raises ValueError where PyTorch has none such."""
        cell = known_to_pytorch(self.module)
        if cell is None:
            return self.to_net().to_torch()
        options: dict[str, Any] = {"nonlinearity": cell.activation} if cell.kind == "RNN" else {}
        options |= {"proj_size": self.proj_size} if self.proj_size else {}
        (like, *_) = self.parameters()
        layer = getattr(torch.nn, cell.kind)(
            self.input_size,
            self.hidden_size,
            num_layers=self.num_layers,
            bias=self.bias,
            batch_first=self.batch_first,
            dropout=self.dropout,
            bidirectional=self.bidirectional,
            device=like.device,
            dtype=like.dtype,
            **options,
        )
        state: dict[str, Tensor] = {}
        for suffix in self._suffixes:
            held = zip(
                self._binding.layout.names, self._held(self._binding.layout.names, suffix), strict=True
            )
            state |= {name + suffix: tensor for name, tensor in held if name + suffix not in self._absent}
        layer.load_state_dict(state)
        return layer.train(self.training)

    def to_keras(self) -> list[list[Any]]:
        """What `set_weights` of layers of Keras takes, as `gategen.layers.RNN.to_keras` gives it."""
        return self.to_net().to_keras()

    def to_onnx(self, path: Any, **options: Any) -> None:
        """Write the layers as an ONNX model, as `gategen.layers.RNN.to_onnx` does with these options."""
        self.to_net().to_onnx(path, **{"cell": self._binding.cell, **options})


class RNNCell(_Layers):
    """One step of any cell, with the call of `torch.nn.GRUCell` and `torch.nn.LSTMCell`.

    The arguments are those of `RNN`; parameters have no layer behind their names.
    """

    def __init__(
        self,
        cell: Any,
        input_size: int | None = None,
        hidden_size: int | None = None,
        bias: bool = True,
        *,
        device: Any = None,
        dtype: Any = None,
        **sizes: Any,
    ) -> None:
        module, cell = _module_of(cell)
        net, twin = (
            Net(module, input_size, hidden_size, seed=seed, dtype="float64", **sizes) for seed in (0, 1)
        )
        super().__init__(net, twin, cell, bias, ("",), device, dtype)

    def extra_repr(self) -> str:
        return ", ".join([self.module.NAME, str(self.input_size), str(self.hidden_size)])

    def forward(self, input: Tensor, hx: Any = None, **inputs: Tensor) -> Any:
        """The states after the step: a tensor, or for several states a tuple of them.

        input: (B, input_size), or (input_size,) for one sequence. hx: (B, size) or (size,) each; None for the
        cell's own start. inputs: the further inputs of the cell, as `input`.
        """
        _all_tensors(inputs)
        rank = self._rank
        if input.dim() not in (rank, 1 + rank):
            wanted = f"{rank}D or {1 + rank}D"
            raise ValueError(f"RNNCell: Expected input to be {wanted}, got {input.dim()}D instead")
        starts = self._states(hx, tuple(input.shape[:-rank]))
        given = self._inputs(input, inputs)
        if input.dim() == rank:
            given, starts = [value[None] for value in given], [state[None] for state in starts]
        _, final = self._run("", [value[None] for value in given], starts, None)
        return self._output([state[0] for state in final] if input.dim() == rank else final)


# ------------------------------------------------------------------------------------------ helpers


def _further(net: Net) -> dict[str, Any]:
    """The named arguments of a net: its further sizes, and what its fixed parameters were told to hold."""
    held = net.module.unpack(net.cells[0].params)
    told = [name for name in signature(net.module.init).parameters if name in held]
    return {n: size for n, size in net.sizes.items() if n != "hidden"} | {n: held[n] for n in told}


def _module_of(cell: Any) -> tuple[ModuleType, Any]:
    """The generated module, and the cell where it is known.

    Raises ValueError where its inputs or sizes have names that could not be given to a layer.
    """
    if isinstance(cell, ModuleType):
        module, found = cell, None
    else:
        from gategen.compiled import fastest
        from gategen.spec.load import load_one

        found = load_one(cell)
        module = fastest(found)
    for kind, names, taken in (
        ("input", list(getattr(module, "INPUTS", ()))[1:], _TAKEN),
        ("size", getattr(module, "SIZES", ())[2:], _TAKEN_SIZES),
    ):
        for name in names:
            if name in taken:
                raise ValueError(
                    f"the {kind} {name!r} of {module.NAME} is called as an argument of layers is: "
                    "give it another name"
                )
    return module, found


def _moves(tensor: Tensor) -> bool:
    """Whether a derivative by the tensor is asked for, in one mode or the other."""
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None:
        return True
    return torch.is_grad_enabled() and bool(tensor.requires_grad)


def _all_tensors(inputs: Mapping[str, Any]) -> None:
    """Raises TypeError where a further input is none."""
    for name, value in inputs.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} is of type {type(value).__name__}, expected a tensor")


def _shared(tensor: Tensor) -> bool:
    """Whether other processes may have the same memory, after `share_memory`."""
    return tensor.device.type == "cpu" and bool(tensor.is_shared())  # which all memory of a GPU is


def _projected(cell: Any, hidden_size: Any, proj_size: Any) -> str:
    """The cell of an LSTM whose output is a projection of its hidden vector."""
    name = cell.NAME if isinstance(cell, ModuleType) else getattr(cell, "name", cell)
    if name != "lstm":
        raise ValueError(f"proj_size argument is only supported for lstm, not {name}")
    if not isinstance(proj_size, int) or not 0 < proj_size < hidden_size:
        raise ValueError(f"proj_size is {proj_size!r}, expected an integer from 1 to below hidden_size")
    return PROJECTED


def _way(call: Call) -> ModuleType:
    """How to run it: as a graph holds it, as `torch.func` transforms it, or in the quickest way."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or _get_current_dispatch_mode() is not None:
        return ops
    interpreter = torch._C._functorch.peek_interpreter_stack()
    if interpreter is not None:  # functions do not know how to be functionalized, operators do
        return ops if interpreter.key() == torch._C._functorch.TransformType.Functionalize else transforms
    plain = all(type(tensor) in _PLAIN for group in call[:3] for tensor in group)
    return function if plain and call.inputs[0].device.type in ("cpu", "cuda") else ops


def _of_one_dtype(*groups: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    """The tensors in one dtype: that of the parameters, or within `torch.autocast` what it asks for."""
    x = groups[1][0]
    parameter = groups[0][0] if groups[0] else x
    kind = x.device.type
    if kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind):
        dtype = torch.float32 if kind == "cpu" else torch.get_autocast_dtype(kind)
        return [[tensor.to(dtype) for tensor in group] for group in groups]
    if kind == "cpu" and parameter.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"on the CPU a layer is of float32 or float64, not of {parameter.dtype}")
    for tensor in (*groups[1], *groups[2]):
        if tensor.dtype != parameter.dtype:
            raise ValueError(
                f"RNN input dtype ({tensor.dtype}) does not match weight dtype ({parameter.dtype})"
            )
        if tensor.device != parameter.device:
            raise RuntimeError(f"input is on {tensor.device}, but the parameters are on {parameter.device}")
    return list(groups)


def _checked(lengths: Any, x: Tensor) -> Any:
    """Lengths on the host, (B,) int64; None for None."""
    if lengths is None:
        return None
    found = torch.as_tensor(lengths, device="cpu")
    if not isinstance(lengths, torch.Tensor) and not found.numel():
        found = found.to(torch.int64)  # a list of none is of no dtype
    if found.dtype.is_floating_point or found.dtype.is_complex or found.dtype == torch.bool:
        raise TypeError(f"lengths have dtype {found.dtype}, expected integers")
    if tuple(found.shape) != (x.shape[1],):
        raise RuntimeError(f"lengths have shape {tuple(found.shape)}, expected {(x.shape[1],)}")
    return found.to(torch.int64)


def _padded(name: str, value: Any, order: Any, ends: Tensor, rank: int) -> Tensor:
    """A further input beside a packed one that `order` has sorted by its lengths, `ends`, in that order."""
    if isinstance(value, PackedSequence):
        padded, own = pad_packed_sequence(value)
        if order is not None:
            padded, own = padded.index_select(1, order), own[order.to(own.device)]
        if not torch.equal(own, ends):
            raise ValueError(f"{name} is packed with the lengths {own.tolist()}, input with {ends.tolist()}")
        return padded
    _all_tensors({name: value})
    if value.dim() != 1 + rank:
        raise ValueError(f"{name} is padded, but input is a PackedSequence: pack it as well")
    return value if order is None else value.index_select(0, order)


def _reversal(lengths: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The step at each place when every sequence is read from its own end; what is behind stays there."""
    at = torch.arange(x.shape[0], device=x.device)[:, None]
    ends = lengths.to(x.device)
    return torch.where(at < ends, ends - 1 - at, at), torch.arange(x.shape[1], device=x.device)


def _turned(value: Tensor, order: Any) -> Tensor:
    """A sequence in the order of the backward direction."""
    return value.flip(0) if order is None else value[order]

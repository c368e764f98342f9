"""`RNN`: layers of one cell, and what they hold: parameters, running statistics, the last run.

How the arrays of a run lie is in `arrange.py`; all arithmetic is the generated module's.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from itertools import zip_longest
from math import prod
from numbers import Real
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from gategen.layers.arrange import (
    Array,
    Layout,
    added,
    as_array,
    as_states,
    checked_lengths,
    expect,
    host,
    kind,
    mask,
    reversal,
    side,
    side_by_side,
    turned,
)
from gategen.layers.files import RECORD, read, read_record, write
from gategen.layers.foreign import Found, made_torch, of_keras, of_onnx, of_torch
from gategen.layers.weights import (
    Known,
    known,
    named_to_keras,
    named_to_onnx,
    named_to_torch,
    onnx_attributes,
)

ROWS = 8  # of a batch, which modules of C give to one thread
MUCH = 10_000  # entries of a state at all steps, from which on a thread costs less than it saves
_ARGUMENTS = ("input_size", "hidden_size", "seed", "dtype")  # of `init`, beside the further sizes


class Grads(NamedTuple):
    """Gradients of the loss; every array is shaped as what it is the gradient of."""

    params: dict[str, Array]  # by the names of `RNN.parameters`
    x: Array
    initial: Any  # States, as `final`
    inputs: dict[str, Array]  # of the further inputs, by name


@dataclass(frozen=True)
class _Cell:
    """The module once: in one layer, in one direction."""

    suffix: str  # of the names of its parameters: `_l0`, `_l0_reverse`
    params: Any  # the module's Params
    buffers: Any  # the module's Buffers, None where it has none


@dataclass(frozen=True)
class _Run:
    """What a run leaves behind for `backward`."""

    layout: Layout
    order: Any  # which step of which sequence the backward direction reads; None for the last first
    tapes: tuple[Any, ...]  # the module's Tape for every cell
    masks: tuple[Array, ...]  # for every layer: what its input was multiplied by, or None


class _Own(dict[str, Array]):
    """Arrays of a net by name, in whose place there can be no others; a copy is a plain dict."""

    def __setitem__(self, name: str, array: Array) -> None:
        if self.get(name, array) is not array:  # it is the same after `parameters["W"] -= ...`
            instead = f"write into its own: parameters[{name!r}][...] = array"
            raise TypeError(f"another array does not become the net's; {instead}")
        super().__setitem__(name, array)

    def update(self, *others: Any, **named: Array) -> None:
        for name, array in dict(*others, **named).items():
            self[name] = array

    def __ior__(self, others: Any) -> _Own:  # type: ignore[override, misc]
        self.update(others)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class RNN:
    """`num_layers` layers of a cell, each reading the outputs of the one below.

    `module` is a generated one, or a cell, as `gategen.compile` takes it: that makes the NumPy module.

    With `bidirectional`, every layer runs the cell once more, with parameters of its own, from the end of
    each sequence to its beginning; its outputs are both, side by side. `dropout` is the probability that an
    output on its way to the next layer is dropped while training. Of several outputs the next layer reads the
    first. A net whose layers do not fit on each other is refused when it is made.

    `input_size` may be left out where the cell tells the size of x: `x[hidden]`, `x[3]`. `further` are the
    further sizes of the cell, and what its fixed parameters hold where it does not say so, as its `init`
    takes them; every layer has the same. `seed`, as `numpy.random.default_rng` takes it, decides all
    other parameters and the dropout of all runs. A net remembers its last run, for `backward`: each thread
    needs a net of its own.
    """

    def __init__(
        self,
        module: Any,
        input_size: int | None = None,
        hidden_size: int | None = None,
        num_layers: int = 1,
        bidirectional: bool = False,
        batch_first: bool = False,
        dropout: float = 0.0,
        *,
        dtype: Any = "float32",
        seed: Any = None,
        **further: Any,
    ) -> None:
        self.module = _generated(module)
        module = self.module
        self.hidden_size = _positive("hidden_size", hidden_size)
        self.num_layers = _positive("num_layers", num_layers)
        self.bidirectional = _flag("bidirectional", bidirectional)
        self.batch_first = _flag("batch_first", batch_first)
        self.dropout = _probability("dropout", dropout)
        if self.dropout and num_layers == 1:
            warnings.warn("dropout acts between layers, and num_layers is 1", stacklevel=2)
        self.training = True
        self._xp = getattr(module, "cp", np)
        self._directions = 2 if bidirectional else 1
        self._sizes = self._named_sizes(further)
        self.input_size = _positive("input_size", self._told(input_size))
        self._widths = self._stacked()
        *seeds, self._rng = np.random.default_rng(seed).spawn(self.num_layers * self._directions + 1)
        self._cells = tuple(self._made(seeds, dtype, further))
        self._run: _Run | None = None

    def __repr__(self) -> str:
        options = [f"num_layers={self.num_layers}"] * (self.num_layers > 1)
        options += [f"{name}=True" for name in ("bidirectional", "batch_first") if getattr(self, name)]
        options += [f"dropout={self.dropout}"] * (self.dropout > 0)
        options += [f"{name}={size}" for name, size in self._sizes.items() if name != "hidden"]
        return f"RNN({', '.join([self.module.NAME, str(self.input_size), str(self.hidden_size), *options])})"

    def __deepcopy__(self, memo: dict[int, Any]) -> RNN:
        """A net of its own, over the same module."""
        memo |= {id(shared): shared for shared in (self.module, self._xp)}
        made = memo[id(self)] = object.__new__(type(self))
        vars(made).update(deepcopy(vars(self), memo))
        return made

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: the module by its name, under which it can then be imported."""
        return {**vars(self), "module": self.module.__name__, "_xp": self._xp.__name__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        found = {key: import_module(state[key]) for key in ("module", "_xp")}
        vars(self).update(state | found)

    @property
    def cells(self) -> tuple[_Cell, ...]:
        """The module once for every layer and direction, with what it holds there."""
        return self._cells

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes by name, but that of x, which differs between layers."""
        return dict(self._sizes)

    @property
    def widths(self) -> tuple[int, ...]:
        """The size of x in every layer."""
        return self._widths

    # ------------------------------------------------------------------------------------------ running

    def __call__(
        self,
        /,
        x: Array,
        initial: Any = None,
        lengths: Any = None,
        *,
        tape: bool | None = True,
        parallel: bool = False,
        **inputs: Array,
    ) -> tuple[Any, Any]:
        """The outputs and the final states.

        x: (T, B, input), with `batch_first` (B, T, input); one sequence alone: (T, input).
        initial: the states before the first step, (layers * directions, B, size) each; layer by layer, in
            each the forward direction first. The module's `States`, a mapping, a sequence, or for one state
            an array; None for the cell's own start.
        lengths: (B,) integers from 0 to T. Behind its length a sequence keeps its state, its outputs are 0;
            the backward direction starts at its end.
        tape: False or None saves nothing for `backward`.
        parallel: True to find the states of all steps at once, where the module can.
        inputs: the further inputs of the cell, laid out as x, or (B, size) where constant in time. Every
            layer reads them.

        The outputs are laid out as x: (T, B, directions * size), a tuple where the cell has several. The
        final states are `States`, shaped as `initial`.
        """
        x = self._checked_x(x)
        layout = Layout.of(x, self.batch_first, self._rank())
        inputs = self._checked_inputs(inputs, layout)
        starts = self._split_states("initial", initial, layout)
        order = None
        if lengths is not None:
            lengths = checked_lengths(lengths, layout)
            order = self._xp.asarray(reversal(lengths, layout.steps)), self._xp.arange(layout.batch)

        tape = tape is not None and _flag("tape", tape)
        self._run = None
        tapes, masks, finals = [], [], []
        outputs: tuple[Array, ...] = (layout.inward(x, self._rank()),)
        for layer in range(self.num_layers):
            masks.append(self._mask(outputs[0]) if layer else None)
            below = outputs[0] if masks[-1] is None else outputs[0] * masks[-1]

            def run(direction: int, cell: _Cell, start: Any, below: Array = below) -> Any:
                given = {
                    name: turned(value, direction, order, self._rank(name)) for name, value in inputs.items()
                }
                if cell.buffers is not None:
                    given |= {"buffers": cell.buffers, "training": self.training}
                given |= {"parallel": True} if parallel else {}
                x = turned(below, direction, order)
                return self.module.forward(cell.params, x, initial=start, lengths=lengths, tape=tape, **given)

            sides = []
            for direction, (y, final, saved) in enumerate(self._both(run, layer, starts, layout)):
                sides.append([turned(part, direction, order) for part in (y if self._several else (y,))])
                finals.append(final)
                tapes.append(saved)
            outputs = tuple(side_by_side(self._xp, parts) for parts in zip(*sides, strict=True))
        if tape:
            self._run = _Run(layout, order, tuple(tapes), tuple(masks))
        outputs = tuple(layout.outward(output) for output in outputs)
        return outputs if self._several else outputs[0], self._joined_states(finals, layout)

    def backward(self, d_y: Any, d_final: Any = None) -> Grads:
        """Pull gradients back through the last run, of which it forgets nothing: one may ask again.

        d_y: the gradient of the outputs, shaped as they are; None where only the final states count.
        d_final: the gradient of the final states, given as `initial` is; None for 0.
        """
        run = self._run
        if run is None:
            raise RuntimeError("backward follows a run: call the net, with tape=True, before it")
        above = self._checked_gradients(d_y, run.layout)
        ends = self._split_states("d_final", d_final, run.layout)
        params: dict[str, dict[str, Array]] = {}
        initial: dict[str, Any] = {}
        inputs: dict[str, Array] = {}
        for layer in reversed(range(self.num_layers)):
            below = None

            def pull(
                direction: int, cell: _Cell, end: Any, layer: int = layer, above: list[Array] = above
            ) -> Any:
                parts = [
                    None if d is None else turned(side(d, direction, self._directions), direction, run.order)
                    for d in above
                ]
                tape = run.tapes[layer * self._directions + direction]
                return self.module.backward(cell.params, tape, parts if self._several else parts[0], end)

            each = self._both(pull, layer, ends, run.layout)
            for (direction, cell, _), found in zip(self._of_layer(layer, ends), each, strict=True):
                params[cell.suffix] = self._trained(found.params)
                initial[cell.suffix] = found.initial
                below = added(below, turned(found.x, direction, run.order))
                for name in self._further:
                    part = turned(getattr(found, name), direction, run.order, self._rank(name))
                    inputs[name] = added(inputs.get(name), part)
            if run.masks[layer] is not None:
                below = below * run.masks[layer]
            above = [below, *[None] * (len(above) - 1)]
        return Grads(
            {name + c.suffix: d for c in self._cells for name, d in params[c.suffix].items()},
            run.layout.outward(above[0], self._rank()),
            self._joined_states([initial[c.suffix] for c in self._cells], run.layout),
            {name: run.layout.outward(d, self._rank(name)) for name, d in inputs.items()},
        )

    def train(self, mode: bool = True) -> RNN:
        """Runs from now on use dropout, and the batch's own statistics in a cell with batch normalisation."""
        self.training = _flag("mode", mode)
        return self

    def eval(self) -> RNN:
        """Runs from now on use no dropout, and running statistics."""
        return self.train(False)

    # ------------------------------------------------------------------------------------------ parameters

    def parameters(self) -> dict[str, Array]:
        """Every parameter by its name in the cell, layer and direction: `W_z_l0`, `W_z_l0_reverse`, `W_z_l1`.

        They are the net's own: to change one in place is to change the net, and another array in its place is
        refused. Fixed ones are not among them.
        """
        return _Own(
            (name + cell.suffix, array)
            for cell in self._cells
            for name, array in self._trained(cell.params).items()
        )

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copies, on the host: parameters, fixed ones too, and running statistics of batch normalisation."""
        return {name: np.array(host(array)) for name, array in self._held().items()}

    def load_state_dict(self, state: Mapping[str, Any], *, other_cell: bool = False) -> None:
        """Take over all that a `state_dict` holds, or nothing; dtype and backend may differ.

        `state` may also be what `np.load` reads of a file of `save`, and is then checked as by `load`. Raises
        TypeError and ValueError.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state is {kind(state)}, expected a mapping from names to arrays")
        if RECORD in state:
            self._refuse_other(read_record(state[RECORD]), other_cell)
            state = {name: state[name] for name in state if name != RECORD}
        held = self._held()
        if missing := sorted(set(held) - set(state)):
            raise ValueError(f"state lacks {missing}")
        if unknown := sorted(map(str, set(state) - set(held))):
            raise ValueError(f"state has {unknown}, expected {sorted(held)}")
        values = {name: np.asarray(host(value)) for name, value in state.items()}
        for name, value in values.items():
            if value.dtype.kind not in "biuf" and value.dtype.name != "bfloat16":
                raise TypeError(f"state[{name!r}] has dtype {value.dtype}, expected {held[name].dtype}")
            if value.shape != held[name].shape:
                raise ValueError(f"state[{name!r}] has shape {value.shape}, expected {held[name].shape}")
        for name, array in held.items():
            array[...] = self._xp.asarray(values[name].astype(array.dtype))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the `state_dict` to a file of NumPy's format npz, whole or not at all.

        The file also says of which cell and sizes it is. One that is there is replaced and keeps its mode; a
        link is followed. Raises OSError, also for what is no regular file.
        """
        write(path, self.state_dict(), self._record())

    def load(self, path: str | os.PathLike[str], *, other_cell: bool = False) -> None:
        """Take over what `save` wrote, all of it or nothing.

        Raises ValueError for another file, for one of a net of another cell and for one of other sizes.
        `other_cell=True` takes also the parameters of another cell, where names and shapes are the same: one
        that was renamed, or whose equations were written anew.
        """
        state = read(path)
        try:
            self.load_state_dict(state, other_cell=other_cell)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{os.fspath(path)}: {error}") from None

    def _record(self) -> dict[str, Any]:
        """Whose parameters these are."""
        return {
            "cell": self.module.NAME,
            "spec_sha256": self.module.SPEC_SHA256,
            "equations": list(self.module.EQUATIONS),
            "sizes": {"input": self.input_size, **self._sizes},
            "num_layers": self.num_layers,
            "bidirectional": self.bidirectional,
        }

    def _refuse_other(self, found: Mapping[str, Any], other_cell: bool) -> None:
        """A ValueError where a record is that of another net."""
        if other_cell:
            return
        own = self._record()
        if found.get("spec_sha256") != own["spec_sha256"]:
            raise ValueError(
                f"these are parameters of the cell {found.get('cell')}, and this net is of {own['cell']}, "
                f"{_difference(found.get('equations'), own['equations'])}. Make a net of the module that "
                "they were saved with; where they are meant for this cell as well, load with other_cell=True"
            )
        for name in ("sizes", "num_layers", "bidirectional"):
            if found.get(name) != own[name]:
                raise ValueError(f"{name} was {found.get(name)}, and is {own[name]} in this net")

    def _held(self) -> dict[str, Array]:
        """All that a `state_dict` holds: the arrays themselves."""
        held = dict(self.parameters())
        for cell in self._cells:
            arrays = self.module.unpack(cell.params)
            held |= {name + cell.suffix: arrays[name] for name in self._fixed}
            buffers = {} if cell.buffers is None else cell.buffers._asdict()
            held |= {name + cell.suffix: array for name, array in buffers.items()}
        return held

    # ------------------------------------------------------------------------------------------ others

    @classmethod
    def from_torch(cls, source: Any, module: ModuleType | None = None, *, dtype: Any = None) -> RNN:
        """The net that is an `nn.GRU`, `nn.LSTM`, `nn.RNN`, one of their `Cell`s, or has its `state_dict`.

        module: that of the cell, which is told by its equations; without one, `generated.<cell>_numpy` of
            gru_after, lstm, rnn, irnn (relu) or lstm_sak (with a projection) is imported, or compiled.
        dtype: by default float64 if that of the weights is, else float32.

        Biases that are missing are 0, two that are only added become one. Raises TypeError and ValueError.
        """
        return cls._of(of_torch(source, module), dtype)

    @classmethod
    def from_keras(cls, source: Any, module: ModuleType | None = None, *, dtype: Any = None) -> RNN:
        """The net that is a layer `GRU`, `LSTM`, `SimpleRNN` of Keras, `Bidirectional` of one, or several of
        them, one on the other; or that has their weights, as `get_weights` gives them.

        `module` and `dtype` as in `from_torch`; the cell of a GRU is gru_after or, with `reset_after=False`,
        gru_before. The net is `batch_first`. Raises TypeError and ValueError.
        """
        return cls._of(of_keras(source, module), dtype)

    @classmethod
    def from_onnx(
        cls,
        source: Any,
        nodes: str | Iterable[str] | None = None,
        module: ModuleType | None = None,
        *,
        arrays: Mapping[str, Any] | None = None,
        dtype: Any = None,
    ) -> RNN:
        """The net that does what nodes GRU, LSTM or RNN of a model do.

        source: the path of a model, a model, or one node.
        nodes: the names of the nodes that are the layers, from the first; needed where there are several.
        module, dtype: as in `from_torch`; also gru_before, lstm_peephole and lstm_cifg are found.
        arrays: W, R, and perhaps B and P of a node that is given without its model.

        Raises TypeError, ValueError, OSError, and ModuleNotFoundError without the package onnx.
        """
        return cls._of(of_onnx(source, nodes, arrays, module), dtype)

    @classmethod
    def _of(cls, found: Found, dtype: Any) -> RNN:
        """A net of what was found elsewhere, where a run begins at 0."""
        cell, named = found.cell, found.named
        W, ends = named[f"W_{cell.gates[0]}_l0"], {name.rpartition("_l")[2] for name in named}
        layers = len({end.partition("_")[0] for end in ends})
        sizes: dict[str, Any] = {"projection": len(named[f"{cell.projection}_l0"])} if cell.projection else {}
        net = cls(
            found.module,
            W.shape[1],
            W.shape[0],
            layers,
            bidirectional=len(ends) > layers,
            dtype=dtype or ("float64" if W.dtype == np.float64 else "float32"),
            **found.options,
            **sizes,
        )
        net.load_state_dict(named)
        net._known()
        return net.train(found.training)

    def to_torch(self) -> Any:
        """The same as an `nn.GRU`, `nn.LSTM` or `nn.RNN` on the CPU, with copies of the parameters.

        Raises ValueError for a cell that PyTorch does not have, and for peepholes that are not 0.
        """
        return made_torch(
            named_to_torch(self.state_dict(), self._known()),
            self._known(),
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            batch_first=self.batch_first,
            dropout=self.dropout,
        ).train(self.training)

    def to_keras(self) -> list[list[np.ndarray[Any, Any]]]:
        """What `set_weights` of layers of Keras takes, a list for every layer, biases always among them.

        The layers are `GRU` (with `reset_after` for gru_after), `LSTM` or `SimpleRNN`, or `Bidirectional` of
        one. Raises ValueError for a cell that Keras does not have, and for peepholes that are not 0.
        """
        return named_to_keras(self.state_dict(), self._known())

    def to_onnx(
        self,
        path: str | os.PathLike[str],
        *,
        cell: Any = None,
        native: bool = False,
        constant: Sequence[str] = (),
        lengths: bool = True,
        initial: bool = True,
        opset: int = 17,
        force: bool = False,
    ) -> None:
        """Write the net as an ONNX model for inference; a file that gategen wrote is replaced.

        Inputs are x and the further inputs; lengths and initial_<state> may be left out. Outputs are y and
        final_<state>. All are shaped as in a call of the net with several sequences; T and B are open.

        cell: the cell of the module, its name or its file, where the net was made of a module of another cell
            than a built-in one.
        native: with ONNX's own GRU, LSTM or RNN, for a cell that ONNX has.
        constant: the names of further inputs that are (B, size), constant in time.
        lengths, initial: whether the model has these inputs. Without them nothing in it has a default value.
        force: also replace a file that gategen did not write.

        Raises `gategen.errors.GategenError`, also without the package onnx, and ValueError for a cell that
        ONNX does not have.
        """
        from gategen import onnx

        state = self.state_dict()
        layers: tuple[onnx.Native, ...] = ()
        if _flag("native", native):
            known = self._known()
            arrays = named_to_onnx(state, known)
            layers = tuple(
                onnx.Native(known.kind, onnx_attributes(known, self._directions), part) for part in arrays
            )
        net = onnx.Net(
            onnx.cell_of(self.module.NAME, self.module.SPEC_SHA256, cell),
            {"input": self.input_size, **self._sizes},
            state,
            self.num_layers,
            self.bidirectional,
            self.batch_first,
            layers,
            tuple(constant),
            _flag("lengths", lengths),
            _flag("initial", initial),
        )
        onnx.export(path, net, opset=opset, force=force)

    def _known(self) -> Known:
        """The cell as other libraries have it. Raises ValueError where they have none such.

        There a run starts from 0 and weights are whole; equations alone do not say so, but one step and the
        shapes do.
        """
        cell = known(self.module.EQUATIONS, self.module.NAME)
        params, *_ = (cell.params for cell in self._cells)
        x = self._xp.ones((1, 1, self.input_size), params[0].dtype)
        own = self.module.forward(params, x, tape=False)[1]
        start = self.module.States(*(self._xp.zeros_like(state) for state in own))
        other = self.module.forward(params, x, initial=start, tape=False)[1]
        if not all(np.array_equal(host(a), host(b), equal_nan=True) for a, b in zip(own, other, strict=True)):
            raise ValueError(
                f"{self.module.NAME} has a start of its own; in other libraries a run starts from 0"
            )
        name = f"{cell.recurrent}_{cell.gates[0]}"
        columns, width = self.module.unpack(params)[name].shape[1], own[0].shape[-1]
        if columns != width:
            raise ValueError(
                f"{self.module.NAME} has weights in blocks, {name} with {columns} columns, not {width}; "
                "other libraries have whole ones"
            )
        return cell

    # ------------------------------------------------------------------------------------------ making

    @property
    def _several(self) -> bool:
        return len(self.module.OUTPUTS) > 1

    @property
    def _fixed(self) -> tuple[str, ...]:
        """The names of the parameters that training does not change."""
        return getattr(self.module, "FIXED", ())

    def _trained(self, params: Any) -> dict[str, Array]:
        """What training changes, or the gradients of it, by name."""
        return {name: a for name, a in self.module.unpack(params).items() if name not in self._fixed}

    @property
    def _further(self) -> list[str]:
        """The names of the inputs beside x."""
        return list(self.module.INPUTS)[1:]

    def _named_sizes(self, given: Mapping[str, Any]) -> dict[str, int]:
        """What the names of sizes stand for; `input` differs between layers."""
        further = [size for size in self.module.SIZES if size not in ("input", "hidden")]
        takes = {n: p for n, p in signature(self.module.init).parameters.items() if n not in _ARGUMENTS}
        arguments = [name for name, parameter in takes.items() if parameter.default is parameter.empty]
        contents = [name for name in takes if name not in arguments]
        if set(arguments) != set(given) - set(contents):
            wants = f"takes the further sizes {arguments}" if arguments else "takes no further sizes"
            wants += f" and the contents {contents}" if contents else ""
            raise TypeError(f"{self.module.NAME} {wants}, but {sorted(given)} were given")
        values = (_positive(name, given[name]) for name in arguments)
        return {"hidden": self.hidden_size, **dict(zip(further, values, strict=True))}

    def _told(self, input_size: Any) -> Any:
        """`input_size`, or the size of x where nothing has the size `input` and the caller gives none."""
        size = next(iter(self.module.INPUTS.values()))
        asked = signature(self.module.init).parameters["input_size"]
        if input_size is not None or asked.default is asked.empty:
            return input_size
        size = _parts(size)[-1]
        return length_of(size, self._sizes)

    def _rank(self, name: str = "") -> int:
        """How many axes a row of an input has; without a name, of x."""
        return len(_parts(self.module.INPUTS[name or next(iter(self.module.INPUTS))]))

    def _stacked(self) -> tuple[int, ...]:
        """The size of x in every layer."""
        sequence, *others = self.module.INPUTS.values()
        output = next(iter(self.module.OUTPUTS.values()))
        ends = [_parts(sequence), _parts(output)]
        if self.num_layers > 1 and len({len(size) for size in ends}) > 1:
            kinds = ["a matrix for every row" if len(size) > 1 else "a vector" for size in ends]
            raise ValueError(
                f"the first output of {self.module.NAME} is {kinds[1]}, but a layer reads {kinds[0]}"
            )
        fits = self._features(ends[0][:-1], 0) == self._features(ends[1][:-1], 0)
        if self.num_layers > 1 and not fits:
            raise ValueError(
                f"the first output of {self.module.NAME} is {output!r}, but a layer reads {sequence!r}"
            )
        sequence, output = ends[0][-1], ends[1][-1]
        widths = [self.input_size]
        for _ in range(1, self.num_layers):
            widths.append(self._directions * self._size(output, widths[-1]))
        for layer, width in enumerate(widths):
            if self._size(sequence, width) != width:
                source = f"the outputs of layer {layer - 1}" if layer else "input_size"
                raise ValueError(
                    f"x of {self.module.NAME} has the size {sequence!r}, here {self._size(sequence, width)}, "
                    f"but in layer {layer} it is given {source}, {width}"
                )
        told = "input" in _names_in((*others, *self.module.STATES.values()))
        if told and len(set(widths)) > 1:
            raise ValueError(
                f"{self.module.NAME} has states or further inputs of the size of x, which must then be the "
                f"same in all layers; it is {widths[0]} in layer 0 and {widths[1]} in layer 1"
            )
        return tuple(widths)

    def _size(self, size: str | int, width: int) -> int:
        """A size in a layer whose x has the size `width`."""
        return length_of(size, {**self._sizes, "input": width})

    def _features(self, size: Any, width: int) -> tuple[int, ...]:
        """The shape of one row of what has this size, both of the sizes of a matrix."""
        return tuple(self._size(part, width) for part in _parts(size))

    def _made(self, seeds: Sequence[Any], dtype: Any, further: Mapping[str, Any]) -> Iterator[_Cell]:
        module = self.module
        for k, seed in enumerate(seeds):
            layer, direction = divmod(k, self._directions)
            known = {"input_size": self._widths[layer], "hidden_size": self.hidden_size, **further}
            params, buffers = module.init(**known, seed=seed, dtype=dtype), None
            if hasattr(module, "Buffers"):
                wanted = signature(module.init_buffers).parameters
                known = {name: size for name, size in known.items() if name in wanted}
                buffers = module.init_buffers(**known, dtype=dtype)
            yield _Cell(f"_l{layer}{'_reverse' * direction}", params, buffers)

    # ------------------------------------------------------------------------------------------ arranging

    def _of_layer(self, layer: int, states: Sequence[Any]) -> Iterator[tuple[int, _Cell, Any]]:
        """The directions of a layer: which it is, the cell, and its states."""
        for direction in range(self._directions):
            k = layer * self._directions + direction
            yield direction, self._cells[k], states[k]

    def _both(
        self, work: Callable[[int, _Cell, Any], Any], layer: int, states: Sequence[Any], layout: Layout
    ) -> list[Any]:
        """`work` for every direction of a layer: at once where the module computes without the interpreter,
        and the rows are too few to be shared out among threads.
        """
        first, *others = self._of_layer(layer, states)
        few = layout.batch <= ROWS and layout.steps * layout.batch * self.hidden_size >= MUCH
        alone = os.environ.get("OMP_NUM_THREADS") == "1" or (os.cpu_count() or 1) == 1
        if not others or not few or alone or not hasattr(self.module, "run_c"):
            return [work(*each) for each in (first, *others)]
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(len(others)) as pool:
            later = [pool.submit(work, *each) for each in others]
            return [work(*first), *(one.result() for one in later)]

    def _mask(self, like: Array) -> Array:
        """Dropout of what goes to the next layer; None without."""
        return mask(self._xp, self._rng, self.dropout, like) if self.training and self.dropout else None

    def _split_states(self, label: str, given: Any, layout: Layout) -> list[Any]:
        """What is given for all cells, as the `States` of each; None for None."""
        cells = range(len(self._cells))
        if given is None:
            return [None for _ in cells]
        states = as_states(self.module.States, label, given)._asdict()
        for name, size in self.module.STATES.items():
            array = as_array(self._xp, f"{label}.{name}", states[name])
            shape = len(cells), *layout.constant(*self._features(size, self.input_size))
            expect(f"{label}.{name}", array, shape)
            states[name] = array if layout.batched else array[:, None]
        return [self.module.States(*(array[k] for array in states.values())) for k in cells]

    def _joined_states(self, parts: Sequence[Any], layout: Layout) -> Any:
        """(layers * directions, B, size) each, of the states of every cell."""
        joined = (self._xp.stack(list(arrays)) for arrays in zip(*parts, strict=True))
        return self.module.States(*(array if layout.batched else array[:, 0] for array in joined))

    # ------------------------------------------------------------------------------------------ checking

    def _checked_x(self, x: Any) -> Array:
        x, rank = as_array(self._xp, "x", x), self._rank()
        row = self._features(next(iter(self.module.INPUTS.values())), self.input_size)
        if x.ndim not in (1 + rank, 2 + rank) or x.shape[-rank:] != row:
            axes = "(B, T, {0})" if self.batch_first else "(T, B, {0})"
            expected = f"{axes} or (T, {{0}})".format(", ".join(map(str, row)))
            raise ValueError(f"x has shape {x.shape}, expected {expected}")
        return x

    def _checked_inputs(self, inputs: Mapping[str, Any], layout: Layout) -> dict[str, Array]:
        """The further inputs, (T, B, size) or (B, size)."""
        if set(inputs) != set(self._further):
            wants = f"takes the inputs {['x', *self._further]}"
            raise TypeError(f"{self.module.NAME} {wants}, but {['x', *sorted(inputs)]} were given")
        found = {}
        for name in self._further:
            size = self._features(self.module.INPUTS[name], self.input_size)
            array = as_array(self._xp, name, inputs[name])
            expect(name, array, layout.shape(*size), layout.constant(*size))
            found[name] = layout.inward(array, len(size))
        return found

    def _checked_gradients(self, d_y: Any, layout: Layout) -> list[Array]:
        """The gradients of the outputs, (T, B, directions * size) or None each."""
        sizes = [self._features(size, self._widths[-1]) for size in self.module.OUTPUTS.values()]
        if not self._several:
            parts = [d_y]
        elif d_y is None:
            parts = [None] * len(sizes)
        elif not isinstance(d_y, (tuple, list)) or len(d_y) != len(sizes):
            raise ValueError(f"d_y is {kind(d_y)}, expected {len(sizes)} arrays, one for every output")
        else:
            parts = list(d_y)
        found = []
        for k, (part, size) in enumerate(zip(parts, sizes, strict=True)):
            label = f"d_y[{k}]" if self._several else "d_y"
            if part is not None:
                part = as_array(self._xp, label, part)
                expect(label, part, layout.shape(*size[:-1], self._directions * size[-1]))
                part = layout.inward(part)
            found.append(part)
        return found


# ---------------------------------------------------------------------------------------------- helpers


def _difference(there: Any, here: Sequence[str]) -> str:
    """How the equations of two cells differ, in the first that does."""
    pairs = list(zip_longest(there if isinstance(there, list) else [], here, fillvalue="nothing"))
    one, other = next((pair for pair in pairs if pair[0] != pair[1]), ("", ""))
    if one == other:
        return "with the same equations, but another name, other constants, sizes or initial values"
    return f"whose equations differ: {one} there, {other} here"


def _generated(module: Any) -> ModuleType:
    """The module, or that of a cell."""
    if all(hasattr(module, name) for name in ("forward", "INPUTS", "STATES", "OUTPUTS")):
        return module  # type: ignore[no-any-return]
    if isinstance(module, ModuleType):
        raise TypeError("module is module, expected a module that gategen has generated")
    from gategen.compiled import compile

    return compile(module)


def _names_in(sizes: Iterable[Any]) -> set[str]:
    """The names that sizes are made of: `("heads*keys", "input")` of heads, keys and input."""
    parts = (part for size in sizes for part in _parts(size))
    return {name for part in parts for name in re.split(r"[*/]", str(part))}


def _parts(size: Any) -> tuple[Any, ...]:
    """The sizes of the axes of a value."""
    return size if isinstance(size, tuple) else (size,)


def length_of(size: str | int, sizes: Mapping[str, int]) -> int:
    """A size in numbers, also one such as `heads*keys` or `hidden/heads`.

    As `extent_of` of `spec/names.py`, which layers cannot import: they run without SymPy.
    """
    if isinstance(size, int) or size.isdecimal():
        return int(size)
    if "*" in size:
        return prod(length_of(part, sizes) for part in size.split("*"))
    whole, _, count = size.partition("/")
    return sizes[whole] // (length_of(count, sizes) if count else 1)


def _positive(name: str, value: Any) -> int:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}, expected a positive integer")
    return int(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}, expected True or False")
    return bool(value)


def _probability(name: str, value: Any) -> float:
    if not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise ValueError(f"{name} is {value!r}, expected a number from 0 to 1")
    return float(value)

"""A generated module on the memory of tensors: what it takes and gives, and what lies between its directions.

Nothing is copied on the way, but what lies in memory otherwise than the module needs it. PyTorch's gradients
are not known here: `ops.py` and `function.py` say how they come of these.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from gategen.torch.names import Layout, Source

Tensor = Any
Array = Any  # of NumPy or CuPy


class Call(NamedTuple):
    """What a run is given: tensors, all on one device but the lengths.

    tensors: the parameters, as the layout orders them.
    inputs: (T, B, size) each, or (B, size) beside the first.
    initial: (B, size) for every state, or none for the cell's own start.
    lengths: (B,) int64 on the host, or None.
    buffers: running statistics.
    held: where the arrays of the parameters are kept from run to run.
    """

    tensors: Sequence[Tensor]
    inputs: Sequence[Tensor]
    initial: Sequence[Tensor]
    lengths: Tensor | None
    buffers: Sequence[Tensor]
    training: bool
    held: dict[Any, Any]


class Ran(NamedTuple):
    """What a run gives: tensors, and how the tape is put together again."""

    outputs: list[Tensor]  # (T, B, size) each
    final: list[Tensor]  # (B, size) each
    tape: list[Tensor]
    form: Any


class Gradients(NamedTuple):
    """Gradients of what a run was given, or a direction in which that moves: None where it stands still."""

    tensors: Sequence[Tensor]
    inputs: Sequence[Tensor]
    initial: Sequence[Tensor]


class Pushed(NamedTuple):
    """How the results of a run move, and how its gradients do; these are None where they were not asked."""

    outputs: list[Tensor]
    final: list[Tensor]
    gradients: Gradients | None


class Binding:
    """A generated module, called with tensors.

    A copy of a binding is itself. `pickle` keeps the name of the module, and the cell where it is known;
    without it the module must be importable under its name where it is read, or be that of a built-in cell.
    """

    def __init__(self, module: ModuleType, layout: Layout, cell: Any = None, stored: bytes = b"") -> None:
        """`cell` is what the module was generated from, where that is known; or `stored`, its pickle."""
        self.module = module
        self.layout = layout
        self._cell, self._stored = cell, stored
        self.further = tuple(module.INPUTS)[1:]
        self.ranks = tuple(len(s) if isinstance(s, tuple) else 1 for s in module.INPUTS.values())
        self.several = len(module.OUTPUTS) > 1
        self.backend = "cupy" if hasattr(module, "cp") else "c" if hasattr(module, "library") else "numpy"
        self._seconds: dict[str, ModuleType] = {}
        self.key = f"{module.__name__}@{module.SPEC_SHA256[:16]}"
        _bindings[self.key] = self

    def __deepcopy__(self, memo: Any) -> Binding:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        stored = self._stored or (b"" if self._cell is None else pickle.dumps(self._cell))
        return found, (self.module.__name__, self.module.NAME, self.module.SPEC_SHA256, self.layout, stored)

    @property
    def cell(self) -> Any:
        """What the module was generated from; None where that is not known."""
        if self._cell is None and self._stored:
            self._cell = pickle.loads(self._stored)
        return self._cell

    def run(self, call: Call, tape: bool) -> Ran:
        """`forward` of the module. While training it changes the buffers in place."""
        host = host_of(call.inputs[0])
        with host.current():
            module, array, tensor = self.on(host), host.array, host.tensor
            inputs = [array(given) for given in call.inputs]
            y, final, left = self._forward(module, call, inputs, array, tape)
            arrays: list[Array] = []
            form = taken_apart(left, inputs, arrays)
            outputs = y if self.several else (y,)
            return Ran([*map(tensor, outputs)], [*map(tensor, final)], [*map(tensor, arrays)], form)

    def _forward(
        self, module: ModuleType, call: Call, inputs: Sequence[Array], array: Any, tape: bool
    ) -> Any:
        """What `forward` of a module gives; `inputs` are those of the call as its arrays."""
        further: dict[str, Any] = dict(zip(self.further, inputs[1:], strict=True))
        if call.buffers:
            further["buffers"] = module.Buffers(*map(array, call.buffers))
            further["training"] = call.training
        return module.forward(
            self.params(module, call, array),
            inputs[0],
            initial=module.States(*map(array, call.initial)) if call.initial else None,
            lengths=None if call.lengths is None else call.lengths.numpy(),
            tape=tape,
            **further,
        )

    def pull(
        self,
        call: Call,
        tape: Sequence[Tensor],
        form: Any,
        d_outputs: Sequence[Tensor],
        d_final: Sequence[Tensor],
    ) -> Gradients:
        """`backward` of the module, of a run with this call."""
        host = host_of(call.inputs[0])
        with host.current():
            module, array, tensor = self.on(host), host.array, host.tensor
            inputs = [array(given) for given in call.inputs]
            left = put_together(form, inputs, [array(given) for given in tape])
            d_y = [array(d) for d in d_outputs]
            grads = module.backward(
                self.params(module, call, array),
                left,
                d_y if self.several else d_y[0],
                module.States(*map(array, d_final)),
            )
            return self._gradients(grads, call, tensor)

    def push(
        self, call: Call, tape: Sequence[Tensor], form: Any, moved: Gradients, pulled: Any = None
    ) -> Pushed:
        """How a run with this call moves in a direction: `jvp` of the module of second derivatives.

        pulled: the gradients of the outputs and of the final states that `pull` was given, two sequences. How
            the gradients move that it gave is then found as well, by `backward_jvp`.
        """
        host = host_of(call.inputs[0])
        with host.current():
            module, second = self.on(host), self.second(host)
            array, tensor = host.array, host.tensor
            inputs = [array(given) for given in call.inputs]
            if module is self.module and self.backend == "c":  # its tape has no second derivatives
                module = self._beside(host.backend)
                unchanged = call._replace(buffers=[buffer.clone() for buffer in call.buffers])
                _, _, left = self._forward(module, unchanged, inputs, array, True)
            else:
                left = put_together(form, inputs, [array(given) for given in tape])
            params = self.params(module, call, array)
            still = [
                torch.zeros_like(t) if d is None else d
                for t, d in zip(call.tensors, moved.tensors, strict=True)
            ]
            direction = second.Grads(
                module.Params(*(field_of(source, still, array) for source in self.layout.sources)),
                *(None if d is None else array(d) for d in moved.inputs),
                second.States(*(None if d is None else array(d) for d in moved.initial))
                if moved.initial
                else None,
            )
            d_y, d_final, tangent = second.jvp(params, left, direction)
            outputs = d_y if self.several else (d_y,)
            gradients = None
            if pulled is not None:
                d_outputs = [array(d) for d in pulled[0]]
                grads = second.backward_jvp(
                    params,
                    left,
                    tangent,
                    d_outputs if self.several else d_outputs[0],
                    second.States(*map(array, pulled[1])),
                )
                gradients = self._gradients(grads, call, tensor)
            return Pushed([*map(tensor, outputs)], [*map(tensor, d_final)], gradients)

    def _gradients(self, grads: Any, call: Call, tensor: Any) -> Gradients:
        return Gradients(
            [*map(tensor, self.of_tensors(grads.params, call.tensors))],
            [*map(tensor, grads[1:-1])],
            [*map(tensor, grads.initial)] if call.initial else [],
        )

    def second(self, host: Host) -> ModuleType:
        """The module of second derivatives for this host. Raises RuntimeError where there is none."""
        if host.backend not in self._seconds:
            self._seconds[host.backend] = self._beside(f"{host.backend}_jvp")
        return self._seconds[host.backend]

    def on(self, host: Host) -> ModuleType:
        """The module for this host: the one given, or its neighbour of the other backend."""
        own = host.backend, *(["c"] if host.backend == "numpy" else [])
        return self.module if self.backend in own else self._beside(host.backend)

    def _beside(self, backend: str) -> ModuleType:
        """The module of the same cell for another backend. Raises RuntimeError where there is none."""
        if self.cell is not None:
            return _compiled(self.cell, backend)
        name = f"{self.module.__name__.rpartition('_')[0]}_{backend}"
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            module = _built_in(self.module.NAME, self.module.SPEC_SHA256, backend)
        if module is None or module.SPEC_SHA256 != self.module.SPEC_SHA256:
            raise RuntimeError(
                f"there is no {name} of the cell of {self.module.__name__}, and it is needed here: "
                f"`gategen build --backend {backend}` writes it, or give the cell itself"
            )
        return module

    # ------------------------------------------------------------------------------------------ parameters

    def params(self, module: ModuleType, call: Call, array: Any) -> Any:
        """The module's `Params`, on the memory of the tensors wherever that lies as it should.

        Where nothing had to be copied, they are kept, until a tensor lies elsewhere.
        """
        places = [(tensor.data_ptr(), tensor.is_contiguous()) for tensor in call.tensors]
        known = call.held.get(module)
        if known is not None and known[0] == places:
            return known[1]
        tensors = call.tensors
        made = module.Params(*(field_of(source, tensors, array) for source in self.layout.sources))
        firsts = (places[source.tensors[0]] for source in self.layout.sources)
        if all((_place(field), True) == first for field, first in zip(made, firsts, strict=True)):
            call.held[module] = places, made
        return made

    def of_tensors(self, fields: Sequence[Array], like: Sequence[Any]) -> list[Array]:
        """What the tensors of the layer hold, or their gradients, from the same of the fields.

        `like` are as high as the tensors, where the layout has one for every parameter.
        """
        found: list[Array] = [None] * len(self.layout.names)
        for field, source in zip(fields, self.layout.sources, strict=True):
            if source.blocks:
                blocks = field.reshape(len(source.blocks), -1, *field.shape[1:])
                for number in source.tensors:  # each gets memory of its own
                    found[number] = blocks.take(_inverse(source.blocks), axis=0).reshape(field.shape)
            elif len(source.tensors) == 1:
                found[source.tensors[0]] = field
            else:
                start = 0
                for number in source.tensors:
                    end = start + like[number].shape[0]
                    found[number] = field[start:end]
                    start = end
        return found


def field_of(source: Source, tensors: Sequence[Tensor], array: Any) -> Array:
    """A field of `Params`."""
    first, *others = (tensors[number] for number in source.tensors)
    if source.blocks:
        total = array(first) + array(others[0]) if others else array(first)
        blocks = total.reshape(len(source.blocks), -1, *total.shape[1:])
        return blocks.take(source.blocks, axis=0).reshape(total.shape) if len(blocks) > 1 else total
    return array(stacked(first, *others) if others else first)


def stacked(first: Tensor, *others: Tensor) -> Tensor:
    """The tensors one under the other: on their own memory where they lie there so, else a copy."""
    end = first.data_ptr()
    for tensor in (first, *others):
        if tensor.data_ptr() != end or not tensor.is_contiguous():
            return torch.cat((first, *others))
        end += tensor.nbytes
    whole = first.untyped_storage()
    if end > whole.data_ptr() + whole.nbytes():
        return torch.cat((first, *others))
    rows = sum(tensor.shape[0] for tensor in (first, *others))
    return first.as_strided((rows, *first.shape[1:]), first.stride())


def _place(array: Array) -> int:
    """Where the first entry lies."""
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)


def split(values: Sequence[Any], counts: Sequence[int]) -> list[list[Any]]:
    """The values in groups of so many; what is left comes last."""
    parts, start = [], 0
    for count in counts:
        parts.append(list(values[start : start + count]))
        start += count
    return [*parts, list(values[start:])]


def _inverse(order: Sequence[int]) -> list[int]:
    return [order.index(k) for k in range(len(order))]


# ------------------------------------------------------------------------------------------ finding modules

_bindings: dict[str, Binding] = {}


def bound(key: str) -> Binding:
    """The binding with that key. Raises RuntimeError where this process has none."""
    if key not in _bindings:
        raise RuntimeError(
            f"this process has no layer of {key.partition('@')[0]} yet: make one before its graph runs"
        )
    return _bindings[key]


def found(name: str, cell: str, sha: str, layout: Layout, stored: bytes = b"") -> Binding:
    """The binding of a module by its name. Raises RuntimeError where no such module can be found or made."""
    try:
        module = import_module(name)
    except ImportError:
        backend = backend_of(name)
        module = _compiled(pickle.loads(stored), backend) if stored else _built_in(cell, sha, backend)
    if module is None or sha != module.SPEC_SHA256:
        raise RuntimeError(
            f"{name}, the module of this layer of {cell}, cannot be imported, or is of another cell"
        )
    return _bindings.get(f"{module.__name__}@{sha[:16]}") or Binding(module, layout, None, stored)


def backend_of(module: str) -> str:
    """The backend of a module with that name: `gru_numpy`, or `gru_c_` and digits where it was compiled."""
    found = re.search(r"_(numpy|cupy|c)(_[0-9a-f]{16})?$", module)
    return found[1] if found else "numpy"


def _compiled(cell: Any, backend: str) -> ModuleType:
    from gategen.compiled import compile

    return compile(cell, backend)


def _built_in(name: str, sha: str, backend: str) -> Any:
    """The module of a built-in cell, compiled; None where there is none that is the same."""
    from gategen.spec.load import find_builtin

    cell = find_builtin(name)
    module = None if cell is None else _compiled(cell, backend)
    return module if module is not None and sha == module.SPEC_SHA256 else None


# ------------------------------------------------------------------------------------------ the tape


@dataclass(frozen=True)
class Given:
    """In the form of a tape: the input of that number, which the tape holds as it is, or at every step."""

    number: int
    constant: bool


@dataclass(frozen=True)
class Kept:
    """In the form of a tape: the array of that number, or for `single` its one entry."""

    number: int
    single: bool = False


def taken_apart(value: Any, inputs: Sequence[Array], arrays: list[Array]) -> Any:
    """The form of a tape, or of a part of it; its own arrays go into `arrays`."""
    if hasattr(value, "ndim"):
        for number, given in enumerate(inputs):
            if value is given or value.base is given:
                return Given(number, value.ndim > given.ndim)
        arrays.append(value)
        return Kept(len(arrays) - 1)
    if isinstance(value, float):
        arrays.append(np.array(value))
        return Kept(len(arrays) - 1, single=True)
    if isinstance(value, (tuple, list)):
        parts = [taken_apart(part, inputs, arrays) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def put_together(form: Any, inputs: Sequence[Array], arrays: Sequence[Array]) -> Any:
    """The tape of that form."""
    match form:
        case Given(number, constant):
            given = inputs[number]
            return np.broadcast_to(given, (len(inputs[0]), *given.shape)) if constant else given
        case Kept(number, single):
            return float(arrays[number]) if single else arrays[number]
        case tuple():
            parts = (put_together(part, inputs, arrays) for part in form)
            return type(form)(*parts) if hasattr(form, "_fields") else list(parts)
    return form


# ------------------------------------------------------------------------------------------ hosts


class Host(NamedTuple):
    """Where a module runs: how tensors become its arrays and back, and what must be current meanwhile."""

    backend: str
    array: Any
    tensor: Any
    current: Any


def _tensor_of(array: Array) -> Tensor:
    return torch.from_numpy(np.asarray(array))


def _array_of(tensor: Tensor) -> Array:
    try:
        return tensor.numpy()
    except RuntimeError:  # it is of other signs than its memory, as the imaginary part of a conjugate
        if not tensor.is_neg():
            raise
        return tensor.resolve_neg().numpy()


_CPU = Host("numpy", _array_of, _tensor_of, nullcontext)


def host_of(tensor: Tensor) -> Host:
    """NumPy for the memory of the CPU; for that of a GPU CuPy, on the device and the stream of the caller."""
    if tensor.device.type == "cpu":
        return _CPU
    if tensor.device.type != "cuda":
        raise RuntimeError(
            f"expected tensors on the CPU or on a CUDA device, but they are on {tensor.device}"
        )
    import cupy

    def current() -> AbstractContextManager[Any]:
        stack = ExitStack()
        stack.enter_context(cupy.cuda.Device(tensor.device.index))
        stream = torch.cuda.current_stream(tensor.device).cuda_stream
        stack.enter_context(cupy.cuda.ExternalStream(stream, tensor.device.index))
        return stack

    def array(given: Tensor) -> Array:
        if given.device.type == "cpu":  # a number of the tape
            return given.numpy()
        if not given.numel():
            return cupy.empty(tuple(given.shape), str(given.dtype).removeprefix("torch."))
        return cupy.from_dlpack(given.detach())

    return Host("cupy", array, torch.from_dlpack, current)

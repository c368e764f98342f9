"""Loading the library of a .cu file and launching its kernels on arrays of host memory.

Arguments are checked against the kernel's declaration as the compiler saw it.  CuPy passes whatever width it
is given; here an `int` parameter wants `numpy.int32` and a `float*` an array of float32.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
from numpy.lib.array_utils import byte_bounds

from gategen.emulator import build
from gategen.emulator.arrays import host, ndarray
from gategen.emulator.device import current as device
from gategen.emulator.errors import EmulatorError, HostError
from gategen.emulator.memory import guarded
from gategen.emulator.races import Extent, described
from gategen.emulator.settings import ORDERS, current
from gategen.emulator.tally import note
from gategen.files import CACHE

_KIND_NAMES = {
    "f": {4: "float", 8: "double"},
    "e": {2: "__half"},
    "b": {2: "__nv_bfloat16"},
    "?": {1: "bool"},
    "i": {1: "char", 2: "short", 4: "int", 8: "long long"},
    "u": {1: "unsigned char", 2: "unsigned short", 4: "unsigned", 8: "unsigned long long"},
}
_DTYPES = {"f": "float{}", "e": "float16", "b": "bfloat16", "?": "bool", "i": "int{}", "u": "uint{}"}

MAX_SHARED = 48 * 1024  # bytes a block may use unless the kernel's max_dynamic_shared_size_bytes says more
STACK_BYTES = 256 * 1024  # of one thread


# ------------------------------------------------------------------------------------------ runtime.h


class _Parameter(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_char), ("pointer", ctypes.c_char), ("size", ctypes.c_int))


class _Kernel(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("run", ctypes.c_void_p),
        ("count", ctypes.c_int),
        ("parameters", ctypes.POINTER(_Parameter)),
    )


class _Launch(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_ulonglong),
        ("stack_bytes", ctypes.c_ulonglong),
        ("seed", ctypes.c_ulonglong),
        ("order", ctypes.c_int),
        ("residency", ctypes.c_uint),
    )


class _Report(ctypes.Structure):
    _fields_ = (
        ("status", ctypes.c_int),
        ("block", ctypes.c_uint * 3),
        *((name, ctypes.c_int) for name in ("threads", "at_barrier", "at_warp", "polling", "exited")),
        ("line", ctypes.c_int),
        ("other_line", ctypes.c_int),
        ("not_started", ctypes.c_uint),
    )


# By number, as enum Status in runtime.h.
_FAULTS = (
    "",
    "divergent barrier at line {line}",
    "divergent barrier: some threads wait at line {line}, another came to line {other_line}",
    "warp collective at line {line}: the threads' masks differ or leave out a calling thread",
    "no progress: the threads that still run wait for something that nobody does",
    "wrote outside its dynamic shared memory (shared_mem is {shared} bytes)",
    "a thread used more than {stack} bytes of stack",
    "no memory for the threads' stacks",
)
_STUCK = 4


# ------------------------------------------------------------------------------------------ parameters


class Parameter(NamedTuple):
    """`size` is that of the value or of what is pointed to; `kind` its letter in cuda.h."""

    name: str
    kind: str
    size: int
    pointer: bool

    def __str__(self) -> str:
        c_type = _KIND_NAMES.get(self.kind, {}).get(self.size, "void" if self.size == 0 else "struct")
        return f"{self.name} ({c_type}{'*' if self.pointer else ''})"

    @property
    def dtype(self) -> str | None:
        """NumPy's name of the type; None for one that NumPy does not have."""
        template = _DTYPES.get(self.kind)
        return template.format(8 * self.size) if template else None


def _wanted(parameter: Parameter) -> str:
    if parameter.pointer:
        return f"an array of {parameter.dtype}" if parameter.dtype else "an array"
    return f"numpy.{parameter.dtype}" if parameter.dtype else "a type that CuPy cannot pass"


def _given(value: object) -> str:
    if isinstance(value, ndarray):
        return f"an array of {value.dtype}"
    if isinstance(value, np.ndarray):
        return "a numpy.ndarray, which is not on the device"
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _as_scalar(value: object) -> np.generic | None:
    """The NumPy scalar that CuPy would pass."""
    if isinstance(value, np.generic):
        return value
    python: dict[type, Callable[[Any], np.generic]] = {bool: np.bool_, int: np.int64, float: np.float64}
    convert = python.get(type(value))
    return convert(value) if convert else None


def _fits(parameter: Parameter, value: object) -> bool:
    if parameter.pointer:
        if value is None:
            return True
        same = parameter.dtype is None or parameter.dtype == str(getattr(value, "dtype", ""))
        return isinstance(value, ndarray) and same
    scalar = _as_scalar(value)
    return scalar is not None and str(scalar.dtype) == parameter.dtype


def _word(value: object, stack: ExitStack, complain: Callable[[], str]) -> ctypes.Array[ctypes.c_char]:
    """The bytes of one argument: a scalar, or an address whose surroundings are checked as `stack` closes."""
    if value is None:
        return ctypes.create_string_buffer(8)
    if isinstance(value, ndarray):
        address = stack.enter_context(guarded(host(value), complain))
        return ctypes.create_string_buffer(address.to_bytes(8, "little"), 8)
    scalar = _as_scalar(value)
    assert scalar is not None
    return ctypes.create_string_buffer(scalar.tobytes(), max(8, scalar.nbytes))


# ------------------------------------------------------------------------------------------ kernels


@dataclass(frozen=True)
class Function:
    """A kernel as the driver knows it."""

    ptr: int


_functions: WeakValueDictionary[int, Kernel] = WeakValueDictionary()


def kernel_at(pointer: int) -> Kernel:
    return _functions[pointer]


class Kernel:
    """A kernel, called as CuPy's: `kernel(grid, block, args, shared_mem=0)`."""

    def __init__(self, library: Library, signature: build.Signature, cooperative: bool) -> None:
        self._library, self._signature, self._cooperative = library, signature, cooperative
        binary = library.compiled()
        record = binary.records[self.name]
        self._parameters = tuple(
            Parameter(name, p.kind.decode(), p.size, p.pointer != b"\0")
            for name, p in zip(signature.parameters, record.parameters[: record.count], strict=True)
        )
        # The static part is known of all kernels of the text together, and may then exceed what one can have.
        self.static_shared = binary.static_shared
        self.max_dynamic_shared_size_bytes = max(0, MAX_SHARED - binary.static_shared)

    @property
    def name(self) -> str:
        return self._signature.name

    @property
    def kernel(self) -> Function:
        """What the driver calls it."""
        _functions[id(self)] = self
        return Function(id(self))

    def __call__(
        self, grid: Sequence[int], block: Sequence[int], args: Sequence[object], *, shared_mem: int = 0
    ) -> None:
        self._check_arguments(args)
        setup = self._setup(_extent(grid), _extent(block), shared_mem)
        binary, report = self._library.compiled(), _Report()
        note(f"kernel {self.name}")
        with ExitStack() as stack:
            paired = zip(self._parameters, args, strict=True)
            words = [_word(value, stack, self._overrun(parameter)) for parameter, value in paired]
            pointers = (ctypes.c_void_p * (len(words) + 1))(*map(ctypes.addressof, words))
            binary.launch(self.name, setup, pointers, report)
            faults = (*self._fault(report, setup), *self._races(binary, setup, args))
            if faults:
                raise EmulatorError(f"kernel {self.name}, {'; '.join(faults)}")

    def _overrun(self, parameter: Parameter) -> Callable[[], str]:
        return lambda: f"kernel {self.name} wrote outside the array of its parameter {parameter}"

    def _check_arguments(self, args: Sequence[object]) -> None:
        if len(args) != len(self._parameters):
            count, names = len(self._parameters), ", ".join(p.name for p in self._parameters)
            raise TypeError(f"kernel {self.name} takes {count} arguments ({names}), {len(args)} were given")
        for parameter, value in zip(self._parameters, args, strict=True):
            if not _fits(parameter, value):
                wanted, given = _wanted(parameter), _given(value)
                raise TypeError(f"kernel {self.name}, parameter {parameter}: expected {wanted}, got {given}")
            if isinstance(value, ndarray) and value._at != device():
                where = f"{parameter} is memory of device {value._at}"
                raise EmulatorError(f"kernel {self.name} runs on device {device()}, but {where}")

    def _setup(self, grid: tuple[int, ...], block: tuple[int, ...], shared_mem: int) -> _Launch:
        self._check_extents(grid, block)
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise EmulatorError(
                f"kernel {self.name}: {shared_mem} bytes of dynamic shared memory were asked for,"
                f" max_dynamic_shared_size_bytes is {self.max_dynamic_shared_size_bytes}"
            )
        settings, blocks = current(), grid[0] * grid[1] * grid[2]
        return _Launch(
            (ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), shared_mem, STACK_BYTES,
            settings.seed % 2**64, ORDERS.index(settings.order),
            settings.residency or (blocks if self._cooperative else 1),
        )  # fmt: skip

    def _check_extents(self, grid: tuple[int, ...], block: tuple[int, ...]) -> None:
        limit = self._signature.max_threads
        if not (0 < grid[0] < 2**31 and all(0 < n < 2**16 for n in grid[1:])):
            raise EmulatorError(f"kernel {self.name}: CUDA does not launch a grid of {grid}")
        if min(block) < 1 or block[2] > 64 or block[0] * block[1] * block[2] > limit:
            raise EmulatorError(f"kernel {self.name}: blocks of {block} threads; at most {limit} are allowed")

    def _fault(self, report: _Report, setup: _Launch) -> tuple[str, ...]:
        """What made the launch end early."""
        if not report.status:
            return ()
        fault = _FAULTS[report.status].format(
            line=report.line, other_line=report.other_line, shared=setup.shared_bytes, stack=setup.stack_bytes
        )
        if report.status == _STUCK and report.not_started:
            why = "" if self._cooperative else " without enable_cooperative_groups=True"
            waiting, alive = report.not_started, setup.residency
            fault += (
                f" (a deadlock: {waiting} blocks have not started, as at most {alive} are alive at once{why})"
            )
        return (
            f"block {tuple(report.block)}: {fault}; of {report.threads} threads"
            f" {report.at_barrier} wait at __syncthreads, {report.at_warp} in a warp collective,"
            f" {report.polling} poll memory, {report.exited} have exited",
        )

    def _races(self, binary: Binary, setup: _Launch, args: Sequence[object]) -> tuple[str, ...]:
        given = zip(self._parameters, args, strict=True)
        arrays = [(parameter, value._host) for parameter, value in given if isinstance(value, ndarray)]

        def place(address: int) -> str:
            for parameter, array in arrays:
                first, end = byte_bounds(array)
                if first <= address < end:
                    return f"entry {(address - first) // array.itemsize} of {parameter}"
            return "shared memory"

        return binary.races(Extent(tuple(setup.grid), tuple(setup.block)), place)


def _extent(sizes: Sequence[int]) -> tuple[int, ...]:
    if not 1 <= len(sizes) <= 3:
        raise ValueError(f"a grid or block has one to three sizes, not {len(sizes)}")
    return (*map(int, sizes), 1, 1)[:3]


def _loaded(path: Path) -> ctypes.PyDLL:
    """A whole library; where it cannot be loaded, what it lacks tells whose fault that is."""
    try:
        return ctypes.PyDLL(str(path))
    except OSError as error:
        if "undefined symbol" in str(error):
            raise EmulatorError(f"the kernels use what is not there: {error}") from error
        raise HostError(f"cannot load compiled kernels: {error}. {CACHE} names another folder") from error


class Binary:
    """The kernels of one text, compiled: as they are, or to look for races."""

    def __init__(self, path: Path, count: int, races: bool) -> None:
        # PyDLL keeps Python's lock: the runtime's state belongs to one launch at a time.
        self._path, self._dll, self._races = path, _loaded(path), races
        self._dll.gg_launch.restype = None
        self._dll.gg_static_shared.restype = ctypes.c_size_t
        self.static_shared = int(self._dll.gg_static_shared())
        table = (_Kernel * count).in_dll(self._dll, "gg_kernels")
        self.records = {str(record.name, "ascii"): record for record in table}

    def launch(self, name: str, setup: _Launch, arguments: Any, report: _Report) -> None:
        record = ctypes.byref(self.records[name])
        self._dll.gg_launch(record, ctypes.byref(setup), arguments, ctypes.byref(report))

    def races(self, extent: Extent, place: Callable[[int], str]) -> tuple[str, ...]:
        """Of the launch before."""
        return described(self._dll, self._path, extent, place) if self._races else ()


class Library:
    """The kernels of one text with one set of options."""

    def __init__(self, text: str, options: Sequence[str] = ()) -> None:
        self._text, self._options = text, tuple(options)
        self._signatures = {s.name: s for s in build.signatures(text)}
        self._binaries: dict[bool, Binary] = {}

    def compiled(self) -> Binary:
        """What is asked for now, compiled when it first is."""
        races = current().races
        if races not in self._binaries:
            path = build.build(self._text, self._options, races=races)
            self._binaries[races] = Binary(path, len(self._signatures), races)
        return self._binaries[races]

    def kernel(self, name: str, cooperative: bool = False) -> Kernel:
        if name not in self._signatures:
            raise EmulatorError(f"no kernel {name!r}; there are: {', '.join(self._signatures) or 'none'}")
        return Kernel(self, self._signatures[name], cooperative)

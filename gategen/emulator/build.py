"""From the text of a .cu file to a shared library for the host.

The text is compiled as it is, but for one declaration that C++ cannot express: `extern __shared__ T name[];`
becomes a reference to the block's dynamic shared memory.  Libraries are kept in a folder per user under a
name that is a digest of everything that went into them, so a kernel is compiled once. Behind its last byte
each has a digest of itself, which neither linker nor loader reads: one that was damaged is compiled again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from gategen.emulator.errors import EmulatorError, HostError
from gategen.files import CACHE, cache_folder

HERE = Path(__file__).parent
SANITIZE = "GATEGEN_EMULATOR_SANITIZE"  # environment variable: build with AddressSanitizer
TEXT = "kernel.cu"  # what messages call the text of the kernels

# Strict as NVRTC: no standard headers.  Reproducible: no fused multiply-add.
_KERNEL_FLAGS = (
    "-O1", "-w", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno",
    "-fno-strict-aliasing", "-fno-exceptions", "-fno-rtti", "-nostdinc", "-nostdinc++",
)  # fmt: skip
_RUNTIME_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden")
_SANITIZE_FLAGS = ("-g", "-fno-omit-frame-pointer", "-fsanitize=address,bounds", "-fno-sanitize-recover")
_RACE_FLAGS = ("-gdwarf-4", "-fsanitize=thread", "-DGG_RACES")  # calls at every access, answered by races.h

# Options of NVRTC that have no meaning for the host.
_IGNORED = re.compile(
    r"--?(fmad|ftz|prec-div|prec-sqrt|use_fast_math|lineinfo|generate-line-info|restrict|ptxas-options|Xptxas"
    r"|maxrregcount|default-device|device-as-default-execution-space|extra-device-vectorization)\b"
)

# What a compiler says of a text: an error at one of its lines, and nothing of the machine.
_OF_THE_TEXT = re.compile(r"^[^\n]+:\d+:(?:\d+:)? (?:fatal )?error: ", re.M)
_OF_THE_HOST = tuple(
    os.strerror(code)
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.ENOMEM)
)

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_BOUNDS = r"(?:__launch_bounds__\s*\(([^()]*)\)\s*)?"
_KERNEL = re.compile(rf'extern\s+"C"\s+__global__\s+{_BOUNDS}void\s+{_BOUNDS}(\w+)\s*\(')
_ALIGN = r"(?:(?:__align__|alignas)\s*\([^()]*\)\s*)?"
_DYNAMIC = re.compile(rf"\bextern\s+{_ALIGN}__shared__\s+{_ALIGN}([\w:<> ]+?)\s*(\w+)\s*\[\s*\]")


class Signature(NamedTuple):
    """What the text says about a kernel and the compiler does not pass on."""

    name: str
    parameters: tuple[str, ...]
    max_threads: int  # of a block


@cache
def compiler() -> str | None:
    """The host's C++ compiler: $CXX, or the first of c++, g++, clang++ there is; None without one."""
    candidates = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((path for name in candidates if name and (path := shutil.which(name))), None)


def build(text: str, options: Sequence[str] = (), *, races: bool = False) -> Path:
    """The shared library of the kernels in `text`, from the cache if it is there.

    With `races` it looks for them.  The compiler would link its own library for that, so the kernels are then
    compiled and linked in two steps.
    """
    if races and sanitizing():
        raise EmulatorError("kernels are compiled for AddressSanitizer or to look for races, not for both")
    runtime = prepare(races=races)
    if not races:
        return _cached(".so", _wrapped(text), (*_kernel_flags(options), "-shared"), runtime)
    kernels = _cached(".o", _wrapped(text), (*_kernel_flags(options), *_RACE_FLAGS, "-c"))
    return _cached(".so", "", ("-fPIC", "-shared"), kernels, runtime)


def prepare(*, races: bool = False) -> Path:
    """What all kernels are linked with, compiled. Raises `HostError` where the host cannot do that."""
    return _cached(".o", (HERE / "runtime.cpp").read_text(), _runtime_flags(races), text=False)


def lines(library: Path, places: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """For each place in a library, the lines of the kernels' text: its own, then those that inlined it."""
    program = shutil.which("addr2line")
    if program is None:
        return tuple(() for _ in places)
    asked = [hex(place - 1) for place in places]  # a call returns to what follows it
    command = [program, "-a", "-i", "-e", str(library), *asked]
    said = subprocess.run(command, capture_output=True, text=True, env=_environment()).stdout
    parts = re.split(r"^0x[0-9a-f]+\n", said, flags=re.M)[1:]
    return tuple(tuple(int(n) for n in re.findall(rf"\b{re.escape(TEXT)}:(\d+)", part)) for part in parts)


def signatures(text: str) -> tuple[Signature, ...]:
    """The kernels declared `extern "C" __global__ void name(...)`."""
    plain = _without_comments(text)
    return tuple(
        Signature(match[3], _parameter_names(plain, match.end()), _max_threads(match[1] or match[2]))
        for match in _KERNEL.finditer(plain)
    )


def sanitizer_environment() -> dict[str, str]:
    """What a Python process needs in its environment so that kernels run under AddressSanitizer.

    An error ends that process with a report on stderr, so this is for a subprocess.  GCC only.
    """
    cxx = _compiler()
    asked = subprocess.run([cxx, "-print-file-name=libasan.so"], capture_output=True, text=True)
    library = asked.stdout.strip()
    if not os.path.isabs(library):
        raise EmulatorError(f"{cxx} has no libasan.so")
    return {SANITIZE: "1", "LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0"}


def sanitizing() -> bool:
    return bool(os.environ.get(SANITIZE))


# ------------------------------------------------------------------------------------------ reading the text


def _without_comments(text: str) -> str:
    """The text with spaces for comments, so that every position stays what it was."""
    return _COMMENT.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def _parameter_names(text: str, start: int) -> tuple[str, ...]:
    """The names up to the parenthesis that closes the one before `start`."""
    depth, end = 1, start
    while depth and end < len(text):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    names = [re.findall(r"\w+", parameter) for parameter in text[start : end - 1].split(",")]
    return tuple(words[-1] for words in names if words and words != ["void"])


def _max_threads(bounds: str | None) -> int:
    """The first argument of __launch_bounds__ where it is a number; CUDA's own limit otherwise."""
    first = (bounds or "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 1024


def _dynamic_shared(match: re.Match[str]) -> str:
    kind, name = match[1].strip(), match[2]
    return f"{kind} (&{name})[] = *reinterpret_cast<{kind} (*)[]>(::gg::dynamic_shared)"


def _wrapped(text: str) -> str:
    """The translation unit: the text in an unnamed namespace, then a table of its kernels."""
    rows = "".join(f'  gg::Launcher<{s.name}>::kernel("{s.name}"),\n' for s in signatures(text))
    return (
        f'namespace {{\n#line 1 "{TEXT}"\n{_DYNAMIC.sub(_dynamic_shared, text)}\n}}  // namespace\n'
        '#line 1 "kernels"\n'
        'extern "C" __attribute__((visibility("default"))) const gg::Kernel gg_kernels[] = {\n'
        f"{rows}  {{}},\n}};\n"
    )


# ------------------------------------------------------------------------------------------ compiling


def _compiler() -> str:
    path = compiler()
    if path is None:
        raise HostError("no C++ compiler found: install g++ or clang++, or set CXX")
    return path


@cache
def _version(cxx: str) -> str:
    return _run([cxx, "--version"]).stdout


def _run(command: Sequence[str], source: str = "") -> subprocess.CompletedProcess[str]:
    """A compiler at work on `source`; a `HostError` where it cannot be started."""
    options: dict[str, Any] = {"capture_output": True, "encoding": "utf-8", "errors": "replace"}
    try:
        return subprocess.run(command, input=source, env=_environment(), check=False, **options)
    except OSError as error:
        raise HostError(f"{command[0]} cannot be run: {error.strerror or error}") from error


def _environment() -> dict[str, str]:
    """For the compiler: not itself under AddressSanitizer, and messages without colour or translation."""
    return {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"} | {"LC_ALL": "C"}


def _host_options(options: Iterable[str]) -> tuple[str, ...]:
    """NVRTC's options as the host compiler's.  C++17 as in CuPy, unless later is asked for."""
    standard, host = "c++17", list[str]()
    for option in options:
        if match := re.fullmatch(r"--?std=(c\+\+\d+)", option):
            standard = max(standard, match[1])
        elif match := re.fullmatch(r"(?:-D|--define-macro=)\s*(\w+(?:=.*)?)", option):
            host.append(f"-D{match[1]}")
        elif match := re.fullmatch(r"(?:-I|--include-path=)\s*(.+)", option):
            host.append(f"-I{match[1]}")
        elif not _IGNORED.match(option):
            raise EmulatorError(f"the emulator does not know the option {option!r}")
    return (f"-std={standard}", *host)


def _kernel_flags(options: Sequence[str]) -> tuple[str, ...]:
    host = (*_host_options(options), "-include", str(HERE / "cuda.h"), f"-I{HERE / 'include'}")
    return (*_KERNEL_FLAGS, *host, *(_SANITIZE_FLAGS if sanitizing() else ()))


def _runtime_flags(races: bool) -> tuple[str, ...]:
    """The runtime is never instrumented: it moves between stacks."""
    asked = ("-DGG_SANITIZE",) * sanitizing() + ("-DGG_RACES",) * races
    return ("-c", *_RUNTIME_FLAGS, f"-I{HERE}", *asked)


@cache
def _headers() -> str:
    files = (*sorted(HERE.glob("*.h")), *sorted((HERE / "include").iterdir()))
    return "".join(path.read_text() for path in files)


def _cached(suffix: str, source: str, flags: Sequence[str], *objects: Path, text: bool = True) -> Path:
    """`source` compiled with `flags` and linked with `objects`; `text`: errors in it may be its own."""
    cxx = _compiler()
    ingredients = (sys.platform, cxx, _version(cxx), _headers(), source, *flags, *map(str, objects))
    target = cache_folder() / (hashlib.sha256("\0".join(ingredients).encode()).hexdigest()[:32] + suffix)
    if not _whole(target):
        try:
            _compile(cxx, source, flags, objects, target, text)
        except OSError as error:
            reason = error.strerror or error
            raise HostError(f"cannot write {target}: {reason}. {CACHE} names another folder") from error
    return target


def _whole(target: Path) -> bool:
    """Whether it is there and every byte of it is what it was."""
    try:
        data = target.read_bytes()
    except OSError:
        return False
    size = hashlib.sha256().digest_size
    return hashlib.sha256(data[:-size]).digest() == data[-size:]


def _compile(
    cxx: str, source: str, flags: Sequence[str], objects: Sequence[Path], target: Path, text: bool
) -> None:
    """Compile beside the target and rename, so that other processes see all of it or nothing."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        result = Path(folder) / target.name
        command = [cxx, *flags, "-x", "c++", "-", "-x", "none", *map(str, objects), "-o", str(result)]
        done = _run(command, source)
        said = done.stderr.strip()
        if done.returncode and text and _OF_THE_TEXT.search(said) and not any(map(said.count, _OF_THE_HOST)):
            raise EmulatorError(f"{Path(cxx).name} could not compile the kernels:\n{done.stderr}")
        if done.returncode or not result.is_file():
            how = f"ended with {done.returncode}" if done.returncode else "wrote no file"
            raise HostError(
                f"the C++ compiler {cxx} {how} and said {said or 'nothing'}\n(CXX names another compiler, "
                f"{CACHE} a folder for what it writes, TMPDIR one to work in)"
            )
        with open(result, "r+b") as file:
            digest = hashlib.sha256(file.read()).digest()
            file.write(digest)
        os.replace(result, target)

"""`compile`: the module of a cell without a file of the user's own, as `build` would have written it.

The files lie in gategen's cache, under names that tell what is in them. This package looks for its modules
there, so that a traceback quotes their lines, `inspect` finds their source, and `pickle` a net of theirs.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import lru_cache
from hashlib import sha256
from importlib import import_module, invalidate_caches
from pathlib import Path
from types import ModuleType
from weakref import WeakValueDictionary

from gategen.build import generate, read, write_files
from gategen.files import cache_folder
from gategen.spec.cell import Cell
from gategen.spec.load import Target, load_one

cells: MutableMapping[str, Cell] = WeakValueDictionary()  # what modules here are of, by SPEC_SHA256
_FOLDER = cache_folder() / "modules"
__path__ = [*__path__, str(_FOLDER)]


def compile(cell: Target, backend: str = "numpy") -> ModuleType:
    """The generated module of a cell for one backend, imported.

    cell: a `Cell`, the name of a built-in one, the path of a file that holds one, or the text of a .gate
        file.
    backend: what `build` takes.

    A module of the same text is the same object. Its `__file__` is in gategen's cache, a folder that the
    variable GATEGEN_CACHE names. Raises `SpecError` where the cell is wrong, `GategenError` where the cache
    cannot be written, and ImportError where the module needs a package that is not there: CuPy.
    """
    found = load_one(cell)
    made = _made(found, backend)
    cells[made.SPEC_SHA256] = found
    return made


@lru_cache(maxsize=256)
def _made(cell: Cell, backend: str) -> ModuleType:
    """The module, imported from files that bear the digest of all in their names."""
    files = generate(cell, backend)
    digest = sha256("\0".join(files.values()).encode()).hexdigest()[:16]
    paths = {}
    for name, text in files.items():
        for header in files:  # which a file of C includes
            text = text.replace(f'#include "{header}"', f'#include "{_named(header, digest)}"')
        paths[_FOLDER / _named(name, digest)] = text
    write_files(
        {path: data for path, text in paths.items() if read(path) != (data := text.encode())}, _FOLDER
    )
    invalidate_caches()
    return import_module(f"{__name__}.{next(path.stem for path in paths if path.suffix == '.py')}")


def _named(file: str, digest: str) -> str:
    return f"{Path(file).stem}_{digest}{Path(file).suffix}"


def fastest(cell: Target) -> ModuleType:
    """The module that is fastest on the CPU: that of C where a compiler is found and makes one, else NumPy's.

    Raises what `compile` raises.
    """
    module = compile(cell, "c")
    try:
        module.library("float32")
    except RuntimeError:
        return compile(cell)
    return module

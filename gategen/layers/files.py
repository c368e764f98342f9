"""The file of a net: its arrays in NumPy's format npz, and beside them a record of whose they are.

The record is JSON under a name that no array of a net can have. Files without one are of earlier versions.
"""

from __future__ import annotations

import errno
import io
import json
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

RECORD = "gategen.net"


def write(path: str | os.PathLike[str], arrays: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all. What is there keeps its mode and owner; links are followed.

    Raises OSError, also where something stands there that is no regular file or must not be written.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        there = _regular(target)
        if there is not None and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        with open(temporary, "xb", opener=_own) if there else open(temporary, "xb") as file:
            np.savez(file, **{RECORD: np.array(json.dumps(record))}, **_storable(arrays))  # type: ignore[arg-type]
        if there is not None:
            _keep(temporary, there)
        os.replace(temporary, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """All arrays of a file, the record among them. Raises OSError; ValueError for another file."""
    if _regular(Path(path)) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    data = Path(path).read_bytes()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return dict(archive)
    except Exception as error:  # damaged bytes can look like anything: a method unknown, a size beyond memory
        raise ValueError(f"{os.fspath(path)} is no file that save wrote, or not whole") from error


def read_record(text: Any) -> dict[str, Any]:
    """What a record says. Raises ValueError."""
    found = json.loads(str(np.asarray(text)))
    if not isinstance(found, dict):
        raise ValueError(f"{RECORD} is {found!r}, expected an object")
    return found


def _regular(path: Path) -> os.stat_result | None:
    """What stands there, None where nothing does; an OSError where it is no regular file."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(there.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(there.st_mode):
        raise OSError(errno.EINVAL, "This is no regular file", os.fspath(path))
    return there


def _own(path: str, flags: int) -> int:
    """A file that nobody else may read before it has the mode of the one it replaces."""
    return os.open(path, flags, 0o600)


def _keep(path: Path, there: os.stat_result) -> None:
    """Owner and mode of what was there."""
    if hasattr(os, "chown"):
        with suppress(PermissionError):
            os.chown(path, there.st_uid, there.st_gid)
    os.chmod(path, stat.S_IMODE(there.st_mode))


def _storable(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """npz knows no bfloat16; float32 holds the same numbers."""
    return {name: a.astype(np.float32) if a.dtype.kind == "V" else a for name, a in arrays.items()}

"""Reading a file that someone else wrote: a regular one, not without end. Writing one, whole or not."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

LIMIT = 16 * 2**20  # bytes


def read_file(path: str | Path, limit: int = LIMIT) -> bytes:
    """What is in a regular file of at most `limit` bytes. Raises OSError that says what is there instead."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:  # a pipe without a writer is opened at once, and a device is not read
        there = os.fstat(handle)
        _regular(path, there)
        if there.st_size > limit:
            raise OSError(errno.EFBIG, f"this file has more than {limit} bytes", os.fspath(path))
        return file.read(limit)


def _regular(path: str | Path, there: os.stat_result) -> None:
    if not stat.S_ISREG(there.st_mode):
        raise OSError(errno.EINVAL, "this is a pipe or a device, and no regular file", os.fspath(path))


def write_file(path: str | Path, data: bytes) -> None:
    """Put a file there, or in the place of the one that is there. Raises OSError, and nothing has changed."""
    target = Path(os.path.realpath(path))  # a link stays one
    if target.exists() and not target.is_dir():  # a folder is told by the system
        _regular(target, target.stat())
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
        os.replace(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)

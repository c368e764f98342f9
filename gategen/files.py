"""Files of other people, read with care; files written whole or not at all; the folder of gategen's own."""

from __future__ import annotations

import atexit
import errno
import os
import secrets
import shutil
import stat
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

LIMIT = 16 * 2**20  # bytes
CACHE = "GATEGEN_CACHE"  # environment variable: where is kept what can be made again


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


@cache
def cache_folder() -> Path:
    """The cache, made if need be; a folder for this process alone where that is not possible."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gategen"
    folder = Path(os.environ.get(CACHE) or default)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        own = tempfile.mkdtemp(prefix="gategen-")
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        return Path(own)

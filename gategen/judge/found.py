"""The module that lies in a user's folder, beside the one that would be generated now."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gategen.build import HEAD, HEADER, read, spec_sha

FRESH = "fresh text"  # what is said of a module that was generated to be judged


class Found(NamedTuple):
    """The module to judge, and how what lies in the folder is not what `build` writes."""

    module: Path
    differs: str = ""


def find(fresh: Path, out: Path) -> Found:
    """The module in `out`, where it is one of the same cell, else the fresh one.

    A module with the same specification and another text was edited by hand or is of another version: it is
    judged as it is. One of another specification is not: nothing is known of what it should be.
    """
    files = sorted(fresh.parent.glob(f"{fresh.stem}.*"))  # a module, and what it reads
    texts = {file.name: read(out / file.name) for file in files}
    there = [name for name, text in texts.items() if text is not None]
    if not there:
        return Found(fresh)
    path = out / fresh.name
    if missing := [name for name in texts if name not in there]:
        return Found(fresh, f"{out / missing[0]} is missing beside {out / there[0]}")
    text = texts[fresh.name] or b""
    if HEADER not in text[:HEAD]:
        return Found(fresh, f"{path} was not written by gategen (no header)")
    if spec_sha(text) != spec_sha(fresh.read_bytes()):
        return Found(fresh, f"{path} is of another cell of this name, or of other equations or constants")
    for file in files:
        if texts[file.name] != file.read_bytes():
            return Found(path, f"{out / file.name} is not what `build` writes: edited, or of another version")
    return Found(path)

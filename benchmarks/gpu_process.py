"""For `gpu.py`: its parts in processes of their own, a record a line.

A kernel that faults or never ends takes its process with it. What it was at is noted as failed, and another
process goes on behind that.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from cpu import ROOT  # the neighbour files
from gpu_scale import TINY, Case, Scale

PATIENCE = 120.0  # seconds that a process may say nothing
STARTING = 5.0  # that it has at least
OVERTIME = 30.0  # seconds that its last item may take beyond the time of the task
GROUPS = ((1, 2), (2, 2), (3, 1))  # blocks of a group and groups, of the barriers that the sanitizer sees

Record = dict[str, Any]
Measure = Callable[[], Record]


@dataclass(frozen=True)
class Task:
    """What one process does: the items of a part behind the first `skip`, until a time of the clock."""

    part: str
    emulate: bool
    items: Sequence[Any] = ()
    until: float = float("inf")
    skip: int = 0
    sanitized: bool = False


class Ended(Exception):
    """A process that ended badly, or was ended; `heard` is what it said beside records."""

    def __init__(self, reason: str, heard: str = "") -> None:
        super().__init__(reason)
        self.heard = heard


# ------------------------------------------------------------------------------------------ within one


def work_on(task: Task) -> None:
    """Print the records of a task, and before each what it begins."""
    for record in records(task):
        print(json.dumps(record), flush=True)


def records(task: Task) -> Iterator[Record]:
    """A record an item, in this process; an item that fails says why."""
    from gpu_device import Missing, device, facts

    try:
        on = device(task.emulate, torch=task.part in ("facts", "times"))
    except Missing as missing:
        yield {"missing": str(missing)}
        return
    if task.part == "facts":
        yield facts(on)
        return
    if task.sanitized and not on.emulated:
        on.cp.cuda.set_allocator(None)  # a pool would hide what is written beside an array
    for k, (told, measure) in enumerate(measures(task, on, TINY if task.emulate else Scale())):
        if k < task.skip:
            continue
        if time.time() > task.until:
            return
        yield {"begins": told}
        began = time.time()
        found = safely(measure)
        well = "failed" not in found or "failed" not in safely(on.wait)
        yield {**told, **found, "took": round(time.time() - began, 2)}
        if not well:  # after a fault of a kernel nothing works in this process
            yield {"restart": True}
            return
        on.free()


def safely(measure: Measure) -> Record:
    """What it gives, or why it failed; whatever that is, the next one may work."""
    try:
        return measure()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}


def measures(task: Task, on: Any, scale: Scale) -> Iterator[tuple[Record, Measure]]:
    """What is measured or checked, and how."""
    if task.part == "ceilings":
        from gpu_ceilings import ceilings

        yield from ceilings(on, scale)
    elif task.part == "barriers":
        from gpu_ceilings import checked_barriers

        for blocks, groups in GROUPS:
            yield {"blocks": blocks, "groups": groups}, partial(checked_barriers, on, blocks, groups, 3)
    elif task.part == "cells":
        from gpu_cells import checked

        for name, dtype in task.items:
            for sizes in scale.check[: 1 if task.sanitized else None]:
                told = {"cell": name, "dtype": dtype, "H": sizes["hidden"]}
                yield told, partial(checked, on, name, dtype, sizes)
    elif task.part == "times":
        from gpu_times import timed

        for item in task.items:
            case = Case(**{**item, "sides": tuple(item["sides"])})
            told = {key: value for key, value in item.items() if key != "sides"}
            yield told, partial(timed, on, case, scale)
    else:
        raise AssertionError(task.part)


# ------------------------------------------------------------------------------------------ from outside


def done(task: Task, patience: float = PATIENCE) -> Iterator[Record]:
    """The records of a task. Where its process dies, a new one goes on behind the item it was at."""
    again = True
    while again:
        again, begun = False, None
        try:
            for record in said(command(task), patience, task.until + OVERTIME):
                if "missing" in record:
                    raise click.ClickException(record["missing"])
                if "restart" in record:
                    again = True
                elif "begins" in record:
                    begun, task = record["begins"], replace(task, skip=task.skip + 1)
                else:
                    begun = None
                    yield record
        except Ended as ended:
            again = begun is not None  # else it would end so again
            yield {**(begun or {"part": task.part}), "failed": f"the process {ended}"}


def command(task: Task) -> list[str]:
    program = Path(__file__).resolve().with_name("gpu.py")
    return [sys.executable, str(program), "--process", json.dumps(asdict(task))]


def said(words: Sequence[str], patience: float = PATIENCE, until: float = float("inf")) -> Iterator[Record]:
    """The records that a process prints; `Ended` where it fails, or is silent too long or beyond a time."""
    lines: queue.Queue[str | None] = queue.Queue()
    heard: list[str] = []
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, env=environment()) as run:

        def waiting() -> float:
            return min(patience, max(STARTING, until - time.time()))

        def listen() -> None:
            assert run.stdout
            for line in run.stdout:
                lines.put(line)
            lines.put(None)

        def collect() -> None:
            assert run.stderr
            heard.extend(run.stderr)

        threads = [threading.Thread(target=each, daemon=True) for each in (listen, collect)]
        for thread in threads:
            thread.start()
        try:
            while (line := lines.get(timeout=waiting())) is not None:
                record = parsed(line)
                if record is None:
                    heard.append(line)
                else:
                    yield record
            run.wait(patience)
        except (queue.Empty, subprocess.TimeoutExpired):
            raise Ended("said nothing for too long", "".join(heard)) from None
        finally:
            run.kill()  # which is nothing to one that has ended
        for thread in threads:
            thread.join()
    if run.returncode:
        text = "".join(heard)
        raise Ended(f"ended with {run.returncode}: {' '.join(text.split())[-500:]}", text)


def parsed(line: str) -> Record | None:
    """The record of a line; None where it is something else, or the end of a process cut it off."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def environment() -> Mapping[str, str]:
    """One thread for NumPy's part in it, and this checkout's gategen."""
    paths = filter(None, (str(ROOT), os.environ.get("PYTHONPATH", "")))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(paths)}

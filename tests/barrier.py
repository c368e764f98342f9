"""The barrier of blocks that wait for each other, in every order of their steps, by the model checker SPIN.

    python tests/barrier.py

says what SPIN finds in `barrier.pml`, as it is and with every fault. It needs `spin` and a C compiler.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

MODEL = Path(__file__).parent / "barrier.pml"
RIGHT = {
    "two groups of two blocks": (),
    "a group of three blocks": ("-DGROUPS=1", "-DBLOCKS=3"),
    "a block by itself": ("-DGROUPS=1", "-DBLOCKS=1"),
}
RELIES, STAYS = "assertion violated", "invalid end state"
FAULTS = {
    "blocks do not meet": (("-DMEETS=0",), RELIES),
    "no release": (("-DRELEASES=0",), RELIES),
    "no acquire": (("-DACQUIRES=0",), RELIES),
    "a goal that is too small": (("-DMORE=-1",), RELIES),
    "a goal that no block reaches": (("-DMORE=1",), STAYS),
    "groups that count together": (("-DCOUNTER=0", "-DRANGE=64"), RELIES),
    "a counter of the launch before": (("-DLEFT=2",), RELIES),
    "one slot": (("-DSLOTS=1",), RELIES),
    "more blocks than the device holds": (("-DALIVE=2",), STAYS),
}


def checked(*words: str) -> tuple[str, int]:
    """What SPIN found, nothing where all is right, and in how many states."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["spin", *words, "-run", "-m100000", str(MODEL)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    error = re.search(f"pan:1: ({RELIES}|{STAYS})", done.stdout)
    counted = re.search(r"errors: (\d+)\n\s*(\d+) states, stored", done.stdout)
    if not counted or "max search depth too small" in done.stdout or (counted[1] != "0") != bool(error):
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return (error[1] if error else ""), int(counted[2])


def main() -> int:
    wrong = 0
    for name, words in RIGHT.items():
        found, states = checked(*words)
        wrong += found != ""
        print(f"{name:34}{found or 'right'} in {states} states")
    for name, (words, expected) in FAULTS.items():
        found, states = checked(*words)
        wrong += found != expected
        print(f"{name:34}{found or 'NOT FOUND'}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Puts lines of the generated GRU into README, between two marks, so that it shows what is generated.

    python docs/excerpt.py

A test compares the two, and says so when they differ. Where the line it begins with is gone, `START`
must describe another.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README, MODULE = ROOT / "README.md", ROOT / "generated" / "gru_numpy.py"
# The line that the excerpt begins with, in the loop of `backward`, and how many lines it has at least.
START, LINES = r" .*# d_\w+ = (?!.*in the loop).*\(1 - n\*\*2\)", 5
BEGIN, END = "<!-- docs/excerpt.py: begin -->\n", "<!-- end -->"


def wanted() -> str:
    """The excerpt as it stands in the generated module, without its indentation."""
    backward = MODULE.read_text("utf-8").partition("\ndef backward(")[2]
    lines = backward.split("\n")
    first = next((k for k, line in enumerate(lines) if re.match(START, line)), None)
    if first is None:
        formulas = "\n".join(line for line in lines if re.search(r"# \w+ = ", line))
        raise SystemExit(f"no line of backward in {MODULE} is as {START!r} says; there are\n{formulas}")
    return textwrap.dedent("\n".join(lines[first : lines.index("", first + LINES)]))


def shown() -> str:
    """The excerpt as README has it."""
    return README.read_text("utf-8").partition(BEGIN)[2].partition(END)[0].strip("\n")


def block() -> str:
    return f"```python\n{wanted()}\n```"


if __name__ == "__main__":
    old = README.read_text("utf-8")
    before, _, rest = old.partition(BEGIN)
    README.write_text(f"{before}{BEGIN}\n{block()}\n\n{END}{rest.partition(END)[2]}", "utf-8")

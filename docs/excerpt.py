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
# The comment that the excerpt begins with, in the loop of `backward`, and how many lines it has at least.
START, LINES = r" +# d_\w+ = (?!.*in the loop).*\(1 - n\*\*2\)", 6
BEGIN, END = "<!-- docs/excerpt.py: begin -->\n", "<!-- end -->"


def wanted() -> str:
    """The excerpt as it stands in the generated module, without its indentation."""
    backward = MODULE.read_text("utf-8").partition("\ndef backward(")[2]
    paragraphs = backward.split("\n\n")
    for k, paragraph in enumerate(paragraphs):
        if re.match(START, paragraph.lstrip("\n")):
            excerpt = paragraph
            while excerpt.count("\n") + 1 < LINES:
                k += 1
                excerpt += f"\n\n{paragraphs[k]}"
            return textwrap.dedent(excerpt).strip("\n")
    comments = "\n".join(dict.fromkeys(re.findall(r"^ +# \w+ = .*", backward, re.M)))
    raise SystemExit(f"no part of backward in {MODULE} begins as {START!r} says; there are\n{comments}")


def shown() -> str:
    """The excerpt as README has it."""
    return README.read_text("utf-8").partition(BEGIN)[2].partition(END)[0].strip("\n")


def block() -> str:
    return f"```python\n{wanted()}\n```"


if __name__ == "__main__":
    old = README.read_text("utf-8")
    before, _, rest = old.partition(BEGIN)
    README.write_text(f"{before}{BEGIN}\n{block()}\n\n{END}{rest.partition(END)[2]}", "utf-8")

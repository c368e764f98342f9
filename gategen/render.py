"""The Jinja environment: templates lay out text and decide nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2


@cache
def environment() -> jinja2.Environment:
    """Templates beside the package in a checkout, inside it when installed."""
    inside = Path(__file__).parent / "templates"
    folder = inside if inside.is_dir() else Path(__file__).parent.parent / "templates"
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def render(template: str, context: Mapping[str, Any]) -> str:
    """The text of a template, given its context: no line ends in blanks, at most two are empty
    together, and one inside of a function."""
    text = environment().get_template(template).render(context)
    lines = "\n".join(line.rstrip() for line in text.split("\n"))
    return re.sub(r"\n{3,}( +)", r"\n\n\1", re.sub(r"\n{4,}", "\n\n\n", lines))


def module_text(context: Mapping[str, Any], kind: str = "module") -> str:
    """The text of a Python module: a loop over time stands in another, or beside one launch of all steps."""
    loops = {name: render(f"python/{name}.py.jinja", context).rstrip() for name in ("step", "step_back")}
    return render(f"python/{kind}.py.jinja", {**context, **loops})

"""C99: loops over steps, rows and units, and products of packed matrices; no library but libm.

`files` lowers a plan to a `.c` file, its header, and a Python module that compiles and calls it. Pointwise
ops become a function for one row, a loop over units that compilers turn into vector code. Rows of the batch
wait for nothing but themselves, so threads share them out and go through all steps on their own.

    text       calls, comments, lines of at most 110 columns
    lines      the stages of one level
    functions  the functions of the file, and the records of its templates
    module     the Python module
"""

from __future__ import annotations

from gategen.backends.c.functions import CFile
from gategen.backends.c.lines import CModule
from gategen.backends.c.module import CtypesModule, python_context
from gategen.backends.c.text import tidy
from gategen.plan import Plan
from gategen.render import render

ARRAYS = False


def files(plan: Plan) -> dict[str, str]:
    """The C file, the header and the Python module of a cell, by file name."""
    made, name = CFile(CModule(plan)).context(), f"{plan.cell.name}_c"
    return {
        f"{name}.py": render("python/ctypes.py.jinja", python_context(CtypesModule(plan))),
        f"{name}.c": tidy(render("c/module.c.jinja", made)),
        f"{name}.h": tidy(render("c/module.h.jinja", made)),
    }

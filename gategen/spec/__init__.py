"""What a researcher writes: equations over declared names, as Python or as text, and the cell they make.

    names, declarations     what an expression may hold, and the words that declare it
    opaque, norms           products, reductions and norms
    elementwise, functions  the table of elementwise functions: a row a function, for all languages
    equations, delays       `Eq`; states for earlier values, `x[t - 1]`
    language                all these words under one name, for those who read equations
    printer, quoting        expressions as text, and errors that quote them
    sizes, checks, cell     sizes by unification, what a cell must satisfy, `Cell`
    text                    the text form
    load                    built-in cells by name, files by path

Nothing here knows of steps in order or memory, and of code only the functions' names and helpers.
"""

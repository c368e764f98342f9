"""Whether generated modules are right, judged from outside with nothing but their public names.

host           generated modules: written, imported, and where those of a backend run
problem        random numbers for everything that a module takes
runner         a module, called with the spec's own names
derivatives    the complex step, and central differences
second         a module of second derivatives, beside that of the first
verify         every gradient of every cell on every backend
"""

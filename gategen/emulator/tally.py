"""What was done on the device, operation by operation: launches of kernels, products, copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_open: list[Counter[str]] = []


def note(operation: str) -> None:
    for counter in _open:
        counter[operation] += 1


@contextmanager
def tally() -> Iterator[Counter[str]]:
    """Counts, within, what a device would be given to do.

    `kernel NAME` is a launch of a module's own kernel, `product` one of cuBLAS. `copy`, `copy_where`, `fill`
    and names of functions (`add`, `where`, `sum`) are CuPy's kernels; `to the device` and `to the host` are
    copies too. What CuPy copies by itself, such as an operand of a product that has gaps, counts as well.
    """
    counter: Counter[str] = Counter()
    _open.append(counter)
    try:
        yield counter
    finally:
        _open.remove(counter)

"""Earlier values, `x[t - 2]`, as states that hand on what they are given: `x_1' = x`, `x_2' = x_1`.

They are 0 before the first step. The state that holds `h[t - 2]` is `h_2`, for `h[t - 1]` is h itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gategen.spec import language as lang
from gategen.spec.equations import Eq
from gategen.spec.quoting import placed_eq


def with_delays(equations: Sequence[Eq], first: Sequence[Eq]) -> tuple[tuple[Eq, ...], tuple[Eq, ...]]:
    """Both sets of equations with states for all earlier values, and with their equations."""
    every = (*equations, *first)
    past = {s: eq for eq in reversed(every) for s in lang.names_in(eq.rhs) if isinstance(s, lang.Past)}
    if not past:
        return tuple(equations), tuple(first)
    taken = names_of(every)
    states: dict[lang.Name, lang.State] = {}
    shifts: list[Eq] = []
    for of in sorted({symbol.of for symbol in past}, key=lambda symbol: symbol.name):
        held: lang.Name = of
        begin, most = 1 + isinstance(of, lang.State), max(s.steps for s in past if s.of == of)
        for k in range(begin, most + 1):
            name = free(f"{of.name}_{k}", taken)
            taken.add(name)
            state = lang.states(name, of.size)
            state.where = next(eq.where for s, eq in past.items() if s.of == of and s.steps >= k)
            shifts.append(placed_eq(state.next, held, state.where))
            states[lang.earlier(of, k)] = held = state
    steps = ((*(moved(eq, states) for eq in one), *shifts) if one else () for one in (equations, first))
    one, other = steps
    return one, other


def moved(eq: Eq, states: dict[lang.Name, lang.State]) -> Eq:
    return placed_eq(eq.lhs, eq.rhs.xreplace(states), eq.where)


def names_of(equations: Iterable[Eq]) -> set[str]:
    """All names that equations and initial values have, also those of stacked rows."""
    symbols = {s for eq in equations for s in (eq.lhs, *lang.names_in(eq.rhs))}
    symbols |= {s.state for s in symbols if isinstance(s, lang.Next)}
    symbols |= {s for state in symbols if isinstance(state, lang.State) for s in lang.names_in(state.initial)}
    arrays = {s.array for s in symbols if isinstance(s, lang.Parameter)}
    return {s.name for s in symbols} | arrays


def free(name: str, taken: set[str]) -> str:
    """The name, with a mark where something else has it."""
    while name in taken:
        name += "_"
    return name

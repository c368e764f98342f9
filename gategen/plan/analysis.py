"""analysis: what several passes ask of one graph, found once: levels, readers, products that can be one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from gategen.graph import Graph, Op, Value, levels
from gategen.plan.groups import Group, grouped, readers_of


@dataclass(frozen=True)
class Analysis:
    """A graph and what is known of it."""

    graph: Graph

    @cached_property
    def level(self) -> Mapping[Value, str]:
        return levels(self.graph)

    @cached_property
    def given(self) -> frozenset[Value]:
        """What is known before any op runs."""
        return frozenset(self.graph.given)

    @cached_property
    def readers(self) -> Mapping[Value, list[Op]]:
        """The ops that read each value; a value that nothing reads has an empty list."""
        return readers_of(self.graph)

    @cached_property
    def groups(self) -> list[Group]:
        """Products that can be one."""
        return grouped(self.graph, self.level, self.readers)

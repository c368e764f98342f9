"""Matrices of every row as nodes: their axes, told by the sizes, and sums of products over some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_lowercase

from gategen.graph import Contract, CumSum, Product, Shift, Value
from gategen.onnx.nodes import Nodes
from gategen.spec.names import Axes, extent_of


def shape_of(value: Value, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """How many features a value has, along each axis of its array."""
    return tuple(extent_of(size, sizes) for size in value.shape)


class Along:
    """Gives arrays the axes that an op asks for. `lead` is how many axes lie before the features of a row."""

    def __init__(self, nodes: Nodes, known: Mapping[Value, str], sizes: Mapping[str, int], lead: int) -> None:
        self.nodes = nodes
        self.known = known
        self.sizes = sizes
        self.lead = lead
        self.made: dict[tuple[Value, Axes], str] = {}

    def reshaped(self, name: str, static: bool, shape: Sequence[int], wish: str = "") -> str:
        """An array of this shape behind what lies before the features, which 0 takes over."""
        lead = [0] * (0 if static else self.lead)
        return self.nodes("Reshape", name, self.nodes.integers(*lead, *shape), wish=wish)

    def apart(self, value: Value) -> str:
        """A value with each of its axes for itself: `heads*keys` as two, none of size 1."""
        shape = tuple(extent_of(axis, self.sizes) for axis in value.axes)
        name = self.known[value]
        return name if len(value.axes) == len(value.shape) else self.reshaped(name, value.static, shape)

    def spread(self, value: Value, along: Axes) -> str:
        """A value with an axis for each of these: of length 1 where it has none."""
        if (value, along) not in self.made:
            self.made[value, along] = self._spread(value, along)
        return self.made[value, along]

    def _spread(self, value: Value, along: Axes) -> str:
        name, own = self.apart(value), [*value.axes]
        order = [axis for axis in along if axis in own]
        if order != own:
            lead = 0 if value.static else self.lead
            perm = [*range(lead), *(lead + own.index(axis) for axis in order)]
            name = self.nodes("Transpose", name, perm=perm)
        behind = value.static and tuple(order) == along[len(along) - len(order) :]
        if tuple(order) == along or behind:  # axes before it are broadcast anyway
            return name
        shape = [extent_of(axis, self.sizes) if axis in own else 1 for axis in along]
        return self.reshaped(name, value.static, shape)

    def put_together(self, name: str, out: Value, wish: str) -> str:
        """What has the axes of a value apart, as the value lies."""
        if len(out.axes) == len(out.shape):
            return name
        return self.reshaped(name, out.static, shape_of(out, self.sizes), wish)

    def contracted(self, op: Contract, wish: str) -> str:
        """The product of two values, summed over the axes that `out` does not have."""
        axes = dict.fromkeys((*op.out.axes, *op.left.axes, *op.right.axes))
        letter = dict(zip(axes, ascii_lowercase, strict=False))
        left, right, out = ("".join(letter[axis] for axis in v.axes) for v in (op.left, op.right, op.out))
        left, right, out = (
            letters if value.static else f"...{letters}"
            for letters, value in zip((left, right, out), (op.left, op.right, op.out), strict=True)
        )
        equation = f"{left},{right}->{out}"
        made = self.nodes("Einsum", self.apart(op.left), self.apart(op.right), wish=wish, equation=equation)
        return self.put_together(made, op.out, wish)

    def summed(self, value: Value, out: Value, wish: str) -> str:
        """The sum over the axes of a value that `out` does not have."""
        over = [k - len(value.axes) for k, axis in enumerate(value.axes) if axis not in out.axes]
        made = self.nodes("ReduceSum", self.apart(value), self.nodes.integers(*over), keepdims=0)
        return self.put_together(made, out, wish)

    def largest(self, value: Value, out: Value, wish: str) -> str:
        """The largest entries along the axis of a value that `out` does not have."""
        (at,) = (k - len(value.axes) for k, axis in enumerate(value.axes) if axis not in out.axes)
        return self.put_together(self.nodes.largest(self.apart(value), 0, at), out, wish)

    def cumulated(self, op: CumSum, wish: str) -> str:
        """The running sum along one axis of a value."""
        at = self.nodes.integer(op.out.axes.index(op.axis) - len(op.out.axes))
        made = self.nodes("CumSum", self.apart(op.operand), at, reverse=int(op.backwards))
        return self.put_together(made, op.out, wish)

    def shifted(self, op: Shift, wish: str) -> str:
        """The entries of a value moved along one axis, with zeros where nothing comes from."""
        lead = 0 if op.out.static else self.lead
        at, rank = lead + op.out.axes.index(op.axis), lead + len(op.out.axes)
        width, integers = extent_of(op.axis, self.sizes), self.nodes.integers
        by = min(abs(op.by), width)
        begin, end = (0, width - by) if op.by > 0 else (by, width)
        kept = self.nodes("Slice", self.apart(op.operand), integers(begin), integers(end), integers(at))
        pads = [0] * (2 * rank)
        pads[at if op.by > 0 else rank + at] = by
        return self.put_together(self.nodes("Pad", kept, integers(*pads)), op.out, wish)

    def weighted(self, op: Product, wish: str) -> str:
        """The product of a weight with a matrix, along one of the last two axes of that."""
        right = op.along == op.operand.axes[-1]
        matrix = self.known[op.matrix]
        if op.transposed != right:
            matrix = self.nodes.once("Transpose", matrix, wish=f"{matrix}_T", perm=[1, 0])
        sides = (self.known[op.operand], matrix) if right else (matrix, self.known[op.operand])
        return self.nodes("MatMul", *sides, wish=wish)

    def by_blocks(self, op: Product, wish: str) -> str:
        """A product with a matrix that is some blocks, one below the other; each multiplies its share."""
        blocks = extent_of(op.blocks, self.sizes)
        height, width = shape_of(op.matrix, self.sizes)
        rows = height // blocks
        ends = (rows, width) if op.transposed else (width, rows)
        matrix = self.nodes("Reshape", self.known[op.matrix], self.nodes.integers(blocks, rows, width))
        operand = self.reshaped(self.known[op.operand], op.operand.static, (blocks, ends[0]))
        equation = "...br,brc->...bc" if op.transposed else "...bc,brc->...br"
        made = self.nodes("Einsum", operand, matrix, equation=equation)
        return self.reshaped(made, op.out.static, (blocks * ends[1],), wish)


def ranked(nodes: Nodes, mask: str, value: Value) -> str:
    """Truth values, one a row with an axis of length 1, as they broadcast over the features of a value."""
    further = len(value.shape) - 1
    return nodes("Unsqueeze", mask, nodes.integers(*range(-further, 0))) if further > 0 else mask

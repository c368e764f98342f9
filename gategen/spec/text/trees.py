"""Trees of expressions, made by `ast.parse`, in which nothing but a few kinds of nodes can be met."""

from __future__ import annotations

import ast
import re
import warnings
from collections import deque
from collections.abc import Iterator

from gategen.errors import SpecError
from gategen.spec.text.lines import NAME_A_PART

NODES = 1_500  # names, numbers, operations and calls of all equations together
DEPTH = 30  # of nesting in one expression

OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.MatMult, ast.Pow, ast.USub, ast.UAdd)
RELATIONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_NODES = (
    ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.UnaryOp, ast.BinOp, ast.Compare, ast.Call,
    ast.Tuple, ast.keyword, ast.Load, *OPERATORS, *RELATIONS,
)  # fmt: skip

SWITCH = "where(a > 0, b, c); for two conditions where(a > 0, where(b > 0, ...), ...)"
_REFUSED: dict[type[ast.AST], tuple[str, str]] = {
    ast.IfExp: ("if ... else", SWITCH), ast.BoolOp: ("and / or", SWITCH), ast.Not: ("not", SWITCH),
    ast.Eq: ("==", "where(equal(a, b), ..., ...)"), ast.FloorDiv: ("//", "a / b"), ast.Lambda: ("lambda", ""),
    ast.NamedExpr: (":=", "an equation of its own"), ast.Starred: ("a * in front of an argument", ""),
    ast.Slice: ("a slice", "one whole number: b[0]"), ast.List: ("a list", "a tuple is (a, b)"),
    ast.JoinedStr: ("a string", ""), ast.ListComp: ("for", ""), ast.GeneratorExp: ("for", ""),
}  # fmt: skip


UNIT = "identity"  # a matrix without a declaration
OF_MATRICES = ("inv", "expm", "norm", "row_norms")  # functions of matrices


class Budget:
    """What is left of `NODES`."""

    def __init__(self) -> None:
        self.left = NODES


def parsed(text: str, budget: Budget) -> ast.expr:
    """The tree of an expression; `h'` becomes `h.next`. Raises `SpecError` without a place."""
    primed = re.sub(r"(?<=\w) ?'", ".next", text)
    if "'" in primed:
        raise SpecError(
            "' does not stand behind a name", hint="h' is the next value of a state h; text stands between \""
        )
    try:
        with warnings.catch_warnings():  # Python's about style: 1if
            warnings.simplefilter("ignore")
            tree = ast.parse(primed.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply"
        hint = "W @ x for a matrix W, z * h elementwise, f(v) for a function f"
        raise SpecError(f"this cannot be read: {reason}", hint=hint) from None
    _check(tree, budget)
    return tree


def _check(tree: ast.expr, budget: Budget) -> None:
    """That every node is of a known kind, and that there are not too many."""
    pending: list[tuple[ast.AST, int]] = [(tree, 0)]
    while pending:
        node, depth = pending.pop()
        if not isinstance(node, _NODES):
            what, hint = _REFUSED.get(type(node), (type(node).__name__, ""))
            raise SpecError(f"{what} has no place in an expression", hint=hint)
        budget.left -= isinstance(node, ast.expr)
        if depth > DEPTH or budget.left < 0:
            raise _too_much(depth, tree)
        pending += [(child, depth + (not continues(node, child))) for child in ast.iter_child_nodes(node)]


def _too_much(depth: int, tree: ast.expr) -> SpecError:
    """Of one expression, or of all of them: then naming a part would not make it less."""
    if depth > DEPTH:
        return SpecError(f"this is nested more than {DEPTH} deep", hint=NAME_A_PART)
    own = sum(isinstance(node, ast.expr) for node in ast.walk(tree))
    if own > NODES:
        return SpecError(f"this is of more than {NODES} parts", hint=NAME_A_PART)
    return SpecError(
        f"up to here the equations have more than {NODES} parts (names, numbers, operations) together",
        hint="a cell of that many is written as a .py file",
    )


_LEVELS: dict[type[ast.operator], int] = {ast.Add: 1, ast.Sub: 1, ast.Mult: 2, ast.Div: 2}


def continues(node: ast.AST, child: ast.AST) -> bool:
    """Whether the sum or product `child` is the beginning of `node`: `a + b` in `a + b - c`."""
    return (
        isinstance(node, ast.BinOp)
        and isinstance(child, ast.BinOp)
        and child is node.left
        and _LEVELS.get(type(node.op), 0) == _LEVELS.get(type(child.op), -1)
    )


def names(tree: ast.expr) -> dict[str, bool]:
    """The names that a tree reads, but for those of functions, and whether they are those of matrices."""
    found: dict[str, bool] = {}
    nodes = list(_without_indices(tree))
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    left = {id(_core(node.left)) for node in nodes if isinstance(node, ast.BinOp) and _is_product(node)}
    left |= {id(_core(node)) for node in nodes if isinstance(node, ast.Attribute) and node.attr == "T"}
    left |= {id(part) for node in nodes for whole in _of_matrices(node) for part in ast.walk(whole)}
    for node in nodes:
        if isinstance(node, ast.Name) and id(node) not in called and node.id != UNIT:
            found[node.id] = found.get(node.id, False) or id(node) in left
    return found


def _of_matrices(node: ast.AST) -> list[ast.expr]:
    """The expressions of matrices in a node: a left side that is more than a name, arguments of `inv`."""
    match node:
        case ast.BinOp(
            left=ast.BinOp() | ast.UnaryOp() | ast.Attribute(value=ast.BinOp()) as left, op=ast.MatMult()
        ):
            return [left]
        case ast.Call(func=ast.Name(id=name), args=args) if name in OF_MATRICES:
            return args
    return []


def _without_indices(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that stand in [ ], where t is the step."""
    waiting = deque([tree])
    while waiting:
        node = waiting.popleft()
        yield node
        waiting.extend([node.value] if isinstance(node, ast.Subscript) else ast.iter_child_nodes(node))


def _is_product(node: ast.BinOp) -> bool:
    return isinstance(node.op, ast.MatMult)


def _core(tree: ast.expr) -> ast.expr:
    """`A` of `A`, `A.T`, `A[0]`."""
    while isinstance(tree, (ast.Attribute, ast.Subscript)):
        tree = tree.value
    return tree

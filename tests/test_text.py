"""The text form: what it says, that it says as much as the Python form, and that reading it runs nothing."""

import ast
import faulthandler
import itertools
import sys
import warnings
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import sympy as sp
from helpers import CELLS, MINUTES
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import gategen
from gategen import Cell, SpecError, load
from gategen.build import all_backends, generate
from gategen.errors import SpecWarning
from gategen.spec import contents, text
from gategen.spec import language as lang
from gategen.spec.text import read
from gategen.spec.text.expressions import FUNCTIONS
from gategen.spec.text.writer import draft, write

SPECS = sorted((Path(__file__).parent / "specs").glob("*.py"))
EVERY = {
    name: cell
    for name, cell in {**CELLS, **{cell.name: cell for path in SPECS for cell in load(path)}}.items()
    if not any(eq.rhs.has(sp.pi) for eq in cell.all_equations)  # which a text writes as a float
}
every_cell = pytest.mark.parametrize("cell", EVERY.values(), ids=EVERY)


def parsed(source, name="cell"):
    return Cell.parse(name, source, file="cell.gate")


def equations(cell):
    """Every equation, over plain symbols: states and inputs of two readings are different ones."""

    def plain(expr):
        return expr.xreplace({s: sp.Symbol(s.name, real=True) for s in expr.atoms(sp.Symbol)})

    both = (
        ((eq.lhs.name, plain(eq.rhs)) for eq in cell.equations),
        ((eq.lhs.name, plain(eq.rhs)) for eq in cell.first),
    )
    return tuple(map(tuple, both))


def declarations(cell):
    return (
        cell.title,
        cell.reference,
        [(x.name, x.size) for x in cell.inputs],
        [(s.name, s.size, str(s.initial)) for s in cell.states],
        sorted(
            (p.name, p.role, p.trainable, str(p.contents), str(cell.shapes.get(p.name, cell.size_of(p))))
            for p in cell.parameters
        ),
        [(c.name, c.value) for c in cell.constants],
        [symbol.name for symbol in cell.outputs],
        dict(cell.gate_sizes),
    )


def refused(source):
    with pytest.raises(SpecError) as caught:
        parsed(source)
    return caught.value


# ------------------------------------------------------------------------------------------ there and back


@every_cell
def test_what_is_written_reads_as_the_same_cell(cell):
    again = parsed(write(cell), cell.name)
    assert equations(again) == equations(cell)
    assert declarations(again) == declarations(cell)
    assert write(again) == write(cell)


@pytest.mark.slow
@pytest.mark.parametrize("backend", all_backends())
@every_cell
def test_a_cell_read_from_text_gives_the_same_files(cell, backend):
    def lines(made):
        files = generate(made, backend)
        return {
            name: [line for line in body.splitlines() if "gategen build" not in line]
            for name, body in files.items()
        }

    assert lines(parsed(write(cell), cell.name)) == lines(cell)


@every_cell
def test_a_draft_has_the_same_equations_under_another_name(cell):
    drafted = parsed(draft(cell, "mine"), "mine")
    assert equations(drafted) == equations(cell)
    assert declarations(drafted)[1:] == declarations(cell)[1:]
    assert drafted.title == f"mine, after {cell.name}"


def test_the_example_of_the_interface_is_the_gru():
    cell = parsed('''"""GRU, fully gated (arXiv:1412.3555)."""
states: h
z  = sigmoid(W_z @ x + U_z @ h + b_z)
r  = sigmoid(W_r @ x + U_r @ h + b_r)
n  = tanh(W_h @ x + U_h @ (r * h) + b_h)
h' = (1 - z) * h + z * n
''')
    assert cell.title == "GRU, fully gated (arXiv:1412.3555)"
    assert equations(cell) == equations(CELLS["gru"])


def test_the_example_of_the_module_is_a_cell():
    example = text.__doc__.partition("\n\n")[2].partition("**Lines.**")[0]
    cell = parsed("\n".join(line[4:] for line in example.splitlines()))
    assert [(s.name, s.size) for s in cell.states] == [("r", "projection"), ("c", "hidden")]
    assert cell.reference == "H. Sak, A. Senior, F. Beaufays 2014, arXiv:1402.1128"
    assert cell.outputs == (cell.states[0].next,)
    assert cell.shapes["P_r"] == ("projection", "hidden")


ALL = """
# a comment before the title
'''A title with "quotes", \N{GREEK SMALL LETTER ALPHA}.

A reference
on two lines.
'''
name: everything  # and one behind
inputs: s, m[1],
    w[memory]
states: h, k[6] = -0.25
states:
    v = tanh(b_v) * alpha / 2
matrices: A[hidden, (hidden, input)], S[6, hidden], C[(hidden)
    , memory]
fixed matrices: E
vectors: q, e[6]
fixed vectors: f
scalars: alpha
fixed scalars: delta
constants: eps = 1e-5, third = 1 / 3
output: y, k'
y = (A @ concat(h, s)
     + C @ w) * m  # continued
n_a, n_b = layer_norm((E @ s, U_h @ h), gain=(q, None), eps=eps)
h' = y + f * n_a + delta * n_b
k' = S @ h' + k * e + third
v' = v
first:
    y = W_y @ s
    h' = W_y @ s; k'=k
"""


def test_everything_can_be_said():
    cell = parsed(ALL.replace("; k'=k", "\n    k' = k\n    v' = v"))
    assert (cell.title, cell.reference) == (
        'A title with "quotes", \N{GREEK SMALL LETTER ALPHA}',
        "A reference on two lines.",
    )
    assert read(ALL.replace("; k'=k", "")).name == "everything"
    assert [(x.name, x.size) for x in cell.inputs] == [("s", "input"), ("m", 1), ("w", "memory")]
    assert [(s.name, s.size) for s in cell.states] == [("h", "hidden"), ("k", 6), ("v", "hidden")]
    start = cell.states[2].initial
    assert sorted(map(str, start.free_symbols)) == ["alpha", "b_v"] and start.coeff(sp.Symbol("x")) == 0
    assert cell.shapes["A"] == ("hidden", ("hidden", "input")) and cell.shapes["S"] == (6, "hidden")
    assert {p.name for p in cell.parameters if not p.trainable} == {"E", "f", "delta"}
    assert {c.name: c.value for c in cell.constants} == {"eps": 1e-5, "third": sp.Rational(1, 3)}
    assert [symbol.name for symbol in cell.outputs] == ["y", "k'"]
    assert [eq.lhs.name for eq in cell.first] == ["y", "h'", "k'", "v'"]


# ------------------------------------------------------------------------------------------ roles


def role(source, name):
    return next(symbol for symbol in parsed(source).symbols if symbol.name == name)


@pytest.mark.parametrize("letter", "WUVPR")
def test_a_parameter_left_of_a_product_is_a_matrix(letter):
    assert isinstance(role(f"h' = {letter}_h @ x + h", f"{letter}_h"), lang.Matrix)
    assert isinstance(role(f"matrices: K\nh' = K @ x + {letter}_h.T @ h", f"{letter}_h"), lang.Matrix)


@pytest.mark.parametrize("letter", "WUVPRbcpg")
def test_a_parameter_elsewhere_is_a_vector(letter):
    likely_a_slip = pytest.warns(SpecWarning, match="stands without @") if letter in "WU" else nullcontext()
    with likely_a_slip:
        assert isinstance(role(f"h' = W_x @ x + {letter}_h * h", f"{letter}_h"), lang.Vector)


def test_a_name_is_a_matrix_wherever_it_is_one_once():
    assert "is a matrix and stands without @" in refused("h' = b_h * h + W_h @ x\nz = b_h @ x").message


def test_what_is_defined_needs_no_parameter_s_name_and_may_have_one():
    cell = parsed("c' = b_z * c + W_c @ x\nb_z = tanh(c)")
    assert isinstance(role("c' = b_z * c + W_c @ x\nb_z = tanh(c)", "b_z"), lang.Gate)
    assert [s.name for s in cell.states] == ["c"]


def test_x_is_the_first_input_also_where_others_are_declared():
    assert [x.name for x in parsed("inputs: m[1]\nh' = m * h + W_h @ x").inputs] == ["x", "m"]
    assert [x.name for x in parsed("inputs: m[1], x\nh' = m * h + W_h @ x").inputs] == ["m", "x"]


def test_states_are_in_the_order_of_their_declaration_then_of_their_equations():
    assert [s.name for s in parsed("a' = W_a @ x\nb' = a\nc' = b").states] == ["a", "b", "c"]
    assert [s.name for s in parsed("states: c\na' = W_a @ x\nb' = a\nc' = b").states] == ["c", "a", "b"]


def test_a_name_may_be_that_of_a_function():
    assert isinstance(role("vectors: tanh\nh' = tanh(W_h @ x) * tanh", "tanh"), lang.Vector)


def test_an_unused_declaration_is_a_warning_at_its_line():
    with pytest.warns(SpecWarning, match="q is declared but no equation uses it") as caught:
        parsed("vectors: b_h\nvectors: q\nh' = W_h @ x + b_h")
    assert (caught[0].filename, caught[0].lineno) == ("cell.gate", 2)


SLIPS = {
    "z = sigmoid(W_z @ x + U_z @ h)\nh' = z * tanh(W_h @ x + U_h * h)": (
        2,
        "U_h stands without @",
        "U_h @ v",
    ),
    "matrices: Q_z\nz = Q_z @ h\nQ_h = x\nh' = W_h @ x + z + Q_h": None,
    "z = R_z @ h\nh' = W_h @ x + z + R_h * h": (2, "R_h stands without @", "R_h @ v"),
    "z = sigmoid(W_z @ x + b_h)\nh' = z * tanh(W_h @ x + b_hh)": (2, "b_hh is a parameter of its own", "b_h"),
    "z = W_z @ x + b_h\nr = W_r @ x + b_h\nh' = z * r + b_": (3, "b_ is a parameter of its own", "is b_h"),
    "z = W_z @ x + U_z @ h + b_z\nh' = z * (W_h @ x + U_z @ h + b_h)": (2, "U_z is read here", "U_h"),
    "h' = W_n @ x + b_n + x * (U_n @ h + b_hn)": None,  # both in one equation are two parameters
    "z = W_z @ x + b_z\nr = W_r @ x + b_r\nh' = z * r": None,  # another letter is another gate
}


@pytest.mark.parametrize("source", SLIPS)
def test_what_looks_like_a_slip_of_the_pen_is_warned_of_unless_it_is_declared(source):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cell = parsed(f"inputs: x[hidden]\n{source}")
    if SLIPS[source] is None:
        assert not caught
        return
    line, *words = SLIPS[source]
    (warning,) = caught
    assert warning.lineno == line + 1 and all(word in str(warning.message) for word in words)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = parsed(write(cell))
    assert equations(again) == equations(cell)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_what_is_written_looks_like_no_slip_of_the_pen(cell):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parsed(write(cell), cell.name)


# ------------------------------------------------------------------------------------------ expressions


def right(expression, declared=""):
    cell = parsed(f"inputs: x[hidden]\n{declared}h' = {expression} + x")
    return cell.equations[-1].rhs - cell.inputs[0], {s.name: s for s in cell.symbols}


def test_every_exported_function_can_be_called():
    declaring = {
        "Cell",
        "Eq",
        "inputs",
        "states",
        "gates",
        "matrices",
        "vectors",
        "scalars",
        "constants",
        "size",
        "t",
    }
    other = {"load", "build", "compile", "verify", "diff"} | {
        name for name in gategen.__all__ if name.endswith("Error")
    }
    held = {word.partition("(")[0] for word in contents.WORDS}
    assert {*gategen.__all__} - declaring - held - other <= {*FUNCTIONS}


CALLS = {
    "leaky_relu(h, slope=0.2)": lambda h: lang.leaky_relu(h, slope=0.2),
    "elu(h)": lambda h: lang.elu(h),
    "elu(h, 2)": lambda h: lang.elu(h, 2),
    'gelu(h, approximate="tanh")': lambda h: lang.gelu(h, approximate="tanh"),
    "hard_sigmoid(h, offset=0.4)": lambda h: lang.hard_sigmoid(h, offset=0.4),
    "clip(h, -1, high=2)": lambda h: lang.clip(h, -1, 2),
    "layer_norm(v=h, gain=None, eps=1e-3)": lambda h: lang.layer_norm(h, eps=1e-3),
    "where(equal(h, 1), 2, h)": lambda h: lang.where(lang.equal(h, 1), 2, h),
    "where(h <= 1, 2, h)": lambda h: lang.where(h <= 1, 2, h),
    "Max(h, 1, 2)": lambda h: lang.maximum(lang.maximum(h, 1), 2),
    "abs(h) + sqrt(h**2 + 1)": lambda h: lang.abs(h) + lang.sqrt(h**2 + 1),
    "square(h) / 3 - -h**-2": lambda h: h**2 / 3 + 1 / h**2,
    "2**-3 * h + 3**(1 / 2)": lambda h: h / 8 + sp.sqrt(3),
    "mean(h, 2 * h) * sum_(h) * var(h)": lambda h: lang.mean(h, 2 * h) * lang.sum_(h) * lang.var(h),
    "Heaviside(h) * sign(h) * erf(h)": lambda h: lang.step(h) * lang.sign(h) * sp.erf(h),
    "surrogate(step(h), psi=sigmoid(4 * h))": lambda h: lang.surrogate(lang.step(h), lang.sigmoid(4 * h)),
    "+h - (1 - h) * 2 * h": lambda h: h - 2 * h * (1 - h),
}


@pytest.mark.parametrize("written", CALLS)
def test_an_expression_means_what_it_means_in_python(written):
    made, symbols = right(written)
    assert sp.expand(made - CALLS[written](symbols["h"])) == 0


def test_the_root_of_a_square_is_positive():
    made, symbols = right("(h**2)**1.5")
    assert [made.subs(symbols["h"], value) for value in (-2, 2)] == [8, 8]


def test_a_prime_on_the_right_is_the_next_value():
    cell = parsed("c' = W_c @ x\nh' = tanh(c') * h")
    assert [eq.lhs.name for eq in cell.equations] == ["c'", "h'"]
    assert cell.states[0].next in cell.equations[1].rhs.free_symbols


def test_a_tuple_on_the_left_takes_a_tuple_apart():
    cell = parsed("n_a, n_b = layer_norm((W_a @ x, U_a @ h))\nh' = n_a * n_b")
    a, b = (eq.rhs for eq in cell.equations[:2])
    assert a != b and a.atoms(lang.var) == b.atoms(lang.var)


def test_irrational_sums_become_floats_and_rational_ones_stay_exact():
    made, _ = right("(1 + sqrt(2)) * h + (1 / 3 + 1) * x")
    assert made.atoms(sp.Float) and made.has(sp.Rational(4, 3) - 1) | made.has(sp.Rational(4, 3))


# ------------------------------------------------------------------------------------------ lines


def test_windows_line_ends_tabs_and_a_byte_order_mark_are_no_mistake():
    cell = parsed("\ufeffstates:\th\r\nfirst:\r\n\th' = W_h @ x\r\nh' = W_h @ x + h\r\n")
    assert len(cell.first) == 1


def test_a_text_may_be_indented_as_the_program_is_that_it_stands_in():
    text = '''
        """A title."""
        h' = tanh(W_h @ x +
                  U_h @ h)
        first:
            h' = W_n @ x
        '''
    flat = text.replace("\n        ", "\n")
    one, other = Cell.parse("c", text), Cell.parse("c", flat)
    assert one.title == "A title" and [str(eq) for eq in one.equations] == [str(eq) for eq in other.equations]
    assert len(one.first) == 1
    with pytest.raises(SpecError, match="<text>:2: this is neither"):
        Cell.parse("c", "\n    tanh(x)\n")


def test_an_error_names_the_line_quotes_it_and_helps():
    error = refused("# one\nz = tanh(W_z @ x\n   + b_z)\nh' = z +   q")
    assert str(error).splitlines() == [
        "cell.gate:4: q is not known",
        "    h' = z + q",
        "    hint: declare what it is: constants: q = 0.1, a number; inputs: q[1], read at every step; "
        "vectors: q, trained",
    ]


def test_an_equation_on_several_lines_is_found_by_its_first():
    error = refused("h' = tanh(\n  W_h @ x +\n  q)")
    assert error.where.line == 1 and error.equation == "h' = tanh( W_h @ x + q)"


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent / "bad_specs").glob("*.gate")), ids=lambda p: p.stem
)
def test_a_refusal_of_a_text_speaks_no_python(path):
    with pytest.raises(SpecError) as caught:
        load(path)
    for word in ("Eq(", ".next", 'states("', "shape=", "output="):
        assert word not in f"{caught.value.message} {caught.value.hint}"


ODD_TITLES = (
    '"""; raise SystemExit; """',
    '"""',
    '""""',
    'a quote at the end "',
    "a backslash at the end \\",
    r"\"\"\" and \N{nothing} of $\xi$, \upsilon, \x41",
    "{{ name }} {% for %} {# no #}",
    "*/ #error // ??/",
    "\N{GREEK SMALL LETTER ALPHA} [bold]",
)


@pytest.mark.parametrize("text", ODD_TITLES)
@pytest.mark.parametrize("backend", ["numpy", "cupy"])
def test_titles_and_references_reach_generated_files_only_quoted(text, backend):
    def made(title):
        cell = Cell("odd", *CELLS["rnn"].equations, title=title, reference=f"{title} {title}")
        return generate(cell, backend)

    for (name, odd), plain in zip(made(text).items(), made("plain").values(), strict=True):
        if name.endswith(".py"):
            odd_tree, plain_tree = ast.parse(odd), ast.parse(plain)
            assert ast.get_docstring(odd_tree, clean=False).startswith(f"{text.rstrip('.')}, for ")
            assert f"\n{text} {text}\n" in ast.get_docstring(odd_tree, clean=False)
            assert ast.dump(ast.Module(odd_tree.body[1:], [])) == ast.dump(
                ast.Module(plain_tree.body[1:], [])
            )
        else:
            first, *rest = odd.splitlines()
            assert first.startswith(f"// {text}: ") and rest == plain.splitlines()[1:]


def test_a_title_that_cannot_be_quoted_is_not_written():
    cell = Cell("cell", *CELLS["rnn"].equations, title="\"\"\" and '''")
    with pytest.raises(gategen.UnsupportedError):
        write(cell)


def test_the_name_of_the_call_comes_before_that_of_the_text():
    assert Cell.parse("mine", "name: yours\nh' = W_h @ x").name == "mine"


def test_no_text_is_no_spec():
    with pytest.raises(SpecError, match="a str, not bytes"):
        Cell.parse("cell", b"h' = x")


# ------------------------------------------------------------------------------------------ nothing runs

CALLED = "eval exec compile __import__ sympify parse_expr lambdify S import_module globals locals".split()


def test_the_reader_calls_nothing_that_runs_text():
    for path in Path(text.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called == "sp.sympify":  # of a Python number, and strict: it would refuse text
                    assert ast.unparse(node) == "sp.sympify(number, strict=True)"
                    continue
                assert called.split(".")[-1] not in CALLED or called == "re.compile", f"{path.name}: {called}"


PAYLOADS = """
__import__("os").system("touch {marker}")
__import__('os').system('touch {marker}')
exec("open('{marker}', 'w')")
eval("open('{marker}', 'w')")
open("{marker}", "w")
(lambda: open("{marker}", "w"))()
().__class__.__base__.__subclasses__()
[].__class__.__mro__[-1].__subclasses__()
sqrt.__globals__["__builtins__"]["open"]("{marker}", "w")
tanh.__new__.__globals__["__builtins__"]["exec"]("open('{marker}', 'w')")
x.__class__.__init__.__globals__
x.func.__globals__
x.next.__class__
W_h.T.__init__.__globals__
f"{{open('{marker}', 'w')}}"
"{{0.__class__}}".format(x)
[open("{marker}", "w") for _ in (1,)]
{{open("{marker}", "w")}}
(y := open("{marker}", "w"))
gelu(x, approximate="__import__('os').system('touch {marker}')")
gelu(x, approximate=open("{marker}", "w"))
tanh("open('{marker}', 'w')")
where("open('{marker}', 'w')", x, h)
maximum(*open("{marker}", "w"))
maximum(x, **open("{marker}", "w"))
W_h[open("{marker}", "w")] @ x
W_h["open('{marker}', 'w')"] @ x
lambdify([], "open('{marker}', 'w')")()
Symbol("open('{marker}', 'w')")
x if open("{marker}", "w") else x
await open("{marker}", "w")
yield open("{marker}", "w")
breakpoint()
x.subs("open('{marker}', 'w')", 1)
""".strip().splitlines()


PLACES = [
    "h' = {}",
    "{} = x",
    "states: h = {}\nh' = x",
    "states: h[{}]\nh' = x",
    "constants: k = {}\nh' = k * x",
    "matrices: A[{}, hidden]\nh' = A @ x",
    "output: {}\nh' = x",
    "name: {}\nh' = x",
]


@pytest.mark.parametrize("place", PLACES)
def test_nothing_that_a_text_holds_is_run(place, tmp_path):
    marker = tmp_path / "marker"
    for payload in PAYLOADS:
        refused(place.format(payload.format(marker=marker)))
        assert not marker.exists(), payload


def test_a_payload_in_a_comment_or_docstring_is_text(tmp_path):
    cell = parsed(f'"""{{{{ open("{tmp_path}/marker", "w") }}}}"""\nh\' = W_h @ x  # exec("1")')
    for backend in all_backends():
        generate(cell, backend)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------ nothing

AT_MOST = 8_000_000  # the dearest text below takes 3.4 million, which is about half a second


class TooLong(BaseException):
    """More calls than allowed. Nothing on the way catches it."""


@contextmanager
def calls_up_to(limit):
    """Counts function calls instead of seconds, and stops at so many; what hangs in one call ends the run."""
    count = itertools.count(1)

    def counted(frame, event, arg):
        if event in ("call", "c_call") and next(count) > limit:
            raise TooLong

    faulthandler.dump_traceback_later(MINUTES, exit=True, file=sys.__stderr__)
    sys.setprofile(counted)
    try:
        yield
    finally:
        sys.setprofile(None)
        faulthandler.cancel_dump_traceback_later()


def outcome(source, limit=AT_MOST):
    """The cell or None; only a `SpecError` may come out, and before long."""
    with warnings.catch_warnings(), calls_up_to(limit):
        warnings.simplefilter("ignore")
        try:
            return parsed(source)
        except SpecError:
            return None


def test_what_goes_on_is_stopped():
    with pytest.raises(TooLong), calls_up_to(1000):
        while True:
            len("")


def deep(opening, inner="x", closing=")", times=29):
    return f"inputs: x[hidden]\nh' = {opening * times}{inner}{closing * times}"


def many(term, number, joint=" + "):
    return "inputs: x[hidden]\nh' = " + joint.join(term.format(k=k) for k in range(number))


def lines(equation, number):
    return "inputs: x[hidden]\n" + "\n".join(equation.format(k=k, n=k + 1) for k in range(number))


FRACTIONS = " + ".join(f"1 / (h + b_{k})" for k in range(130))
ALIKE = ["W_" + f"{k:b}".rjust(9, "0").replace("0", "a").replace("1", "b") * 10 for k in range(190)]
SLOW = "h' = tanh(tanh((log(p) + W @ x) / ((tanh({0}(h) * p)**5 + U @ h)**2 + 1) * ({0}(q) + p)**3)**2) * h"
SLOW = f"matrices: W, U\nvectors: p, q\n{SLOW}"  # where SymPy does not know what is real
HOSTILE = {
    "tanh of tanh of log": SLOW.format("log"),
    "tanh of tanh of sqrt": SLOW.format("sqrt"),
    "tanh of tanh of abs": SLOW.format("abs"),
    "names alike": "\n".join(f"z{k} = {a} @ x" for k, a in enumerate(ALIKE)) + f"\nh' = q{ALIKE[7]} * h",
    **{f"nested {opening}": deep(opening) for opening in (
        "tanh(1 + ", "sqrt(1 + ", "abs(1 - ", "1 / (h + x * ", "sin(1 - x * ", "log(x - ", "exp(x * ",
        "Max(x, ", "where(x > 0, 1, ", "elu(", "gelu(1 + ", "silu(", "square(b_1 + ",
        "softsign(", "layer_norm(", "U_h @ (", "hard_sigmoid(", "leaky_relu(")},
    "nested products": deep("tanh(b_1 * (1 + ", "x", "))", 14),
    "roots of squares": deep("sqrt((", "x + 1 / (x + b_1)", " + b_2)**2)", 9),
    "tower of powers": deep("(", "2 * x", ")**9"),
    "powers of sums": deep("((", "x", " + 1)**999)", 14),
    "numbers multiplied": many("9999999999999999", 200, " * "),
    "fractions": many("1 / {k}7", 500),
    "roots": many("sqrt({k}7)", 350),
    "roots of large numbers": many("sqrt(1" + "0" * 250 + "{k})", 13),
    "roots of values": many("sqrt({k}7 * x)", 200),
    "nearly nothing": "h' = W_h @ x * sign(sqrt(2) + sqrt(3) - sqrt(5 + 2 * sqrt(6)))",
    "nearly nothing beside a value": "h' = W_h @ x * where(h + sqrt(3) - sqrt(4 - sqrt(1)) > h, 1, h)",
    "large exponentials": many("exp(exp(exp({k})))", 50),
    "a sine of a large number": many("sin(1e{k})", 299),
    "many terms": many("x * b_{k} * h", 200),
    "many factors": many("(x + b_{k})", 300, " * "),
    "many fractions under a root": f"h' = W_h @ x + sqrt(({FRACTIONS})**2)",
    "many products": many("W_{k} @ x", 300),
    "many maxima": f"h' = Max({', '.join(f'h * b_{k}' for k in range(300))})",
    "many means": f"h' = W_h @ x * mean({', '.join(f'h * b_{k}' for k in range(300))})",
    "a norm of many": f"{', '.join(f'n{k}' for k in range(90))} = layer_norm(({'h, ' * 90}))\nh' = n1",
    "a chain": lines("z{k} = z{n} * b_1 + x", 180) + "\nz180 = h\nh' = z0",
    "a cycle": lines("z{k} = z{n}", 180) + "\nz180 = z0\nh' = z0",
    "many states": lines("s{k}' = W_h @ x + s{k}", 190),
    "many declarations": "vectors: " + ", ".join(f"v{k}" for k in range(600)) + "\nh' = W_h @ x",
    "many lines": "\n" * 49_000 + "h' = W_h @ x",
    "a long docstring": f'"""{"a " * 20_000}"""\nh\' = W_h @ x',
    "open brackets": "h' = " + "(" * 3_000,
    "brackets": "h' = " + "(" * 1_900 + "x" + ")" * 1_900,
    "signs": "h' = " + "-" * 3_900 + "x",
    "attributes": "h' = x" + ".a" * 1_900,
    "indices": "h' = x" + "[0]" * 1_200,
    "calls": "h' = x" + "()" * 1_900,
    "powers": "h' = " + "**".join(["x"] * 1_300),
    "comparisons": "h' = " + "<".join(["x"] * 1_900),
    "digits": "h' = x * " + "9" * 3_900,
    "hexadecimal digits": "h' = x * 0x" + "f" * 3_900,
    "a large size": "states: h[" + "9" * 3_900 + "]\nh' = W_h @ x",
    "colons": ":" * 4_000,
    "primes": "h' = x" + "'" * 3_900,
    "sizes that contradict": "states: h[rank]\nh' = " + "tanh(1 + x * " * 28 + "x" + ")" * 28 + " + h",
}  # fmt: skip


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_is_answered_before_long(source):
    outcome(source)


TOWERS = """
10**10**10  9**9**9**9  2**(10**9)  (2*x)**(10**9)  (1/3)**1000000  2.5**1e9  1e300*1e300  10**400  x**1001
((x**999)**999)
""".split()


@pytest.mark.parametrize("tower", TOWERS)
def test_a_number_of_many_digits_is_refused_before_it_is_computed(tower):
    with calls_up_to(20_000):
        assert "too large" in refused(f"h' = W_h @ x + h * {tower}").message


def test_twenty_lines_are_read_in_a_moment():
    more = "\n".join(f"z{k} = sigmoid(W_{k} @ x + U_{k} @ h + b_{k})" for k in range(12))
    assert outcome(f"{write(CELLS['lstm']).rstrip()}\n{more}", 300_000) is not None


# ------------------------------------------------------------------------------------------ anything

TOKENS = [
    *"x h z W_h U_h b_h h' x' = + - * / ** @ ( ) [ ] , . : 0 1 2.5 1e5 1e999 10**10 0x1 1j None".split(),
    *"True # ; ^ lambda for in if else not and or is := == <= > sigmoid( tanh( where( layer_norm((".split(),
    *"mean( concat( sqrt( log( exp( maximum( gelu( equal( .T .next .__class__ __import__( *x **x".split(),
    *"states: inputs: matrices: vectors: first: output: name: constants:".split(),
    "\\", '"tanh"', "'a'", 'f"{x}"', '"""', "\n", "\n\t", "    ", "\ufeff", "\u202e", "\u00e9",
]  # fmt: skip
KNOWN = [write(cell) for cell in EVERY.values()]

fuzzed = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@fuzzed
@given(st.text(max_size=300))
@example("\ud800")
@example("h' = W_h @ x\x85first:")
def test_any_text_is_a_cell_or_a_spec_error(source):
    outcome(source)


@fuzzed
@given(st.lists(st.sampled_from(TOKENS), max_size=60))
def test_any_row_of_tokens_is_a_cell_or_a_spec_error(tokens):
    outcome("h' = " + " ".join(tokens))
    outcome(" ".join(tokens))


@fuzzed
@given(st.data())
def test_any_change_of_a_cell_is_a_cell_or_a_spec_error(data):
    source = data.draw(st.sampled_from(KNOWN))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(source)))
        end = min(len(source), start + data.draw(st.integers(0, 6)))
        source = source[:start] + data.draw(st.sampled_from(["", *TOKENS])) + source[end:]
    made = outcome(source)
    if made is not None:
        assert equations(parsed(write(made), made.name)) == equations(made)


NUMBERS = st.one_of(st.integers(-9, 9), st.integers(), st.floats(), st.sampled_from([10**400, 2.5e-310])).map(
    str
)
LEAVES = st.one_of(st.sampled_from(["x", "h", "b_h", "z", "W_h @ h", "k"]), NUMBERS)
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "**"]), inner).map(
            lambda t: f"({t[0]}) {t[1]} ({t[2]})"
        ),
        st.tuples(
            st.sampled_from([f for f in FUNCTIONS if FUNCTIONS[f].text.endswith(("(v)", "0.01)"))]), inner
        ).map(lambda t: f"{t[0]}({t[1]})"),
        st.tuples(inner, st.sampled_from(["<", "<=", ">"]), inner, inner, inner).map(
            lambda t: f"where({t[0]} {t[1]} {t[2]}, {t[3]}, {t[4]})"
        ),
    ),
    max_leaves=12,
)


@fuzzed
@given(EXPRESSIONS)
def test_any_expression_is_refused_or_written_and_read_alike(expression):
    made = outcome(f"inputs: x[hidden]\nconstants: k = 2\nz = tanh(U_z @ h)\nh' = x + z + {expression}")
    if made is not None:
        written = write(made)
        again = outcome(written)
        assert again is not None, written
        assert write(again) == written

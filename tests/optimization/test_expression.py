"""Texts of figures: parsed as arithmetic says, refused where they are not arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.errors import InputError
from perfmodel.optimization.expression import DEEPEST, parse, parse_relation

KNOWN = {"time": 3.0, "npu.peak_flops": 7.0, "network.0.bandwidth": 0.5, "a_1": 11.0}

leaves = st.one_of(
    st.sampled_from(sorted(KNOWN)).map(lambda name: (name, KNOWN[name])),
    st.floats(1e-3, 1e6).map(lambda x: (repr(x), x)),
    st.integers(1, 10**6).map(lambda k: (str(k), float(k))),
)


def grown(children):
    """Text and value of sums, differences, products and ratios, every part in parentheses."""
    joined = st.tuples(children, st.sampled_from("+-*/"), children)
    return st.one_of(joined.map(combine), children.map(lambda c: (f"-({c[0]})", -c[1])))


def combine(parts):
    (left, a), sign, (right, b) = parts
    if sign == "/" and b == 0:
        sign = "+"
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else 0.0}[sign]
    return f"({left}) {sign} ({right})", value


@given(st.recursive(leaves, grown, max_leaves=12))
def test_a_text_has_the_value_of_the_tree_it_was_written_from(case):
    text, value = case
    assert parse(text).value(KNOWN) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7.0),
        ("8 / 2 / 2", 2.0),
        ("8 - 2 - 2", 4.0),
        ("-2 * -3", 6.0),
        ("2e3 + .5 + 1.", 2001.5),
        ("1e-3*time", 0.003),
        ("network.0.bandwidth/a_1", 0.5 / 11.0),
    ],
)
def test_signs_bind_as_in_arithmetic(text, value):
    assert parse(text).value(KNOWN) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "positive"),
    [
        ("time + 2 * a_1", True),
        ("time * a_1 / (2 * time)", True),
        ("time / (a_1 + 1)", False),
        ("time - a_1", False),
        ("-time", False),
        ("0 * time", False),
    ],
)
def test_only_sums_of_positive_products_count_as_convex_in_logarithms(text, positive):
    assert parse(text).positive is positive


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 +",
        "* 2",
        "(1",
        "1)",
        "a b",
        "1 2",
        "a ** 2",
        "__import__('os')",
        "a[0]",
        "a;b",
        "1 <= 2",
        "π",
    ],
)
def test_what_is_no_arithmetic_is_refused(text):
    with pytest.raises(InputError, match="expression"):
        parse(text)


def test_deep_nesting_is_refused_rather_than_exhausting_the_stack():
    deep = DEEPEST - 1
    assert parse("(" * deep + "1" + ")" * deep).value({}) == 1.0
    with pytest.raises(InputError, match="within each other"):
        parse("(" * 10_000 + "1" + ")" * 10_000)
    with pytest.raises(InputError, match="within each other"):
        parse("-" * 10_000 + "1")


@pytest.mark.parametrize(("text", "sign"), [("a <= 1", "<="), ("a>=1", ">="), ("a == 1", "==")])
def test_a_relation_is_split_at_its_sign(text, sign):
    left, found, right = parse_relation(text)
    assert (left.names, found, right.value({})) == (("a",), sign, 1.0)


@pytest.mark.parametrize("text", ["a", "a < 1", "a <= b <= c", "a = 1", "<="])
def test_anything_but_one_relation_is_refused(text):
    with pytest.raises(InputError):
        parse_relation(text)

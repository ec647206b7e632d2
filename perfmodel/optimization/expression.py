"""Arithmetic over named figures, as a text says it: "network.0.bandwidth + 2 * network.1.bandwidth".

    expression = term {("+" | "-") term};  term = factor {("*" | "/") factor}
    factor = number | name | "(" expression ")" | "-" factor

Texts are parsed here, never evaluated by Python. Nesting is bounded.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from perfmodel.errors import InputError

DEEPEST = 50
"""Parentheses within parentheses."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_]\w*(?:\.\w+)*)|(?P<sign><=|>=|==|[-+*/()])|(?P<wrong>\S))"
)
_RELATION = re.compile(r"<=|>=|==")


@dataclass(frozen=True)
class Expression:
    """A parsed text.

    Attributes:
        text: as given.
        names: the figures it uses, in order of appearance.
        value: ({name: number or array}) -> number or array.
        positive: a sum of products of figures and positive numbers, divided at most by products: positive, and convex
            in the logarithms, wherever the figures are positive (a posynomial).
    """

    text: str
    names: tuple[str, ...]
    value: Callable[[Mapping[str, Any]], Any]
    positive: bool


@dataclass(frozen=True)
class _Term:
    """A part of an expression: its value; whether it is one product, and whether a positive one or a sum of such."""

    value: Callable[[Mapping[str, Any]], Any]
    product: bool
    positive: bool


def parse(text: str) -> Expression:
    """An expression from its text.

    Raises:
        InputError: what is wrong and where.

    >>> parse("2 * a / b + c").value({"a": 3.0, "b": 2.0, "c": 1.0})
    4.0
    """
    reader = _TokenReader(text)
    term = reader.sum(0)
    reader.end()
    names = tuple(dict.fromkeys(reader.names))
    return Expression(text.strip(), names, term.value, term.positive)


def parse_relation(text: str) -> tuple[Expression, str, Expression]:
    """Left side, "<=", ">=" or "==", right side.

    >>> left, sign, right = parse_relation("a + b <= 3")
    >>> left.names, sign, right.value({})
    (('a', 'b'), '<=', 3.0)
    """
    signs = _RELATION.findall(text)
    if len(signs) != 1:
        raise InputError(f"constraint {text!r}: expected one of <=, >=, == between two expressions")
    left, right = text.split(signs[0])
    return parse(left), signs[0], parse(right)


class _TokenReader:
    """The tokens of a text, read once from the left."""

    def __init__(self, text: str):
        self.text = text
        self.tokens = [(m.lastgroup, m[m.lastgroup]) for m in _TOKEN.finditer(text) if m.lastgroup]
        self.at = 0
        self.names: list[str] = []

    def sum(self, depth: int) -> _Term:
        return self.chain(("+", "-"), lambda: self.product(depth))

    def product(self, depth: int) -> _Term:
        return self.chain(("*", "/"), lambda: self.factor(depth))

    def chain(self, signs: tuple[str, str], part: Callable[[], _Term]) -> _Term:
        """Parts joined by signs of equal rank, from the left."""
        first, rest = part(), []
        while (sign := self.sign(*signs)) is not None:
            rest.append((sign, part()))
        return _chained(first, rest) if rest else first

    def factor(self, depth: int) -> _Term:
        if depth > DEEPEST:
            raise self.wrong(f"more than {DEEPEST} parentheses or signs within each other")
        kind, word = self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")
        self.at += 1
        if kind == "number":
            value = float(word)
            return _Term(lambda known: value, True, value > 0)
        if kind == "name":
            self.names.append(word)
            return _Term(lambda known: known[word], True, True)
        if word == "-":
            inner = self.factor(depth + 1)
            return _Term(lambda known: -inner.value(known), inner.product, False)
        if word == "(":
            inner = self.sum(depth + 1)
            if self.sign(")") is None:
                raise self.wrong("a closing parenthesis is missing")
            return inner
        raise self.wrong(f"expected a number, a name or a parenthesis, got {word or 'the end'!r}")

    def sign(self, *wanted: str) -> str | None:
        if self.at < len(self.tokens) and self.tokens[self.at][1] in wanted:
            self.at += 1
            return self.tokens[self.at - 1][1]
        return None

    def end(self) -> None:
        if self.at < len(self.tokens):
            raise self.wrong(f"did not expect {self.tokens[self.at][1]!r} there")

    def wrong(self, what: str) -> InputError:
        return InputError(
            f"expression {self.text.strip()!r}: {what}; write sums, products and ratios of parameter paths, "
            'figures and numbers, such as "network.0.bandwidth + 2 * network.1.bandwidth"'
        )


_OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def _chained(first: _Term, rest: list[tuple[str, _Term]]) -> _Term:
    """Terms joined by signs, one after the other: a sum may be as long as it likes."""

    def value(known: Mapping[str, Any]) -> Any:
        total = first.value(known)
        for sign, term in rest:
            total = _OPERATIONS[sign](total, term.value(known))
        return total

    positive = first.positive and all(
        term.positive and (sign in "+*" or (sign == "/" and term.product)) for sign, term in rest
    )
    product = first.product and all(sign in "*/" and term.product for sign, term in rest)
    return _Term(value, product, positive)

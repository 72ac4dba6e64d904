"""A parser by recursive descent for arithmetic: ``2 * (3 + 4) ** 2``."""

import math
import operator
import re

NUMBER = re.compile(r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")
NAME = re.compile(r"[A-Za-z_]\w*")
FUNCTIONS = {"sqrt": math.sqrt, "sin": math.sin, "cos": math.cos, "log": math.log}
CONSTANTS = {"pi": math.pi, "e": math.e}
BINARY = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


class ParseError(ValueError):
    """The text is no expression; says where."""


class Parser:
    """Parses and evaluates in one go."""

    def __init__(self, text, names=None):
        self.text = text
        self.position = 0
        self.names = {**CONSTANTS, **(names or {})}

    def parse(self):
        """Value of the whole text."""
        value = self.sum()
        self.skip_spaces()
        if self.position < len(self.text):
            raise self.error("an operator")
        return value

    def sum(self):
        value = self.product()
        while sign := self.take("+", "-"):
            value = BINARY[sign](value, self.product())
        return value

    def product(self):
        value = self.power()
        while sign := self.take("*", "/"):
            value = BINARY[sign](value, self.power())
        return value

    def power(self):
        base = self.unary()
        if self.take("**", "^"):
            return base ** self.power()
        return base

    def unary(self):
        if self.take("-"):
            return -self.unary()
        if self.take("("):
            value = self.sum()
            if not self.take(")"):
                raise self.error("')'")
            return value
        return self.atom()

    def atom(self):
        self.skip_spaces()
        if found := NUMBER.match(self.text, self.position):
            self.position = found.end()
            return float(found.group())
        found = NAME.match(self.text, self.position)
        if not found:
            raise self.error("a number, a name or '('")
        self.position = found.end()
        name = found.group()
        if name in FUNCTIONS:
            return FUNCTIONS[name](self.unary())
        if name not in self.names:
            raise ParseError(f"nobody knows {name!r}")
        return self.names[name]

    def take(self, *wanted):
        self.skip_spaces()
        for text in wanted:
            doubled = text == "*" and self.text.startswith("**", self.position)
            if self.text.startswith(text, self.position) and not doubled:
                self.position += len(text)
                return text
        return None

    def skip_spaces(self):
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1

    def error(self, wanted):
        return ParseError(f"at character {self.position + 1}: {wanted} is missing")


def calculate(text, **names):
    """Value of an expression."""
    return Parser(text, names).parse()

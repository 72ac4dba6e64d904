"""Split source text of a small language into tokens, with their places."""

import re
from dataclasses import dataclass

KEYWORDS = {"let", "if", "else", "while", "return", "true", "false"}
RULES = [
    ("number", r"\d+(?:\.\d+)?"),
    ("name", r"[A-Za-z_]\w*"),
    ("string", r'"(?:[^"\\\n]|\\.)*"'),
    ("operator", r"==|!=|<=|>=|[-+*/%<>=!]"),
    ("bracket", r"[()\[\]{}]"),
    ("separator", r"[,;:]"),
    ("comment", r"#[^\n]*"),
    ("newline", r"\n"),
    ("space", r"[ \t]+"),
    ("error", r"."),
]
PATTERN = re.compile("|".join(f"(?P<{name}>{rule})" for name, rule in RULES))


@dataclass(frozen=True)
class Token:
    """A piece of the text."""

    kind: str
    text: str
    line: int
    column: int


class TokenError(ValueError):
    """A character that begins no token."""


def tokenize(source):
    """Yield the tokens of ``source``; spaces and comments are left out."""
    line, line_start = 1, 0
    for match in PATTERN.finditer(source):
        kind, text = match.lastgroup, match.group()
        column = match.start() - line_start + 1
        if kind == "newline":
            line, line_start = line + 1, match.end()
        elif kind == "error":
            raise TokenError(f"line {line}, column {column}: {text!r} begins no token")
        elif kind == "name" and text in KEYWORDS:
            yield Token("keyword", text, line, column)
        elif kind not in {"space", "comment"}:
            yield Token(kind, text, line, column)


def untokenize(tokens):
    """Write tokens back, each line of the source on a line of its own."""
    lines = {}
    for token in tokens:
        lines.setdefault(token.line, []).append(token.text)
    return "\n".join(" ".join(lines[number]) for number in sorted(lines))

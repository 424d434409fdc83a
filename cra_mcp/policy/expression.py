"""CEL expressions as texts: read into what they refer to, and bounded, before any compiler sees them.

Rule: nothing is evaluated here. What an expression reads is known from its text, so that arguments and context are passed to
it name by name, and a misspelt one is found when the policy is loaded.
Source: specs/policy.md, "Expressions"; the CEL language definition (lexis).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

MAX_CHARACTERS: Final = 2_000
MAX_NESTING: Final = 24
MAX_REFERENCES: Final = 64
MAX_PATTERN: Final = 500

Root = Literal["args", "context", "result"]
Kind = Literal["when", "cost"]

ROOTS: tuple[Root, ...] = ("args", "context", "result")
"""Values of any shape, read member by member."""

FIELDS: dict[str, str] = {
    "action.id": "string",
    "action.risk_tier": "string",
    "action.capabilities": "list",
    "agent.id": "string",
    "principal.roles": "list",
    "principal.subject": "string",
    "session.id": "string",
    "session.tenant": "string",
    "task.risk_tier": "string",
    "now": "timestamp",
}
"""Everything else that can be read, and its type."""

_OWNERS = {name.partition(".")[0] for name in FIELDS}
_MACROS = frozenset({"all", "exists", "exists_one", "existsOne", "map", "filter"})
_NOT_NAMES = frozenset({"true", "false", "null", "in"})
_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<string>[bB]?[rR](?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')
       |[bB]?(?:\"{3}(?:[^\\]|\\.)*?\"{3}|'{3}(?:[^\\]|\\.)*?'{3}|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
    |(?P<number>0[xX][0-9a-fA-F]+[uU]?|[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?[uU]?|\.[0-9]+(?:[eE][-+]?[0-9]+)?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<mark>&&|\|\||[<>=!]=|[-+*/%<>!?:.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)
_PLAIN_STRING = re.compile(r"""(["'])([^"'\\\n]*)\1""")
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
_OPENING = {"(": ")", "[": "]", "{": "}"}


class ExpressionError(ValueError):
    """An expression can't be used.

    Attributes:
        message: why.
        column: 1-based position in the text, in characters, at which it shows.
    """

    def __init__(self, message: str, column: int) -> None:
        super().__init__(message)
        self.message: str = message
        self.column: int = column


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of an expression. ``kind`` is ``string``, ``number``, ``name`` or ``mark``."""

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        """Offset just behind it."""
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Reference:
    """A place that reads ``root`` or a member of it.

    Attributes:
        path: names of members, as far as they are written out; none for the whole.
        ends: offset behind each of them.
        tested: whether it stands in ``has(...)``, which the span then includes.
        arithmetic: whether ``+ - * / %`` stands beside it.
    """

    root: Root
    path: tuple[str, ...]
    start: int
    end: int
    ends: tuple[int, ...]
    tested: bool
    arithmetic: bool


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that has passed everything that can be said of it without knowing types. Equal if its text is.

    Attributes:
        fields: names of ``FIELDS`` that it reads.
        patterns: regular expressions in it, as written (quotes included), and where.
    """

    text: str
    references: tuple[Reference, ...] = field(compare=False)
    fields: frozenset[str] = field(compare=False)
    patterns: tuple[tuple[str, int], ...] = field(compare=False)

    def reads(self, root: Root) -> bool:
        """Whether any part of ``root`` is read."""
        return any(reference.root == root for reference in self.references)


def parse_expression(text: str, kind: Kind = "when") -> Expression:
    """Read an expression.

    Args:
        text: as the policy has it.
        kind: what it is for; only a ``cost`` may read ``result``.

    Raises:
        ExpressionError: it is too long, nested too deeply, or refers to what isn't there.
    """
    if unwritable := _UNWRITABLE.search(text):  # the compiler would read no further, or none of it
        raise ExpressionError(f"{unwritable[0]!r} has no place in an expression", unwritable.start() + 1)
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(f"an expression has at most {MAX_CHARACTERS} characters", 1)
    tokens = list(tokens_of(text))
    if not tokens:
        raise ExpressionError("an expression can't be empty", 1)
    _check_nesting(tokens)
    references, fields, patterns = _contents(tokens)
    for reference in references:
        if reference.root == "result" and kind == "when":
            raise ExpressionError("only a cost can read the result", reference.start + 1)
    if len(references) > MAX_REFERENCES:
        raise ExpressionError(f"more than {MAX_REFERENCES} references", references[MAX_REFERENCES].start + 1)
    return Expression(text, tuple(references), frozenset(fields), tuple(patterns))


def _contents(tokens: Sequence[Token]) -> tuple[list[Reference], set[str], list[tuple[str, int]]]:
    """References, names of ``FIELDS``, and regular expressions, in the order of the text."""
    references: list[Reference] = []
    fields: set[str] = set()
    patterns: list[tuple[str, int]] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        _check_token(tokens, at)
        if token.kind != "name" or _is(tokens, at - 1, "."):
            if token.kind == "name" and token.text == "matches":
                patterns.append(_pattern(tokens, at))
            at += 1
        elif token.text in ROOTS or _tests(tokens, at):
            reference, at = _reference(tokens, at)
            references.append(reference)
        else:
            name, at = _field(tokens, at)
            if name is not None:
                fields.add(name)
    return references, fields, patterns


def tokens_of(text: str) -> Iterator[Token]:
    """The pieces of an expression, without spaces and comments.

    Raises:
        ExpressionError: there is something else.
    """
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ExpressionError(f"{text[at]!r} has no place in an expression", at + 1)
        if found.lastgroup != "space":
            yield Token(found.lastgroup or "", found.group(), at)
        at = found.end()


def _check_nesting(tokens: Sequence[Token]) -> None:
    open_brackets: list[Token] = []
    for token in tokens:
        if token.kind != "mark":
            continue
        if token.text in _OPENING:
            open_brackets.append(token)
            if len(open_brackets) > MAX_NESTING:
                raise ExpressionError(f"nested more than {MAX_NESTING} levels deep", token.start + 1)
        elif token.text in _OPENING.values():
            if not open_brackets or _OPENING[open_brackets[-1].text] != token.text:
                raise ExpressionError(f"{token.text!r} closes nothing", token.start + 1)
            open_brackets.pop()
    if open_brackets:
        raise ExpressionError(f"{open_brackets[-1].text!r} is never closed", open_brackets[-1].start + 1)


def _check_token(tokens: Sequence[Token], at: int) -> None:
    token = tokens[at]
    if token.kind == "name":
        if token.text.startswith("_"):
            raise ExpressionError("names that begin with _ are reserved", token.start + 1)
        if token.text in _MACROS and _is(tokens, at - 1, ".") and _is(tokens, at + 1, "("):
            variable = tokens[at + 2]
            if variable.text in ROOTS or variable.text in _OWNERS:
                raise ExpressionError(
                    f"{variable.text} is taken: give the variable of {token.text}() another name", variable.start + 1
                )
        if _is(tokens, at + 1, "{"):
            raise ExpressionError("messages can't be made here", token.start + 1)
    elif token.text == "." and not _ends_a_value(tokens, at - 1):
        raise ExpressionError("'.' follows nothing that has members", token.start + 1)


def _ends_a_value(tokens: Sequence[Token], at: int) -> bool:
    if at < 0:
        return False
    token = tokens[at]
    return (
        token.text not in _NOT_NAMES
        if token.kind == "name"
        else token.kind == "string" or token.text in {")", "]", "}"}
    )


def _is(tokens: Sequence[Token], at: int, mark: str) -> bool:
    return 0 <= at < len(tokens) and tokens[at].kind == "mark" and tokens[at].text == mark


def _tests(tokens: Sequence[Token], at: int) -> bool:
    """Whether ``has(root.member...)`` begins here."""
    if tokens[at].text != "has" or not _is(tokens, at + 1, "(") or tokens[at + 2].text not in ROOTS:
        return False
    path, _, behind = _path(tokens, at + 3)
    return bool(path) and _is(tokens, behind, ")")


def _reference(tokens: Sequence[Token], at: int) -> tuple[Reference, int]:
    tested = tokens[at].text == "has"
    first = at + 2 if tested else at
    path, ends, behind = _path(tokens, first + 1)
    last = behind + 1 if tested else behind
    neighbours = {tokens[near].text for near in (at - 1, last) if 0 <= near < len(tokens)}
    root: Root = next(root for root in ROOTS if root == tokens[first].text)
    reference = Reference(
        root=root,
        path=path,
        start=tokens[at].start,
        end=tokens[last - 1].end,
        ends=ends,
        tested=tested,
        arithmetic=not neighbours.isdisjoint({"+", "-", "*", "/", "%"}),
    )
    return reference, last


def _path(tokens: Sequence[Token], at: int) -> tuple[tuple[str, ...], tuple[int, ...], int]:
    """Members written out from here on, ends of each, and the index behind them. A method is none."""
    path: list[str] = []
    ends: list[int] = []
    while True:
        if _is(tokens, at, ".") and at + 1 < len(tokens) and tokens[at + 1].kind == "name":
            if _is(tokens, at + 2, "("):
                break
            path.append(tokens[at + 1].text)
            at += 2
        elif _is(tokens, at, "[") and _is(tokens, at + 2, "]") and (plain := plain_string(tokens[at + 1])) is not None:
            path.append(plain)
            at += 3
        else:
            break
        ends.append(tokens[at - 1].end)
    return tuple(path), tuple(ends), at


def plain_string(token: Token) -> str | None:
    """The text a string stands for, where it is written without escapes."""
    found = _PLAIN_STRING.fullmatch(token.text)
    return found[2] if found is not None else None


def _field(tokens: Sequence[Token], at: int) -> tuple[str | None, int]:
    """The name of ``FIELDS`` that stands here, or None for any other name, and the index behind it."""
    token = tokens[at]
    if token.text in FIELDS:
        return token.text, at + 1
    if token.text not in _OWNERS:
        return None, at + 1
    name = f"{token.text}.{tokens[at + 2].text}" if _is(tokens, at + 1, ".") and at + 2 < len(tokens) else token.text
    if name not in FIELDS:
        known = ", ".join(each for each in FIELDS if each.startswith(f"{token.text}."))
        raise ExpressionError(f"there is no {name} here, only {known}", token.start + 1)
    return name, at + 3


def _pattern(tokens: Sequence[Token], at: int) -> tuple[str, int]:
    """The regular expression of ``text.matches('...')``: a literal, so that it can be checked now."""
    literal = tokens[at + 2] if at + 3 < len(tokens) else tokens[at]
    if not (_is(tokens, at + 1, "(") and literal.kind == "string" and _is(tokens, at + 3, ")")):
        raise ExpressionError("matches() takes one string, written out", tokens[at].start + 1)
    if len(literal.text) > MAX_PATTERN:
        raise ExpressionError(f"a regular expression has at most {MAX_PATTERN} characters", literal.start + 1)
    return literal.text, literal.start

"""Expressions over arguments that other languages can say: ``has``, comparisons with what is written out, and what joins them.

Rule: nothing is approximated. Each test is true, false or an error, as in CEL, and all three are told apart; what could be read in
another way (numbers that aren't whole, texts in order, members of members) is refused.
Source: specs/policy.md, "Expressions" and "Export".
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from cra_mcp.policy.expression import Expression, Token, plain_string, tokens_of
from cra_mcp.policy.model import ActionFacts
from cra_mcp.policy.types import UnknownMemberError, type_at

Kind = Literal["string", "int", "bool"]
Comparison = Literal["==", "!=", "<", "<=", ">", ">="]

_KINDS: Final[tuple[Kind, ...]] = ("string", "int", "bool")
_COMPARISONS: Final[tuple[Comparison, ...]] = ("==", "!=", "<", "<=", ">", ">=")
_MIRRORED: Final[dict[Comparison, Comparison]] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_INT64: Final = range(-(2**63), 2**63)

Constant = str | int | bool


@dataclass(frozen=True, slots=True)
class Given:
    """Whether an argument was sent. Never an error."""

    name: str


@dataclass(frozen=True, slots=True)
class Compared:
    """An argument compared with a constant; an error where it wasn't sent or is of another kind."""

    name: str
    kind: Kind
    comparison: Comparison
    constant: Constant


@dataclass(frozen=True, slots=True)
class Among:
    """Whether an argument is one of some constants; an error likewise."""

    name: str
    kind: Kind
    constants: tuple[Constant, ...]


@dataclass(frozen=True, slots=True)
class Negated:
    """An error where ``part`` is one."""

    part: "ArgumentTest"


@dataclass(frozen=True, slots=True)
class Joined:
    """All or any of ``parts``: what one of them settles is settled, whatever the others are."""

    operator: Literal["&&", "||"]
    parts: "tuple[ArgumentTest, ...]"


ArgumentTest = Given | Compared | Among | Negated | Joined


class BeyondError(ValueError):
    """An expression says something that has no exact form elsewhere."""


def argument_test(expression: Expression, actions: Iterable[ActionFacts]) -> ArgumentTest:
    """Read an expression.

    Args:
        expression: a ``when``.
        actions: those that the policy bears on; what is compared is of one kind in all of them.

    Raises:
        BeyondError: it says more.
    """
    return _Reader(list(tokens_of(expression.text)), tuple(actions)).read()


def names_in(test: ArgumentTest) -> Iterator[str]:
    """The arguments that a test reads."""
    if isinstance(test, Joined):
        for part in test.parts:
            yield from names_in(part)
    elif isinstance(test, Negated):
        yield from names_in(test.part)
    else:
        yield test.name


class _Reader:
    """An expression read from left to right; what it has no word for is beyond it."""

    def __init__(self, tokens: Sequence[Token], actions: Sequence[ActionFacts]) -> None:
        self._rest = list(reversed(tokens))
        self._actions = actions

    def read(self) -> ArgumentTest:
        found = self._any()
        if self._rest:
            raise BeyondError
        return found

    def _any(self) -> ArgumentTest:
        parts = [self._all()]
        while self._next_is("||"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Joined("||", tuple(parts))

    def _all(self) -> ArgumentTest:
        parts = [self._one()]
        while self._next_is("&&"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else Joined("&&", tuple(parts))

    def _one(self) -> ArgumentTest:
        if self._comes("!", "(", "has"):
            return self._unary()
        if not self._comes("args"):
            constant = self._constant()
            mirrored = _MIRRORED[self._comparison()]
            return self._compared(self._name(), mirrored, constant)
        name = self._name()
        if self._next_is("in"):
            return self._among(name)
        if self._comes(*_COMPARISONS):
            return self._compared(name, self._comparison(), self._constant())
        return self._compared(name, "==", True)

    def _unary(self) -> ArgumentTest:
        if self._next_is("!"):
            return Negated(self._unary())
        if self._next_is("("):
            found = self._any()
        elif self._next_is("has"):
            self._must("(")
            found = Given(self._name())
        else:
            return self._compared(self._name(), "==", True)
        self._must(")")
        return found

    def _compared(self, name: str, comparison: Comparison, constant: Constant) -> ArgumentTest:
        kind = self._kind(name)
        if _kind_of(constant) != kind or (kind != "int" and comparison not in {"==", "!="}):
            raise BeyondError
        return Compared(name, kind, comparison, constant)

    def _among(self, name: str) -> ArgumentTest:
        kind = self._kind(name)
        self._must("[")
        constants = [self._constant()]
        while self._next_is(","):
            constants.append(self._constant())
        self._must("]")
        if any(_kind_of(each) != kind for each in constants):
            raise BeyondError
        return Among(name, kind, tuple(constants))

    def _kind(self, name: str) -> Kind:
        """The kind of an argument, the same in all actions."""
        try:
            found = {type_at(action.parameters, (name,)).type for action in self._actions}
        except UnknownMemberError:
            raise BeyondError from None
        for kind in _KINDS:
            if found == {kind}:
                return kind
        raise BeyondError

    def _name(self) -> str:
        self._must("args")
        self._must(".")
        token = self._take()
        if token.kind != "name" or self._comes(".", "[", "("):
            raise BeyondError
        return token.text

    def _comparison(self) -> Comparison:
        text = self._take().text
        for comparison in _COMPARISONS:
            if comparison == text:
                return comparison
        raise BeyondError

    def _constant(self) -> Constant:
        sign = -1 if self._next_is("-") else 1
        token = self._take()
        if token.kind == "number" and token.text.isdecimal() and sign * int(token.text) in _INT64:
            return sign * int(token.text)
        text = plain_string(token)
        if sign < 0 or (text is None and token.text not in {"true", "false"}):
            raise BeyondError
        return token.text == "true" if text is None else text

    def _comes(self, *texts: str) -> bool:
        return bool(self._rest) and self._rest[-1].kind != "string" and self._rest[-1].text in texts

    def _next_is(self, text: str) -> bool:
        """Whether ``text`` comes next; it is taken if so."""
        if not self._comes(text):
            return False
        self._rest.pop()
        return True

    def _must(self, text: str) -> None:
        if not self._next_is(text):
            raise BeyondError

    def _take(self) -> Token:
        if not self._rest:
            raise BeyondError
        return self._rest.pop()


def _kind_of(constant: Constant) -> Kind:
    return "bool" if isinstance(constant, bool) else "int" if isinstance(constant, int) else "string"

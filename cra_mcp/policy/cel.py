"""CEL programs: expressions compiled against the types of what they read, and evaluated.

Rule: compiled once, with every type that is known; evaluation gives a value or ``EvaluationError``, nothing else. Only the
members an expression names are handed to it, so its price does not grow with what a caller sends. Regular expressions are
RE2 and loops have a budget of iterations: no expression runs away.
Source: specs/policy.md, "Expressions"; the CEL language definition.

Imports ``cel_expr_python``, Google's CEL, when the first expression is compiled: 0.1 s that only policies with one pay.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple, cast

from cra_mcp.canonical import MAX_INTEGER
from cra_mcp.policy.exact import CONVERTERS, MISSING, Withheld, as_string, texts
from cra_mcp.policy.expression import FIELDS, MAX_REFERENCES, Expression, ExpressionError, Kind, Reference, tokens_of
from cra_mcp.policy.model import ActionFacts, Facts
from cra_mcp.policy.types import Type, Typed

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WHOLE = re.compile(r"0[xX][0-9a-fA-F]+[uU]?|[0-9]+[uU]?")
_INEXACT: frozenset[Type] = frozenset({"number", "dyn", "map", "list_dyn"})
"""What may be a number with a fraction."""
_MESSAGE = re.compile(r"<input>:(-?[0-9]+):(-?[0-9]+): (.*)")
_SLOTS: Mapping[Type, str] = {
    "string": "s", "int": "i", "number": "n", "bool": "b", "dyn": "d", "map": "m", "has": "h",
    "list_string": "ls", "list_int": "li", "list_bool": "lb", "list_dyn": "ld",
}  # fmt: skip
"""By type: how the variables are called that stand for references of it."""


class EvaluationError(Exception):
    """An expression has no value here: something it reads is missing, of another type, or out of range."""


NOT_KNOWN: Final[Mapping[str, object]] = MappingProxyType({})
"""Arguments before they are known: no member of them, nor the whole, is given to an expression."""


class Inputs(NamedTuple):
    """What an expression can read, the action aside."""

    facts: Facts
    now_us: int
    args: Mapping[str, object]
    result: object = None


Read = Callable[[Inputs], object]


class Program:
    """An expression ready to be evaluated for one action."""

    __slots__ = ("_constants", "_evaluate", "_reads")

    def __init__(
        self, evaluate: Callable[..., Any], constants: dict[str, object], reads: tuple[tuple[str, Read], ...]
    ) -> None:
        self._evaluate = evaluate
        self._constants = constants
        self._reads = reads

    def value(self, inputs: Inputs) -> object:
        """The value.

        Raises:
            EvaluationError: there is none.
        """
        data = self._constants.copy()
        for name, read in self._reads:
            found = read(inputs)
            if type(found) is not Withheld:  # what is left out can't be read: an error, where it matters
                data[name] = found
        try:
            value: object = self._evaluate(data=data).value()
        except Exception as error:
            raise EvaluationError from error
        if value is True or value is False or isinstance(value, (float, int)):
            return value
        raise EvaluationError  # an error is a value too, of another type


def compile_program(expression: Expression, kind: Kind, action: ActionFacts, typed: tuple[Typed, ...]) -> Program:
    """Compile an expression.

    Args:
        expression: what to compile.
        kind: a ``when`` must be boolean, a ``cost`` a number.
        action: what it is evaluated for.
        typed: the type of each reference.

    Raises:
        ExpressionError: its types don't fit.
    """
    evaluate = _compiled(expression, kind, typed)
    known: dict[str, object] = {
        "action.id": as_string(action.action_id),
        "action.risk_tier": action.risk_tier.value,
        "action.capabilities": texts(action.capabilities),
    }
    constants = {name: known[name] for name in known if name in expression.fields and type(known[name]) is not Withheld}
    reads = [(name, FIELD_READERS[name]) for name in sorted(expression.fields) if name in FIELD_READERS]
    for name, reference, each in zip(_variables(typed), expression.references, typed, strict=True):
        reads.append((name, reader(reference, each)))
    return Program(evaluate, constants, tuple(reads))


@lru_cache(maxsize=4_096)
def _compiled(expression: Expression, kind: Kind, typed: tuple[Typed, ...]) -> Callable[..., Any]:
    names = list(_variables(typed))
    compiled = _compile(expression, names, typed)
    outcome = compiled.return_type().name()
    if outcome == "DYN" and any(each.type == "number" for each in typed):
        outcome = _outcome_of_numbers(expression, names, typed)
    if outcome not in (("BOOL", "DYN") if kind == "when" else ("INT", "DOUBLE", "DYN")):
        what = "true or false" if kind == "when" else "a number"
        raise ExpressionError(f"must come out as {what}, not {outcome.lower()}", 1)
    for index, (reference, each) in enumerate(zip(expression.references, typed, strict=True)):
        if each.type == "number":
            _check_number(expression, names, typed, index, reference)
    if not _INEXACT.isdisjoint(each.type for each in typed):
        _check_whole_numbers(expression)
    for literal, start in expression.patterns:
        _check_pattern(literal, start)
    return compiled.eval


def _compile(expression: Expression, names: list[str], typed: tuple[Typed, ...]) -> Any:
    text, moved = _rewritten(expression, names, typed)
    try:
        return _environment().compile(text)
    except RuntimeError as error:
        raise _located(str(error), text, moved) from error


def _outcome_of_numbers(expression: Expression, names: list[str], typed: tuple[Typed, ...]) -> str:
    """The type an expression comes to, its numbers taken for doubles; dynamic, where it needs them to be either."""
    doubles = [
        f"_f{at}" if each.type == "number" else name for at, (name, each) in enumerate(zip(names, typed, strict=True))
    ]
    try:
        return _compile(expression, doubles, typed).return_type().name()
    except ExpressionError:
        return "DYN"


def _check_number(
    expression: Expression, names: list[str], typed: tuple[Typed, ...], index: int, reference: Reference
) -> None:
    """A JSON number is a double that compares with whole numbers too, which the type checker alone doesn't know."""

    def compile_as(name: str) -> None:
        _compile(expression, [*names[:index], name, *names[index + 1 :]], typed)

    try:
        compile_as(f"_f{index}")
    except ExpressionError as fault:
        try:
            compile_as(f"_i{index}")
        except ExpressionError:
            raise fault from None
        if reference.arithmetic:
            message = "calculate with 2.0, not 2: this argument is a number with a fraction"
            raise ExpressionError(message, reference.start + 1) from None


def _check_whole_numbers(expression: Expression) -> None:
    """One that no double holds would equal its neighbours where it meets a number with a fraction."""
    for token in tokens_of(expression.text):
        digits = (
            token.text.lower().removesuffix("u") if token.kind == "number" and _WHOLE.fullmatch(token.text) else "0"
        )
        if int(digits, 16 if digits.startswith("0x") else 10) > MAX_INTEGER:
            message = f"whole numbers go up to {MAX_INTEGER} here: this one can't be compared exactly"
            raise ExpressionError(message, token.start + 1)


def _check_pattern(literal: str, start: int) -> None:
    outcome = _environment().compile(f"''.matches({literal})").eval(data={})
    if not isinstance(outcome.value(), bool):
        why = str(outcome.value()).rpartition("regular expression: ")[2][:100]
        raise ExpressionError(f"not a regular expression of RE2: {why}", start + 1)


def _variables(typed: tuple[Typed, ...]) -> list[str]:
    return [f"_{_SLOTS[each.type]}{index}" for index, each in enumerate(typed)]


def _rewritten(expression: Expression, names: list[str], typed: tuple[Typed, ...]) -> tuple[str, list[tuple[int, int]]]:
    """The text with a variable in the place of each reference, and where its pieces came from."""
    pieces: list[str] = []
    moved: list[tuple[int, int]] = []
    length = at = 0
    for name, reference, each in zip(names, expression.references, typed, strict=True):
        kept = expression.text[at : reference.start]
        moved += ((length, at), (length + len(kept), reference.start))
        pieces += (kept, name)
        length += len(kept) + len(name)
        whole = reference.tested or each.steps == len(reference.path)
        at = reference.end if whole else reference.ends[each.steps - 1]
    moved.append((length, at))
    pieces.append(expression.text[at:])
    return "".join(pieces), moved


def _located(message: str, text: str, moved: list[tuple[int, int]]) -> ExpressionError:
    """What the compiler says first, at the place in the text as it was written."""
    found = _MESSAGE.search(message)
    if found is None or int(found[1]) < 1:
        return ExpressionError("nested too deeply" if "recursion" in message else "can't be compiled", 1)
    line, column, why = int(found[1]), int(found[2]), found[3]
    offset = sum(len(each) + 1 for each in text.split("\n")[: line - 1]) + column - 1
    new, old = max((each for each in moved if each[0] <= offset), default=(0, 0))
    return ExpressionError(why.removesuffix(" (in container '')")[:200], old + offset - new + 1)


@cache
def _environment() -> Any:
    """One environment for all: a variable for each type and place."""
    from cel_expr_python import cel  # noqa: PLC0415 - only where there is an expression  # pyright: ignore[reportMissingTypeStubs]

    kinds: Any = cel.Type
    types = {
        "s": kinds.STRING, "i": kinds.INT, "f": kinds.DOUBLE, "n": kinds.DYN, "b": kinds.BOOL, "d": kinds.DYN,
        "h": kinds.BOOL, "m": kinds.Map(kinds.STRING, kinds.DYN),
        "ls": kinds.List(kinds.STRING), "li": kinds.List(kinds.INT), "lb": kinds.List(kinds.BOOL), "ld": kinds.List(kinds.DYN),
    }  # fmt: skip
    variables = {f"_{slot}{index}": kind for slot, kind in types.items() for index in range(MAX_REFERENCES)}
    named = {"string": kinds.STRING, "list": kinds.List(kinds.STRING), "timestamp": kinds.TIMESTAMP}
    variables.update({name: named[kind] for name, kind in FIELDS.items()})
    return cel.NewEnv(variables=variables)


# --- reading -----------------------------------------------------------------------------------------------------------

FIELD_READERS: Mapping[str, Read] = {
    "agent.id": lambda inputs: as_string(inputs.facts.agent_id),
    "principal.roles": lambda inputs: texts(inputs.facts.roles),
    "principal.subject": lambda inputs: as_string(inputs.facts.subject),
    "session.id": lambda inputs: as_string(inputs.facts.session_id),
    "session.tenant": lambda inputs: as_string(inputs.facts.tenant),
    "task.risk_tier": lambda inputs: inputs.facts.task_risk.value,
    "now": lambda inputs: _timestamp(inputs.now_us),
}


def _timestamp(now_us: int) -> object:
    try:
        return _EPOCH + timedelta(microseconds=now_us)
    except OverflowError:
        return MISSING


def reader(reference: Reference, typed: Typed) -> Read:
    """What reads a reference, as the engine is given it."""
    roots: Mapping[str, Read] = {
        "args": lambda inputs: inputs.args,
        "context": lambda inputs: inputs.facts.context,
        "result": lambda inputs: inputs.result,
    }
    root = roots[reference.root]
    if reference.tested:
        *parents, last = reference.path
        return lambda inputs: _has(_follow(root(inputs), parents), last)
    path, convert = reference.path[: typed.steps], CONVERTERS[typed.type]
    if len(path) == 1 and reference.root == "args":  # what most expressions read, on the way of every call
        name = path[0]
        return lambda inputs: convert(inputs.args.get(name, MISSING))
    return lambda inputs: convert(_follow(root(inputs), path))


def _follow(value: object, path: "tuple[str, ...] | list[str]") -> object:
    for name in path:
        if not isinstance(value, dict):
            return MISSING
        value = cast("Mapping[str, object]", value).get(name, MISSING)
    return value


def _has(value: object, name: str) -> object:
    """CEL's ``has``: an error where what should have the member isn't there itself."""
    return name in cast("Mapping[str, object]", value) if isinstance(value, dict) else MISSING

"""CEL read by hand: an evaluator of the operators that policies use, which shares nothing with the engine.

Where it and ``cra_mcp.policy.cel`` disagree about a value, an expression saw another value than was sent. Types and what can be
seen follow specs/policy.md, "Expressions"; operators follow the CEL language definition. Numbers lie on one line: Python
compares whole ones and others exactly.
"""

import math
import re
from functools import lru_cache

TOKEN = re.compile(
    r"""\s*(?:(?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<double>[0-9]+\.[0-9]+(?:e[-+]?[0-9]+)?|[0-9]+e[-+]?[0-9]+)
    |(?P<int>[0-9]+)|(?P<name>[A-Za-z][A-Za-z0-9_]*)|(?P<mark>&&|\|\||[<>=!]=|[-+*/%<>!?:.,()\[\]{}]))""",
    re.VERBOSE | re.DOTALL,
)
ESCAPE = re.compile(r"\\(?:U([0-9a-f]{8})|u([0-9a-f]{4})|(.))", re.DOTALL)
UNSEEN = re.compile("[\0\ud800-\udfff]")
LEVELS = [("||",), ("&&",), ("==", "!=", "<", "<=", ">", ">=", "in"), ("+", "-"), ("*", "/", "%")]
MACROS = ("all", "exists", "exists_one", "map", "filter")
INT64 = range(-(2**63), 2**63)
SAFE = range(-(2**53) + 1, 2**53)


class NoValueError(Exception):
    """There is no value."""


def holds(text, args, types, **roots):
    """What an expression comes to: a value, or the class ``NoValueError``."""
    try:
        return evaluate(read(text), Scope(args, types, roots))
    except NoValueError:
        return NoValueError


# --- reading -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4_096)
def read(text):
    parser = Parser(text)
    tree = parser.ternary()
    assert parser.at == len(parser.tokens), text
    return tree


class Parser:
    def __init__(self, text):
        self.tokens, at = [], 0
        text = text.rstrip()
        while at < len(text):
            found = TOKEN.match(text, at)
            assert found, text[at:]
            self.tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()
        self.at = 0

    def comes(self, *marks):
        return self.at < len(self.tokens) and self.tokens[self.at][0] != "string" and self.tokens[self.at][1] in marks

    def next(self):
        self.at += 1
        return self.tokens[self.at - 1]

    def skip(self, mark):
        assert self.comes(mark), self.tokens[self.at :]
        self.at += 1

    def ternary(self):
        test = self.binary(0)
        if not self.comes("?"):
            return test
        self.skip("?")
        one = self.ternary()
        self.skip(":")
        return "?:", test, one, self.ternary()

    def binary(self, level):
        if level == len(LEVELS):
            return self.unary()
        left = self.binary(level + 1)
        while self.comes(*LEVELS[level]):
            operator = self.next()[1]
            left = operator, left, self.binary(level + 1)
        return left

    def unary(self):
        if self.comes("!", "-"):
            return f"unary {self.next()[1]}", self.unary()
        return self.postfix(self.primary())

    def postfix(self, value):
        while self.comes(".", "["):
            if self.next()[1] == "[":
                value = "index", value, self.ternary()
                self.skip("]")
                continue
            name = self.next()[1]
            value = ("call", name, value, *self.listed("(", ")")) if self.comes("(") else ("select", value, name)
        return value

    def primary(self):
        kind, text = self.next()
        if kind == "string":
            return "constant", ESCAPE.sub(lambda found: unescaped(*found.groups()), text[1:-1])
        if kind in ("int", "double"):
            return "constant", int(text) if kind == "int" else float(text)
        if text == "(":
            inner = self.ternary()
            self.skip(")")
            return inner
        if text in ("[", "{"):
            self.at -= 1
            return ("list", *self.listed("[", "]")) if text == "[" else ("map", *self.listed("{", "}", pairs=True))
        if text in ("true", "false", "null"):
            return "constant", {"true": True, "false": False, "null": None}[text]
        return ("call", text, None, *self.listed("(", ")")) if self.comes("(") else ("name", text)

    def listed(self, opening, closing, *, pairs=False):
        self.skip(opening)
        found = []
        while not self.comes(closing):
            key = self.ternary()
            if pairs:
                self.skip(":")
            found.append((key, self.ternary()) if pairs else key)
            if not self.comes(closing):
                self.skip(",")
        self.skip(closing)
        return found


def unescaped(long, short, plain):
    return chr(int(long or short, 16)) if long or short else {"n": "\n", "t": "\t", "r": "\r"}.get(plain, plain)


# --- what can be seen --------------------------------------------------------------------------------------------------


class Scope:
    def __init__(self, args, types, roots, variables=()):
        self.args, self.types, self.roots, self.variables = args, types, roots, dict(variables)

    def having(self, name, value):
        return Scope(self.args, self.types, self.roots, {**self.variables, name: value})

    def member(self, root, name):
        values = self.args if root == "args" else self.roots[root]
        if name not in values:
            raise NoValueError
        return seen(values[name], self.types.get(name, "dyn") if root == "args" else "dyn")

    def whole(self, name):
        return (
            self.variables[name]
            if name in self.variables
            else visible(self.args if name == "args" else self.roots[name])
        )


def seen(value, kind):
    """As its type is seen; an array by the type of its items."""
    if isinstance(kind, list):
        if not isinstance(value, list | tuple):
            raise NoValueError
        return [seen(item, kind[0]) for item in value]
    fitting = {
        "string": isinstance(value, str),
        "integer": is_finite(value) and value == value // 1 and int(value) in INT64,
        "number": is_number(value),
        "boolean": isinstance(value, bool),
        "object": isinstance(value, dict),
        "dyn": True,
    }
    if not fitting[kind]:
        raise NoValueError
    if kind == "integer":
        return int(value)
    found = visible(value)
    return float(found) if kind == "number" else found


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(value):
    return is_number(value) and (isinstance(value, int) or math.isfinite(value))


def visible(value):
    """The value, whole numbers whole; or none, where some of it can't be seen."""
    if isinstance(value, str):
        if UNSEEN.search(value):
            raise NoValueError
        return value
    if isinstance(value, list | tuple):
        return [visible(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {visible(name): visible(member) for name, member in value.items()}
    if not is_finite(value) or (isinstance(value, int) and value not in SAFE):
        raise NoValueError
    return int(value) if value == int(value) and int(value) in SAFE else value


# --- evaluating --------------------------------------------------------------------------------------------------------


def evaluate(tree, scope):  # noqa: C901, PLR0911 - one line for each kind
    kind, *parts = tree
    if kind == "constant":
        return parts[0]
    if kind == "name":
        return scope.whole(parts[0])
    if kind in ("select", "index"):
        return selected(parts, scope)
    if kind == "call":
        return called(*parts, scope=scope)
    if kind in ("&&", "||"):
        return joined(kind, [attempt(part, scope) for part in parts])
    if kind == "?:":
        return evaluate(parts[1] if boolean(evaluate(parts[0], scope)) else parts[2], scope)
    if kind == "list":
        return [evaluate(part, scope) for part in parts]
    if kind == "map":
        return {evaluate(key, scope): evaluate(value, scope) for key, value in parts}
    values = [evaluate(part, scope) for part in parts]
    if kind == "unary !":
        return not boolean(values[0])
    if kind == "unary -":
        return calculated("-", 0 if type(values[0]) is int else 0.0, values[0])
    return compared(kind, *values)


def attempt(tree, scope):
    try:
        return evaluate(tree, scope)
    except NoValueError:
        return NoValueError


def joined(operator, values):
    """What one side settles is settled, whatever the others are."""
    settling = operator == "||"
    if any(value is settling for value in values):
        return settling
    if not all(isinstance(value, bool) for value in values):
        raise NoValueError
    return not settling


def boolean(value):
    if not isinstance(value, bool):
        raise NoValueError
    return value


def selected(parts, scope):
    whole, key = parts
    key = ("constant", key) if isinstance(key, str) else key
    if whole[0] == "name" and whole[1] not in scope.variables and key[0] == "constant":
        return scope.member(whole[1], key[1])
    value, name = evaluate(whole, scope), evaluate(key, scope)
    if isinstance(value, dict):
        found = [member for its, member in value.items() if equal(its, name)]
    else:
        found = value[name : name + 1] if isinstance(value, list) and type(name) is int and name >= 0 else []
    if not found:
        raise NoValueError
    return found[0]


def called(name, target, *arguments, scope):
    if name == "has":
        return has(arguments[0], scope)
    if name in MACROS:
        return comprehended(name, evaluate(target, scope), *arguments, scope=scope)
    values = [evaluate(each, scope) for each in ((target,) if target else ()) + arguments]
    if name == "size":
        if not isinstance(values[0], str | list | dict):
            raise NoValueError
        return len(values[0])
    text, other = values
    if not (isinstance(text, str) and isinstance(other, str)):
        raise NoValueError
    if name == "matches":
        return re.search(other, text) is not None
    return {"contains": other in text, "startsWith": text.startswith(other), "endsWith": text.endswith(other)}[name]


def has(tree, scope):
    """Asks for a name, whatever goes by it."""
    _, whole, name = tree
    value = untouched(whole, scope)
    if not isinstance(value, dict):
        raise NoValueError
    return name in value


def untouched(tree, scope):
    kind, *parts = tree
    if kind == "name" and parts[0] not in scope.variables:
        return scope.args if parts[0] == "args" else scope.roots[parts[0]]
    if kind != "select":
        return evaluate(tree, scope)
    value = untouched(parts[0], scope)
    if not isinstance(value, dict) or parts[1] not in value:
        raise NoValueError
    return value[parts[1]]


def comprehended(name, values, variable, body, scope):
    if not isinstance(values, list | dict):
        raise NoValueError
    items = list(values)
    results = [attempt(body, scope.having(variable[1], item)) for item in items]
    if name in ("all", "exists"):
        return joined("&&" if name == "all" else "||", [name == "all", *results])
    if any(result is NoValueError or (name != "map" and not isinstance(result, bool)) for result in results):
        raise NoValueError
    chosen = [item for item, result in zip(items, results, strict=True) if result is True]
    return {"exists_one": len(chosen) == 1, "filter": chosen, "map": results}[name]


def compared(operator, one, other):
    if operator in ("==", "!="):
        return equal(one, other) is (operator == "==")
    if operator == "in":
        if not isinstance(other, list | dict):
            raise NoValueError
        return any(equal(one, item) for item in other)
    if operator in ("+", "-", "*", "/", "%"):
        return calculated(operator, one, other)
    alike = any(all(isinstance(each, kind) for each in (one, other)) for kind in (str, bool))
    if not alike and not (is_number(one) and is_number(other)):
        raise NoValueError
    return {"<": one < other, "<=": one <= other, ">": one > other, ">=": one >= other}[operator]


def equal(one, other):
    if is_number(one) and is_number(other):
        return one == other
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    return one == other


def calculated(operator, one, other):
    if operator == "+" and type(one) is type(other) and isinstance(one, str | list):
        return one + other
    if type(one) is not type(other) or type(one) not in (int, float):
        raise NoValueError
    if operator in ("/", "%"):
        return divided(operator, one, other)
    value = one + other if operator == "+" else one - other if operator == "-" else one * other
    if type(value) is int and value not in INT64:
        raise NoValueError
    return value


def divided(operator, one, other):
    if type(one) is float:
        if operator == "%":
            raise NoValueError
        return one / other if other else math.nan if not one or math.isnan(one) else math.copysign(math.inf, one)
    quotient = abs(one) // abs(other) if other else 1 << 63
    if (one < 0) is not (other < 0):
        quotient = -quotient
    if not other or quotient not in INT64:
        raise NoValueError
    return quotient if operator == "/" else one - quotient * other

"""What an expression sees of a value is the value, or nothing: the way into the CEL engine, against an evaluator of our own."""

import json
import math
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra_mcp.policy.calls import program_for
from cra_mcp.policy.cel import EvaluationError, Inputs
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import compile_policies
from cra_mcp.policy.expression import ExpressionError, parse_expression
from cra_mcp.policy.model import ActionFacts, Conditions, Facts, Policy
from tests.policy.evaluator import NoValueError, holds

TYPES = {
    "s": "string", "i": "integer", "n": "number", "b": "boolean", "o": "object", "d": "dyn",
    "ls": ["string"], "li": ["integer"], "lb": ["boolean"], "ld": ["dyn"],
}  # fmt: skip
"""Arguments, by their type; of an array, by that of its items."""


def declared(kind):
    if isinstance(kind, list):
        return {"type": "array", "items": declared(kind[0])}
    return {} if kind == "dyn" else {"type": kind}


ACTION = ActionFacts(
    "chat.send", parameters={"type": "object", "properties": {name: declared(kind) for name, kind in TYPES.items()}}
)
LONG = 1 << 20
SURROGATES = ("\ud800", "\udbff", "\udc00", "\udfff", "\ud83d\ude00")
CHARACTERS = (
    *map(chr, [*range(0xA1), 0x2028, 0x2029, 0x200B, 0x200D, 0x202E, 0xFEFF, 0xFFFD, 0xFFFE, 0xFFFF, 0xD7FF, 0xE000]),
    "é", "e\u0301", "名", "\U00010000", "\U0001f600", "\U0010ffff", *SURROGATES,
)  # fmt: skip
STRINGS = (
    "", "ping", "pong", "Ping", "ping ", "ping\n", "pin", "g", *CHARACTERS,
    *(text for each in CHARACTERS for text in (f"ping{each}", f"{each}ping", f"pi{each}ng; drop table users")),
)  # fmt: skip
LONG_STRINGS = (
    *("ping" + "a" * LONG + end for end in ("", "\0", "users", "\ud800")),
    "\U0001f600" * (LONG // 4) + "ping",
)
EDGES = (0, 1, 5, 2**31, 2**32, 2**53 - 1, 2**53, 2**53 + 1, 2**53 + 2, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**400)
WHOLE = tuple(sign * each for each in EDGES for sign in (1, -1))
FRACTIONS = (
    *(float(each) for each in WHOLE if abs(each) < 10**300), -0.0, 0.5, 5.5, -5.5, 0.1, 5e-324, 2.2e-308, 1e16, 1e21, 1e308,
    1.7976931348623157e308, -1e308, math.nextafter(5.0, 6), math.nextafter(2.0**53, 0), math.inf, -math.inf, math.nan,
)  # fmt: skip
NUMBERS = (*WHOLE, *FRACTIONS)
OTHERS = (True, False, None, [], {}, [[]], [None], {"": 1}, "5", "true", b"ping", ("ping",), {1: 2}, {1, 2}, 1j)
SCALARS = (*NUMBERS, *OTHERS, *STRINGS[:8], "a\0", "\ud800")

OF_TEXTS = (
    "{} == 'ping'", "{} != 'ping'", "'ping' == {}", "{} in ['ping', 'pong']", "{} < 'ping'", "{} >= 'ping'", "{}.contains('ing')",
    "{}.startsWith('ping')", "{}.endsWith('users')", "{}.endsWith('ping')", "{}.matches('^ping')", "{}.matches('[a-z]')",
    "{}.size() == 4", "size({}) > 4", "{} + 'x' == 'pingx'", "({} + 'ab').size() == 6", "{} == ''", "{} == {}",
    "!({} == 'ping') || true", "{} == 'ping' && false", "{} == 'ping' ? true : false",
)  # fmt: skip
OF_NUMBERS = (
    "{} == 5", "{} != 5", "{} < 5", "{} <= 5", "{} > 0", "{} >= 9007199254740991", "{} == 5.0", "{} > 5.5", "{} < 0.0",
    "{} in [1, 5]", "{} in [5.0, 0.5]", "{} == 9007199254740991", "{} < 9007199254740992.0", "{} == {}",
    "{} == 9223372036854775807.0", "{} < 1.0e308",
)  # fmt: skip
OF_ANY = (
    "{} == null", "{} == true", "{} != false", "{} == 'ping'", "{} == 5", "{} > 5", "{} == [1]", "size({}) == 1",
    "{} in [1, 'ping', true]",
    "{} || true", "!{}", "{} + 1 > 2", "{} * 2.0 > 2.0", "{} / 2 == 2", "{} % 3 == 2", "{} == {{'': 1}}",
)  # fmt: skip
OF_LISTS = (
    "'ping' in {}", "5 in {}", "{}[0] == 'ping'", "{}[0] == 5", "{}.exists(x, x == 'ping')", "{}.all(x, x == 5)", "size({}) == 1",
    "{}.exists_one(x, x == 'ping')", "{}.filter(x, x == 'ping').size() == 1", "{}.map(x, x)[0] == 'ping'", "{} == ['ping']",
)  # fmt: skip
OF_OBJECTS = (
    "'ping' in {}", "{}.ping == 1", "{}['ping'] == 1", "{}.exists(k, k == 'ping')", "{}.all(k, k.startsWith('ping'))",
    "size({}) == 1",
    "{} == {{'ping': 1}}", "has({}.ping)", "{}[''] == 1",
)  # fmt: skip


@lru_cache(maxsize=4_096)
def program(text, kind="when"):
    """None if its types don't fit: no policy has it."""
    try:
        return program_for(parse_expression(text, kind), kind, ACTION)
    except ExpressionError:
        return None


def ours(text, args, context):
    try:
        return program(text).value(Inputs(Facts("bot", "s", context=context), 0, args))
    except EvaluationError:
        return NoValueError


def hand(text, args, context):
    value = holds(text, args, TYPES, context=context)
    return value if value is NoValueError or isinstance(value, bool | int | float) else NoValueError


def agree(text, args, context=None):
    if program(text) is None:
        return
    expected, found = hand(text, args, context or {}), ours(text, args, context or {})
    assert (type(found), found) == (type(expected), expected), (text, str(args)[:200], str(context)[:200])


def check(forms, name, value):
    """As an argument of the type of its name, and as a member of everything that has members."""
    for form in forms:
        agree(form.replace("{}", f"args.{name}").replace("{{", "{").replace("}}", "}"), {name: value})
    for number, (place, args, context) in enumerate(
        (
            ("args.d", {"d": value}, {}),
            ("args.d.x", {"d": {"x": value, "y": 1}}, {}),
            ("args.o.x", {"o": {"x": value, "y": 1}}, {}),
            ("args.ld[0]", {"ld": [value, 1]}, {}),
            ("args.d[1][0].x", {"d": [0, [{"x": value}]]}, {}),
            ("context.c", {}, {"c": value}),
            ("context.c.x", {}, {"c": {"x": value}}),
        )
    ):
        for form in forms[number % 3 :: 3]:
            agree(form.replace("{}", place).replace("{{", "{").replace("}}", "}"), args, context)


@pytest.mark.parametrize("part", range(8))
def test_every_character_in_a_string_is_seen_or_the_string_is_not(part):
    for value in STRINGS[part::8]:
        check(OF_TEXTS, "s", value)
        check(OF_LISTS, "ls", [value, "ping"])
        check(OF_OBJECTS, "o", {value: 1, "x": 1})


@pytest.mark.parametrize("value", SCALARS, ids=lambda value: ascii(value)[:20])
def test_every_other_value_is_seen_as_it_is_or_not_at_all(value):
    for name in "inbsd":
        check((*OF_NUMBERS, *OF_ANY), name, value)
    for name in ("ls", "li", "lb", "ld"):
        check(OF_LISTS, name, [value])
        check(OF_LISTS, name, value)
    check(OF_OBJECTS, "o", value)
    check(OF_OBJECTS, "o", {"ping": value})


@pytest.mark.parametrize("value", LONG_STRINGS, ids=lambda value: ascii(value[:1] + value[-1:]))
def test_a_string_of_a_mebibyte_is_seen_to_its_end_or_not_at_all(value):
    for form in OF_TEXTS:
        agree(form.replace("{}", "args.s"), {"s": value})
    for form in OF_TEXTS[::3]:
        agree(form.replace("{}", "args.o.x"), {"o": {"x": value}})
    agree("args.o.exists(k, k.endsWith('ping'))", {"o": {value: 1}})
    agree("args.ls.exists(x, x.endsWith('ping'))", {"ls": ["a", value]})


@pytest.mark.parametrize("value", STRINGS, ids=ascii)
def test_a_string_equals_itself_written_out(value):
    """Raw and with escapes; what can't be given, or written, is equal to nothing."""
    raw = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    escaped = "".join(f"\\U{ord(each):08x}" for each in value)
    for text in (f"args.s == '{raw}'", f"args.s == '{escaped}'", f"size('{escaped}') == size(args.s)"):
        found = NoValueError if program(text) is None else ours(text, {"s": value}, {})
        assert found is (NoValueError if set(value) & {"\0", *map(chr, range(0xD800, 0xE000))} else True), ascii(text)


COSTS = (
    "size(args.s)",
    "args.n",
    "args.i",
    "args.d",
    "args.o.x",
    "args.ld[0]",
    "result.x",
    "result.x.y",
    "size(result.l)",
)


@pytest.mark.parametrize("value", SCALARS, ids=lambda value: ascii(value)[:20])
def test_a_cost_is_worked_out_of_the_very_value(value):
    args = {"s": value, "n": value, "i": value, "d": value, "o": {"x": value}, "ld": [value]}
    for result in ({"x": value, "l": [value]}, {"x": {"y": value}, "l": value}):
        for text in COSTS:
            expected = holds(text, args, TYPES, result=result)
            try:
                found = program(text, "cost").value(Inputs(Facts("bot", "s"), 0, args, result))
            except EvaluationError:
                found = NoValueError
            if not (expected is NoValueError or isinstance(expected, bool | int | float)):
                expected = NoValueError
            assert (type(found), found) == (type(expected), expected), (text, value)


@pytest.mark.parametrize("text", ["", "bot", "bot\0x", "\0", "b\ud800", "b\U0001f600"])
def test_names_of_the_requester_are_seen_as_they_are_or_not_at_all(text):
    facts = Facts(text, text, text, subject=text, roles=frozenset({text, "x"}))
    whole = not set(text) & {"\0", "\ud800"}
    for name in ("agent.id", "session.id", "session.tenant", "principal.subject"):
        for test, value in ((f"{name} == 'bot'", text == "bot"), (f"size({name}) == {len(text)}", True)):
            assert asked(test, facts) == (value if whole else NoValueError)
    assert asked("'bot' in principal.roles", facts) == (text == "bot" if whole else NoValueError)
    assert asked(f"agent.id == 'x' || {str(whole).lower()}", facts) == (True if whole else NoValueError)
    odd = ActionFacts("a.b", capabilities=frozenset({text}))
    assert asked("size(action.capabilities) == 1", Facts("a", "s"), odd) == (True if whole else NoValueError)


def asked(text, facts, action=ACTION):
    try:
        return program_for(parse_expression(text), "when", action).value(Inputs(facts, 0, {}))
    except EvaluationError:
        return NoValueError


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value] if depth % 2 else {"x": value}
    return value


@pytest.mark.parametrize(("depth", "seen"), [(127, True), (128, True), (129, False), (50_000, False), (50_001, False)])
def test_what_is_nested_too_deeply_is_not_seen_and_ends_no_process(depth, seen):
    assert ours("args.d != 1", {"d": nested(depth)}, {}) is (True if seen else NoValueError)


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("true //\0\n&& false", 8),
        ("args.s == 'a\0b'", 13),
        ("args.s.matches('a\0')", 18),
        ("args.o['a\0'] == 1", 10),
        ("args.s == '\ud800'", 12),
        ("args.s == '😀' && args.s == '\udfff'", 29),
        ("args.n == 9007199254740992", 11),
        ("args.n > 5 && args.d in [1, 0x20000000000000, 2]", 29),
        ("args.o.x < 9007199254740992u", 12),
        ("9223372036854775807 in args.ld", 1),
    ],
)
def test_an_expression_that_the_engine_would_read_otherwise_is_refused(text, column):
    with pytest.raises(ExpressionError) as refusal:
        program_for(parse_expression(text), "when", ACTION)
    assert refusal.value.column == column


POLICIES = {
    "deny": [Policy("p", "deny", when=parse_expression("args.s.startsWith('rm')"))],
    "require_approval": [Policy("p", "require_approval", when=parse_expression("args.s != 'ping'"))],
    "allow": [Policy("p", "allow", when=parse_expression("args.s == 'ping'"))],
}


@pytest.mark.parametrize(
    ("kind", "fails"), [("deny", "deny"), ("require_approval", "require_approval"), ("allow", "deny")]
)
@pytest.mark.parametrize("text", ["ping\0; drop table users", "\0", "ping\ud800"])
def test_what_cannot_be_seen_fails_closed_by_the_type_of_the_policy(kind, fails, text):
    policies = compile_policies(POLICIES[kind], [ACTION], "deny" if kind == "allow" else "allow")

    def decide(value):
        return policies.decide(ACTION.action_id, Facts("bot", "s"), Counters(), 0, args={"s": value})

    assert decide("ping").effect == "allow"
    assert (decide(text).effect, decide(text).errors) == (fails, ("p",))


def test_schemas_of_arguments_see_every_string_to_its_end():
    schema = json.dumps({"properties": {"s": {"enum": ["ping"]}}})
    policies = compile_policies([Policy("p", "allow", conditions=Conditions(arguments=schema))], [ACTION], "deny")
    for value in STRINGS:
        decision = policies.decide(ACTION.action_id, Facts("bot", "s"), Counters(), 0, args={"s": value})
        assert decision.effect == ("allow" if value == "ping" else "deny"), ascii(value)


texts = st.one_of(
    st.sampled_from(STRINGS),
    st.text(st.sampled_from("ping\0é\U0001f600\ud83d\ude00 "), max_size=6),
    st.text(max_size=8),
)
numbers = st.one_of(st.sampled_from(NUMBERS), st.floats(), st.integers(), st.integers(-6, 6))
leaves = st.one_of(texts, numbers, st.booleans(), st.none())
json_values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
by_type = {
    "s": texts, "i": numbers, "n": numbers, "b": st.booleans(), "o": st.dictionaries(texts, json_values, max_size=3),
    "d": json_values, "ls": st.lists(texts, max_size=3), "li": st.lists(numbers, max_size=3),
    "lb": st.lists(st.booleans(), max_size=2), "ld": st.lists(json_values, max_size=3),
}  # fmt: skip
arguments = st.fixed_dictionaries(
    {}, optional={name: st.one_of(its, its, its, json_values) for name, its in by_type.items()}
)
atoms = st.one_of(
    *[
        st.tuples(st.sampled_from(forms), st.sampled_from(places)).map(
            lambda drawn: drawn[0].replace("{}", drawn[1]).replace("{{", "{").replace("}}", "}")
        )
        for forms, places in (
            (OF_TEXTS, ("args.s", "args.d", "args.o.x", "context.c", "args.ls[0]", "args.d.ping")),
            (OF_NUMBERS, ("args.i", "args.n", "args.d", "args.o.x", "context.c", "args.li[0]", "args.ld[1]")),
            (OF_ANY, ("args.b", "args.d", "args.o.x", "context.c", "args.lb[0]")),
            (OF_LISTS, ("args.ls", "args.li", "args.lb", "args.ld")),
            (OF_OBJECTS, ("args.o", "args.d", "args.o.x", "context.c", "args", "context")),
        )
    ]
)
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds("({}) {} ({})".format, inner, st.sampled_from(["&&", "||", "==", "!="]), inner),
        st.builds("!({})".format, inner),
        st.builds("({}) ? ({}) : ({})".format, inner, inner, inner),
    ),
    max_leaves=4,
)
contexts = st.dictionaries(st.one_of(st.just("c"), texts), json_values, max_size=2)


@given(expressions, arguments, contexts)
@settings(max_examples=300, deadline=None)
def test_expressions_come_to_what_they_come_to_by_hand(text, args, context):
    agree(text, args, context)


@pytest.mark.long
@given(expressions, arguments, contexts)
@settings(max_examples=40_000, deadline=None)
def test_expressions_come_to_what_they_come_to_by_hand_in_many_more_cases(text, args, context):
    agree(text, args, context)

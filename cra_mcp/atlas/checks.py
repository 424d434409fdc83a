"""What the parts of an atlas say of each other: references, names, schemas, executors.

Rule: what is written but would have no effect, or could be read two ways, is refused, never ignored.
Source: specs/atlas.md, "Problems".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath, PureWindowsPath
from typing import cast

from cra_mcp.atlas.assembly import Item, Parts, is_utf8
from cra_mcp.atlas.case_form import TestFile
from cra_mcp.atlas.dialects import translate
from cra_mcp.atlas.executor_form import CommandExecutorPart, HttpExecutorPart, McpExecutorPart
from cra_mcp.atlas.http_checks import check_http
from cra_mcp.atlas.json_schema import check_schema
from cra_mcp.atlas.keywords import check_keywords
from cra_mcp.atlas.literal_secrets import check_command_secrets, check_http_secrets, check_upstream_secrets
from cra_mcp.atlas.manifest import ActionPart, CapabilityPart, ContextPackPart, UpstreamPart
from cra_mcp.atlas.names import RESERVED_PREFIX, is_reserved, prompt_name, published_name
from cra_mcp.atlas.placeholders import is_scalar, placeholders
from cra_mcp.atlas.policy_form import PolicyPart
from cra_mcp.atlas.publication import check_publication
from cra_mcp.atlas.shape import Place, steps_in
from cra_mcp.authority import split_url
from cra_mcp.policy.calls import program_for, unknown_everywhere
from cra_mcp.policy.compiler import PolicyError, conditions_from_manifest, policy_from_manifest
from cra_mcp.policy.conditions import compile_globs
from cra_mcp.policy.expression import Expression, ExpressionError, Kind
from cra_mcp.policy.model import ActionFacts, Policy

CONTENT_TYPES: Mapping[str, str] = {
    ".md": "text/markdown",
    ".txt": "text/plain",
    ".json": "application/json",
}
DEFAULT_INSTANT = "2026-01-05T12:00:00Z"
_ANY_ACTION = ActionFacts("any.action", parameters={"type": "object", "additionalProperties": True})
_EMPTY: Mapping[str, object] = {}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_URL_ONLY = ("headers",)
_COMMAND_ONLY = ("args", "env", "cwd")


def check(parts: Parts) -> None:
    """Report everything wrong between the parts."""
    is_overlay = parts.head is not None and parts.head.overlay
    if is_overlay:
        _check_overlay(parts)
    _check_published_names(parts)
    for action in parts.actions:
        _check_action(action, parts)
    for capability in parts.capabilities:
        _check_capability(capability, parts)
    for pack in parts.context_packs:
        _check_pack(pack, parts)
    facts = [
        ActionFacts(item.part.action_id, parameters=item.part.parameters_schema, cost=item.part.cost)
        for item in parts.actions
    ]
    for policy in parts.policies:
        if is_overlay:
            check_policy(policy, ())
        else:
            _check_policy(policy, parts, facts)
    for upstream in parts.upstreams.values():
        _check_upstream(upstream)
    tried: set[str] = set()
    for test in parts.tests:
        if test.part.actions and not is_overlay:
            test.place.below("actions").add(
                "invalid_value", "an atlas is tested on its own actions, only an overlay on others"
            )
        check_test(test, tried)


def _check_overlay(parts: Parts) -> None:
    """An overlay has policies and nothing else: it would be without effect."""
    for name in ("actions", "capabilities", "context_packs", "upstreams"):
        if parts.declared[name]:
            Place(parts.package.manifest, "", parts.problems).add("invalid_value", f"an overlay has no {name}")


def _check_published_names(parts: Parts) -> None:
    owners: dict[str, str] = {}
    for item in parts.actions:
        action_id = item.part.action_id
        given = item.part.publish.name if item.part.publish is not None else None
        name = given or published_name(action_id)
        place = item.place.below("publish", "name") if given else item.place.below("action_id")
        if is_reserved(name):
            place.add("reserved_name", f"published names beginning {RESERVED_PREFIX} belong to control tools")
        owner = owners.setdefault(name, action_id)
        if owner != action_id:
            place.add("name_collision", f"would be published as {name}, as {owner} is")
    atlas_id = parts.head.atlas_id if parts.head is not None else ""
    for pack in parts.context_packs:
        name = prompt_name(atlas_id, pack.part.pack_id)
        if is_reserved(name):
            told = f"would be a prompt named {name}; names beginning {RESERVED_PREFIX} belong to the runtime"
            pack.place.below("pack_id").add("reserved_name", told)


def _check_action(item: Item[ActionPart], parts: Parts) -> None:
    action = item.part
    _check_written(item.raw["parameters_schema"], item.place.below("parameters_schema"), object_root=True)
    if action.returns_schema is not None:
        _check_written(item.raw["returns_schema"], item.place.below("returns_schema"))
    check_publication(action, item.place)
    place = item.place.below("executor")
    match action.executor:
        case McpExecutorPart(upstream=upstream):
            if upstream not in parts.declared["upstreams"]:
                place.below("upstream").add("unknown_upstream", f"no upstream is called {upstream}")
        case CommandExecutorPart() as executor:
            _check_command(executor, action.parameters_schema, parts, place)
            check_command_secrets(executor, place)
        case HttpExecutorPart() as executor:
            check_http(executor, action, place)
            check_http_secrets(executor, place)
        case _:
            pass


def _check_written(schema: object, place: Place, *, object_root: bool = False) -> None:
    """Check a schema of any dialect; what is wrong with it is reported where it is written."""
    translation = translate(cast("Mapping[str, object]", schema))
    found = Place(place.file, "", [])
    check_schema(translation.schema, found, object_root=object_root)
    place.problems.extend(replace(each, pointer=place.at + translation.origin(each.pointer)) for each in found.problems)


def _check_command(executor: CommandExecutorPart, schema: Mapping[str, object], parts: Parts, place: Place) -> None:
    properties = schema.get("properties")
    known = cast("dict[str, object]", properties) if isinstance(properties, dict) else {}
    _check_program(executor.argv[0], parts, place.below("argv", 0))
    for index, element in enumerate(executor.argv):
        try:
            names = placeholders(element)
        except ValueError as error:
            place.below("argv", index).add("invalid_placeholder", str(error))
            continue
        for name in names:
            _check_placeholder(name, known, index, place.below("argv", index))
    if parts.package.root is None and executor.cwd is not None and not _is_anchored(executor.cwd):
        place.below("cwd").add("invalid_value", "a one-file atlas has no folder: say an absolute path or ${NAME}")


def _check_program(program: str, parts: Parts, place: Place) -> None:
    """A program is a name to be found on PATH, an absolute path, or a file of the package."""
    if not program:
        place.add("invalid_value", "the program must be named")
    elif "/" in program and not _is_anchored(program) and program.removeprefix("./") not in parts.package.files:
        place.add("file_not_found", "there is no such program in the package")


def _check_placeholder(name: str, known: Mapping[str, object], index: int, place: Place) -> None:
    if index == 0:
        place.add("invalid_placeholder", "no parameter may choose the program")
    elif name not in known:
        place.add("unknown_parameter", f"parameters_schema has no property {name}")
    elif not is_scalar(known[name]):
        message = f"property {name} must itself say a type (or enum) of string, number, integer or boolean"
        place.add("invalid_placeholder", message)


def _is_anchored(path: str) -> bool:
    return path.startswith("${") or PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute()


def _check_capability(item: Item[CapabilityPart], parts: Parts) -> None:
    # Actions it names and nothing declares grant nothing: the linter tells of them.
    for index, pack in enumerate(item.part.context_packs):
        if pack not in parts.declared["context_packs"]:
            item.place.below("context_packs", index).add("unknown_context_pack", f"no context pack is called {pack}")


def _check_policy(item: Item[PolicyPart], parts: Parts, actions: Sequence[ActionFacts]) -> None:
    _check_actions(item.part.actions or (), item.place.below("actions"), parts)
    _check_conditions(item, parts)
    check_policy(item, actions)


def check_policy(item: Item[PolicyPart], actions: Sequence[ActionFacts]) -> None:
    """Report what is wrong with a policy by itself, and with what its expressions take the parameters of ``actions`` for."""
    conditions = item.part.conditions
    if conditions is not None and conditions.arguments is not None:
        place = item.place.below("conditions", "arguments")
        check_schema(conditions.arguments, place)
        check_keywords(conditions.arguments, place)
    try:
        policy = policy_from_manifest(item.raw, 0)
    except PolicyError as error:
        _refuse(item, error)
        return
    matches = compile_globs(policy.actions)
    concerned = [action for action in actions if matches(action.action_id)]
    if policy.when is not None:
        _check_expression(policy.when, "when", concerned, item.place.below("when"))
    if policy.budget is not None and policy.budget.cost is not None:
        _check_expression(policy.budget.cost, "cost", concerned, item.place.below("parameters", "cost"))
    _check_cost(policy, concerned, item.place)


def _check_expression(expression: Expression, kind: Kind, actions: Sequence[ActionFacts], place: Place) -> None:
    unknown = unknown_everywhere(expression, actions)
    if unknown is not None:
        place.add("invalid_expression", f"no action it is about has an argument {unknown[1]}", unknown[0].start + 1)
        return
    try:
        for action in actions or (_ANY_ACTION,):
            program_for(expression, kind, action)
    except ExpressionError as error:
        place.add("invalid_expression", error.message, error.column)


def _check_cost(policy: Policy, actions: Sequence[ActionFacts], place: Place) -> None:
    budget = policy.budget
    if budget is None or budget.cost is not None or budget.unit == "calls" or not actions:
        return
    if all(action.cost is None for action in actions):
        message = "no action it is about declares a cost: give them one, or give the budget a cost expression"
        place.below("parameters").add("invalid_value", message)


def _check_actions(actions: Iterable[str], place: Place, parts: Parts) -> None:
    """A name that is no glob must be right: a slip in a deny policy would otherwise open what it should close."""
    for index, action in enumerate(actions):
        if "*" not in action and action not in parts.declared["actions"]:
            place.below(index).add("unknown_action", f"no action is called {action}")


def _check_conditions(item: Item[PolicyPart] | Item[ContextPackPart], parts: Parts) -> None:
    conditions = item.part.conditions
    for index, capability in enumerate((conditions.capabilities if conditions else None) or ()):
        if capability not in parts.declared["capabilities"]:
            place = item.place.below("conditions", "capabilities", index)
            place.add("unknown_capability", f"no capability is called {capability}")
    try:
        conditions_from_manifest(cast("Mapping[str, object]", item.raw.get("conditions", _EMPTY)))
    except PolicyError as error:
        _refuse(item, error)


def _refuse(item: Item[PolicyPart] | Item[ContextPackPart], refusal: PolicyError) -> None:
    """Locate a refusal of the policy compiler, which begins with a dotted key, of the part or of its conditions."""
    key, _, message = str(refusal).partition(": ")
    steps = key.split(".")
    if steps[0] not in item.raw:
        steps.insert(0, "conditions")
    place = item.place.below(*steps_in(item.raw, steps))
    code = (
        "reserved_name" if key == "policy_id" else "invalid_value" if refusal.column is None else "invalid_expression"
    )
    place.add(code, message, refusal.column)


def _check_pack(item: Item[ContextPackPart], parts: Parts) -> None:
    pack = item.part
    if (pack.files is None) == (pack.content is None):
        item.place.add("invalid_value", "a context pack has either files or content")
    for index, path in enumerate(pack.files or ()):
        _check_file(path, parts, item.place.below("files", index))
    _check_conditions(item, parts)


def _check_file(path: str, parts: Parts, place: Place) -> None:
    if not _is_inside(path):
        place.add("path_escape", "must be a relative path inside the atlas, with / between names and no . or ..")
    elif parts.package.root is None:
        place.add("file_not_found", "a one-file atlas has no files: give the pack content instead")
    elif path not in parts.package.files:
        place.add("file_not_found", "there is no such file in the package")
    elif PurePosixPath(path).suffix not in CONTENT_TYPES:
        place.add("unsupported_file_type", f"must end in one of {', '.join(CONTENT_TYPES)}")
    elif not is_utf8(parts.package.files[path]):
        Place(path, "", parts.problems).add("not_utf8", "a context document must be UTF-8 text")


def _is_inside(path: str) -> bool:
    names = path.split("/")
    return not any(name in ("", ".", "..") for name in names) and "\\" not in path and ":" not in path


def _check_upstream(item: Item[UpstreamPart]) -> None:
    part = item.part
    if (part.command is None) == (part.url is None):
        item.place.add("invalid_value", "an upstream has either a command or a url")
        return
    for name in _COMMAND_ONLY if part.command is None else _URL_ONLY:
        if name in item.raw:
            message = f"{name} goes with {'command' if part.command is None else 'url'} only"
            item.place.below(name).add("invalid_value", message)
    if part.url is not None and "${" not in part.url:
        try:
            split_url(part.url, {"http", "https"})
        except ValueError:
            item.place.below("url").add(
                "invalid_format", "must be http(s)://HOST[:PORT]/PATH, without name or password"
            )
    check_upstream_secrets(part, item.place)


def check_test(item: Item[TestFile], tried: set[str]) -> None:
    """Instants, and the actions that tests bring: each once in all files. ``tried`` are the ids of those before."""
    for index, case in enumerate(item.part.cases):
        try:
            instant_us(case.at)
        except ValueError:
            item.place.below("cases", index, "at").add("invalid_format", "there is no such instant")

    for index, action in enumerate(item.part.actions):
        place = item.place.below("actions", index)
        if action.action_id in tried:
            place.below("action_id").add("duplicate_id", f"action_id {action.action_id!r} is taken already")
        tried.add(action.action_id)
        schema = place if "parameters_schema" not in action.model_fields_set else place.below("parameters_schema")
        raw = cast("Sequence[Mapping[str, object]]", item.raw["actions"])[index]
        written = raw.get("parameters_schema", action.parameters_schema)
        _check_written(written, schema, object_root=True)


def instant_us(text: str | None) -> int:
    """An RFC 3339 instant of a policy test as microseconds since the epoch; a Monday at noon where none is given.

    Raises:
        ValueError: there is no such instant.
    """
    return (datetime.fromisoformat(text or DEFAULT_INSTANT) - _EPOCH) // _MICROSECOND

"""What makes an executor of type http unusable or unsafe, found when its atlas is loaded.

Rule: what is written but would have no effect, or could be read two ways, is refused, never ignored.
Source: specs/atlas.md, "Executor: http"; RFC 9110 (fields that are not the atlas's to set).
"""

from collections.abc import Iterator, Mapping
from typing import cast

from cra_mcp.atlas.executor_form import HttpExecutorPart, SecretPart
from cra_mcp.atlas.http_target import TargetError, TargetTemplate
from cra_mcp.atlas.manifest import ActionPart
from cra_mcp.atlas.origin import OriginError, split_host
from cra_mcp.atlas.placeholders import is_scalar, placeholders
from cra_mcp.atlas.shape import Place

RESERVED_HEADERS = frozenset(
    {
        *("host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade"),
        *("expect", "accept-encoding", "proxy-authorization", "proxy-connection", "idempotency-key"),
    }
)
_CREDENTIALS = frozenset({"authorization", "cookie"})
_WITHOUT_BODY = frozenset({"GET", "HEAD"})


def check_http(executor: HttpExecutorPart, action: ActionPart, place: Place) -> None:
    """Report everything wrong with an executor of type http."""
    properties = action.parameters_schema.get("properties")
    known = cast("dict[str, object]", properties) if isinstance(properties, dict) else {}
    _check_url(executor.url, action.parameters_schema, known, place.below("url"))
    for name, value in executor.query.items():
        _check_text(value, known, place.below("query", name))
    _check_headers(executor, known, place)
    _check_body(executor, known, place.below("body"))
    for name, secret in executor.secrets.items():
        _check_secret(secret, name, place.below("secrets", name))
    if executor.retries and not action.idempotent:
        place.below("retries").add("invalid_value", "only an idempotent action is tried again")
    if executor.allow_hosts and not executor.max_redirects:
        place.below("allow_hosts").add("invalid_value", "no redirect is followed: max_redirects is 0")
    for index, host in enumerate(executor.allow_hosts):
        try:
            split_host(host)
        except OriginError as error:
            place.below("allow_hosts", index).add("invalid_value", str(error))


def _check_url(url: str, schema: Mapping[str, object], known: Mapping[str, object], place: Place) -> None:
    try:
        target = TargetTemplate(url)
    except TargetError as error:
        place.add("invalid_placeholder" if "{" in url else "invalid_format", str(error))
        return
    required = schema.get("required")
    names = cast("list[object]", required) if isinstance(required, list) else []
    given = {name for name in names if isinstance(name, str)}
    given |= {name for name, rules in known.items() if isinstance(rules, dict) and "default" in rules}
    for name in sorted(target.variables):
        if name not in known:
            place.add("unknown_parameter", f"parameters_schema has no property {name}")
        elif name in target.required and name not in given:
            message = f"{name} stands in the path: it must be required or have a default, or be written {{/{name}}}"
            place.add("invalid_placeholder", message)


def _check_headers(executor: HttpExecutorPart, known: Mapping[str, object], place: Place) -> None:
    taken: set[str] = set()
    for name, value in executor.headers.items():
        at = place.below("headers", name)
        if name.lower() in RESERVED_HEADERS:
            at.add("reserved_name", "this header is set by the runtime alone")
        elif name.lower() in _CREDENTIALS:
            at.add(
                "reserved_name", "credentials are named in secrets, never written in an atlas or taken from an agent"
            )
        elif name.lower() in taken:
            at.add("duplicate_id", "the same header stands here twice")
        taken.add(name.lower())
        _check_text(value, known, at, scalar=True)
    for name, secret in executor.secrets.items():
        at = place.below("secrets", name)
        if secret.place == "query":
            if name in executor.query:
                at.add("duplicate_id", "the same field stands in query")
        elif name.lower() in RESERVED_HEADERS:
            at.add("reserved_name", "this header is set by the runtime alone")
        elif name.lower() in taken:
            at.add("duplicate_id", "the same header stands here twice")
        taken.add(name.lower())


def _check_secret(secret: SecretPart, name: str, place: Place) -> None:
    if (secret.env is None) == (secret.keyring is None):
        place.add("invalid_value", f"{name} is either in env or in keyring")


def _check_body(executor: HttpExecutorPart, known: Mapping[str, object], place: Place) -> None:
    body = executor.body
    if body is None:
        return
    if executor.method in _WITHOUT_BODY:
        place.add("invalid_value", f"a {executor.method} request has no body")
    if (body.json_value is None) == (body.form is None):
        place.add("invalid_value", "a body is either json or form")
    for name, value in (body.form or {}).items():
        _check_text(value, known, place.below("form", name))
    for text, at in texts(body.json_value, place.below("json")):
        _check_text(text, known, at)


def texts(value: object, place: Place) -> Iterator[tuple[str, Place]]:
    """The texts in a JSON value, each with its place."""
    if isinstance(value, str):
        yield value, place
    elif isinstance(value, dict):
        for name, member in cast("dict[str, object]", value).items():
            yield from texts(member, place.below(name))
    elif isinstance(value, list):
        for index, item in enumerate(cast("list[object]", value)):
            yield from texts(item, place.below(index))


def _check_text(value: object, known: Mapping[str, object], place: Place, *, scalar: bool = False) -> None:
    if not isinstance(value, str):
        return
    try:
        names = placeholders(value)
    except ValueError as error:
        place.add("invalid_placeholder", str(error))
        return
    inside = scalar or len(names) != 1 or value != f"{{{names[0]}}}"
    for name in names:
        if name not in known:
            place.add("unknown_parameter", f"parameters_schema has no property {name}")
        elif inside and not is_scalar(known[name]):
            message = f"property {name} must itself say a type (or enum) of string, number, integer or boolean"
            place.add("invalid_placeholder", message)

"""Drafts of atlases from OpenAPI documents.

Rule: one action an operation, under policies that let reads through, ask about writes and refuse deletions. What can't be taken
over is a finding, never silence; what is drafted loads.
Source: OpenAPI 3.1.1 and 3.0.4; specs/atlas.md, "Drafted from OpenAPI".
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from pydantic import TypeAdapter, ValidationError

from cra_mcp.atlas.fields import ATLAS_VERSION, SemanticVersion
from cra_mcp.atlas.http_target import TargetError, TargetTemplate
from cra_mcp.atlas.loader import load_atlas_text
from cra_mcp.atlas.names import is_reserved, published_name
from cra_mcp.atlas.openapi_document import Document, Finding, Located, UnconvertibleError
from cra_mcp.atlas.openapi_requests import JSON_TYPE, Request, take_body, take_parameters, take_security
from cra_mcp.atlas.openapi_schemas import SchemaWriter, checked, readable
from cra_mcp.canonical import canonical_bytes
from cra_mcp.errors import AtlasInvalidError
from cra_mcp.policy.conditions import compile_globs

MAX_ACTIONS = 1_000
MAX_DRAFT_BYTES = 8_388_608

_METHODS = {"get": "low", "head": "low", "post": "medium", "put": "medium", "patch": "medium", "delete": "high"}
_IDEMPOTENT = frozenset({"get", "head", "put", "delete"})
_READING = frozenset({"get", "head"})
_OTHER_METHODS = frozenset({"options", "trace", "query"})
_PARTS_OF_A_PATH = frozenset({"parameters", "servers", "summary", "description", "$ref"})
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+|[0-9]+")
_VARIABLE = re.compile(r"\{([^{}]*)\}")
_WIDTH = 500
_MAX_DESCRIPTION = 10_000


@dataclass(slots=True)
class Draft:
    """A drafted atlas.

    Attributes:
        head: the fields of the manifest that are not lists of parts.
        actions: in the order of the document.
        policies: for those actions.
        findings: what was not taken over.
    """

    head: dict[str, object]
    actions: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    policies: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    findings: list[Finding] = field(default_factory=list[Finding])

    def manifest(self) -> dict[str, object]:
        """All of it as one manifest."""
        return {**self.head, "actions": self.actions, "policies": self.policies}


def draft_atlas(document: Document, *, server: str | None = None, include: Sequence[str] = ()) -> Draft:
    """Draft an atlas.

    Args:
        document: as :func:`read_document` gives it.
        server: where requests go, in place of the document's servers.
        include: globs; only actions whose id matches one are drafted. None means all.
    """
    return _Drafter(document, server, include).draft()


class _Drafter:
    def __init__(self, document: Document, server: str | None, include: Sequence[str]) -> None:
        self._document = document
        self._server = server
        self._is_wanted = compile_globs(include or ["*"])
        self._title = _line(document.top.get("info", "title").text()) or "API"
        self._taken: set[str] = set()
        self._size = 0
        self._reads: list[str] = []
        self._writes: list[str] = []
        self._deletions: list[str] = []
        self._head = self._make_head()

    def draft(self) -> Draft:
        draft = Draft(self._head)
        if self._document.top.get("webhooks").members():
            self._document.note("/webhooks", "calls that come in are not actions")
        for method, path, item, operation in self._operations():
            action = self._drafted(method, path, item, operation)
            if action is not None:
                draft.actions.append(action)
        draft.policies = list(self._policies())
        draft.findings = self._document.findings
        return draft

    def _make_head(self) -> dict[str, object]:
        info = self._document.top.get("info")
        version = info.get("version").text()
        if not _is_version(version):
            self._document.note("/info/version", "not a version as SemVer has it: 0.1.0 is used")
            version = "0.1.0"
        words = "-".join(_words(self._title)) or "api"
        return {
            "atlas_version": ATLAS_VERSION,
            "atlas_id": f"openapi.{words if words[0].isalpha() else f'api-{words}'}"[:128].rstrip("-"),
            "version": version,
            "name": self._title,
            "description": _lines(info.get("description").text()) or self._title,
            "default_effect": "deny",
        }

    def _operations(self) -> Iterator[tuple[str, str, Located, Located]]:
        paths = self._document.top.get("paths")
        for path in paths.members():
            if path.startswith("x-"):
                continue
            item = paths.get(path)
            try:
                item = self._document.resolved(item)
            except UnconvertibleError as error:
                self._document.note(error.at, str(error), left_out=path[:200])
                continue
            for method in item.members():
                if method in _METHODS:
                    yield method, path, item, item.get(method)
                elif method in _OTHER_METHODS:
                    self._document.note(
                        item.get(method).at, f"{method} is not a method of actions", f"{method} {path}"[:200]
                    )
                elif method not in _PARTS_OF_A_PATH and not method.startswith("x-"):
                    self._document.note(item.get(method).at, "not a part of a path that is known")

    def _drafted(self, method: str, path: str, item: Located, operation: Located) -> dict[str, object] | None:
        name = f"{method.upper()} {path}"[:200]
        action_id = self._action_id(method, path, operation)
        if not self._is_wanted(action_id):
            return None
        kept = len(self._document.findings)
        try:
            if not path.startswith("/"):
                raise UnconvertibleError(operation.at, "a path begins with /, or it would become part of the host")
            if not isinstance(operation.value, dict):
                raise UnconvertibleError(operation.at, "an operation must be an object")
            action = self._action(action_id, method, path, item, operation)
            self._check(action, operation)
            self._size += len(canonical_bytes(action))
            if len(self._taken) >= MAX_ACTIONS or self._size > MAX_DRAFT_BYTES:
                raise UnconvertibleError(operation.at, "the atlas would be too large: choose with --include")
        except UnconvertibleError as error:
            del self._document.findings[kept:]
            self._document.note(error.at, str(error), left_out=name)
            return None
        self._taken.add(published_name(action_id))
        group = self._reads if method in _READING else self._deletions if method == "delete" else self._writes
        group.append(action_id)
        return action

    def _check(self, action: dict[str, object], operation: Located) -> None:
        """What the loader would refuse is found here, one action at a time."""
        try:
            load_atlas_text(json.dumps({**self._head, "actions": [action]}))
        except AtlasInvalidError as error:
            problem = error.problems[0]
            raise UnconvertibleError(
                operation.at, f"the action would not load: {problem.pointer}: {problem.message}"
            ) from error

    def _action(self, action_id: str, method: str, path: str, item: Located, operation: Located) -> dict[str, object]:
        request = Request(self._document, SchemaWriter(self._document, "request"))
        take_parameters(request, item, operation)
        if method not in _READING:
            take_body(request, operation)
        elif operation.get("requestBody").value is not None:
            self._document.note(operation.get("requestBody").at, f"a {method.upper()} request has no body")
        take_security(request, operation, self._title)
        for name in _VARIABLE.findall(path):
            if name not in request.path:
                raise UnconvertibleError(operation.at, f"the path has {{{name[:60]}}}, and no parameter of that name")
        executor = request.executor(method, self._server_of(item, operation), path)
        try:
            TargetTemplate(str(executor["url"]))
        except TargetError as error:
            raise UnconvertibleError(operation.at, f"the path can't be used: {error}") from error
        if operation.get("callbacks").members():
            self._document.note(operation.get("callbacks").at, "calls that come in are not actions")
        action: dict[str, object] = {
            "action_id": action_id,
            "name": _line(operation.get("summary").text() or operation.get("operationId").text())
            or f"{method.upper()} {_line(path)}"[:_WIDTH],
            "description": _lines(operation.get("description").text() or operation.get("summary").text())
            or f"{method.upper()} {_line(path)}",
            "parameters_schema": request.schema(operation.at),
            "risk_tier": _METHODS[method],
            "idempotent": method in _IDEMPOTENT,
            "executor": executor,
        }
        returns = self._returns(method, operation)
        if returns is not None:
            action["returns_schema"] = returns
        return action

    def _server_of(self, item: Located, operation: Located) -> str:
        if self._server is not None:
            return self._server.rstrip("/")
        for part in (operation, item, self._document.top):
            servers = part.get("servers").items()
            if servers:
                return self._filled(servers[0])
        raise UnconvertibleError(
            "/servers" if "servers" in self._document.root else "", "no server is named: say --server URL"
        )

    def _filled(self, server: Located) -> str:
        """The URL of a server with the defaults of its variables."""

        def default(found: re.Match[str]) -> str:
            value = server.get("variables", found[1], "default").value
            if not isinstance(value, str):
                raise UnconvertibleError(server.at, "a variable of the server has no default: say --server URL")
            return value

        url = _VARIABLE.sub(default, server.get("url").text()).rstrip("/")
        if not url.startswith(("https://", "http://")) or "?" in url or "#" in url or "{" in url:
            raise UnconvertibleError(server.at, "not a full http or https URL: say --server URL")
        return url

    def _returns(self, method: str, operation: Located) -> dict[str, object] | None:
        """The schema of a successful result, where there is one for every success."""
        if method == "head":
            return None
        responses = operation.get("responses")
        statuses = [status for status in responses.members() if re.fullmatch(r"2(?:[0-9]{2}|XX)", status)]
        if len(statuses) != 1:
            return None
        try:
            content = self._document.resolved(responses.get(statuses[0])).get("content")
            kinds = list(content.members())
            if len(kinds) != 1 or not JSON_TYPE.fullmatch(kinds[0]) or content.get(kinds[0], "schema").value is None:
                return None
            part = content.get(kinds[0], "schema")
            writer = SchemaWriter(self._document, "response")
            written = writer.write(part)
            schema = cast("dict[str, object]", written) if isinstance(written, dict) else {}
            definitions = writer.definitions()
            return checked({**schema, "$defs": definitions} if definitions else schema, self._document, part.at)
        except UnconvertibleError as error:
            self._document.note(error.at, f"no returns_schema: {error}")
            return None

    def _action_id(self, method: str, path: str, operation: Located) -> str:
        tags = operation.get("tags").items()
        group = "_".join(_words(tags[0].text() if tags else self._title))[:40].strip("_")
        own = "_".join(_words(operation.get("operationId").text()) or [method, *_words(path)])[:80].strip("_")
        group = group if group and group[0].isalpha() else f"api_{group}".rstrip("_")
        action_id = f"{group}.{own}"
        if is_reserved(published_name(action_id)):
            action_id = f"api_{action_id}"
        chosen, number = action_id, 1
        while published_name(chosen) in self._taken:
            number += 1
            chosen = f"{action_id}_{number}"
        return chosen

    def _policies(self) -> Iterator[dict[str, object]]:
        for policy_id, kind, actions, reason in (
            ("reads", "allow", self._reads, "Reading changes nothing."),
            ("writes", "require_approval", self._writes, "A person looks at each change."),
            ("deletions", "deny", self._deletions, "What is deleted is gone."),
        ):
            if actions:
                yield {"policy_id": policy_id, "type": kind, "actions": actions, "reason": reason}


def _is_version(text: str) -> bool:
    try:
        TypeAdapter[str](SemanticVersion).validate_python(text)
    except ValidationError:
        return False
    return True


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _line(text: str) -> str:
    return " ".join(readable(text).split())[:_WIDTH].strip()


def _lines(text: str) -> str:
    return readable(text).strip()[:_MAX_DESCRIPTION].strip()

"""Secrets written into an atlas where they don't belong: in what starts an upstream or is sent to a service.

Rule: a secret is named, never written: what an atlas holds is kept beside every trace, shown and passed around. What has the form
of a key is refused anywhere; what merely stands under the name of a secret, or looks drawn at random, can be declared ``public``.
Source: specs/atlas.md, "Secrets".
"""

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Final
from urllib.parse import parse_qsl, unquote

from cra_mcp import secret_forms
from cra_mcp.atlas.executor_form import CommandExecutorPart, HttpExecutorPart
from cra_mcp.atlas.http_checks import texts
from cra_mcp.atlas.manifest import UpstreamPart
from cra_mcp.atlas.shape import Place

CODE: Final = "literal_secret"
_REFERENCE = re.compile(r"\$\{(?:env:)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}]*)?\}")
_PARAMETER = re.compile(r"\{[^{}]*\}")
_FORMS = (secret_forms.PREFIXED, secret_forms.PEM_BEGIN, secret_forms.BEARER, secret_forms.URL_PASSWORD)
_ASSIGNMENT = re.compile(r"(?:--?)?([A-Za-z_][A-Za-z0-9_.-]{0,127})(?:=|:[ \t]*)(?s:(.+))")
_FLAG = re.compile(r"--?([A-Za-z][A-Za-z0-9_-]{0,127})")
_SCHEME = re.compile(r"(?i:bearer|basic|token|digest|apikey|negotiate)[ \t]+")
_PATH = re.compile(r"(?:~|\.{1,2})?[/\\]|[A-Za-z]:[/\\]")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^@]*")
_LAST_WORDS = frozenset(("pass", "pat", "auth", "authentication", "jwt", "apitoken", "sessionid"))
_ENDINGS = ("password", "passwd", "passphrase", "secret", "token", "apikey")
_PLAIN = frozenset(
    (
        *(
            "true",
            "false",
            "yes",
            "no",
            "on",
            "off",
            "0",
            "1",
            "none",
            "null",
            "default",
            "auto",
            "enabled",
            "disabled",
        ),
        *(
            "required",
            "optional",
            "always",
            "never",
            "basic",
            "bearer",
            "oauth",
            "oauth2",
            "oidc",
            "env",
            "keyring",
            "keychain",
        ),
        *("prompt", "stdin", "file", "anonymous", "plain", "hex", "json", "jwt", "header", "cookie", "query"),
    )
)
_NO_SECRETS: Final[Collection[str]] = ()


def check_upstream_secrets(part: UpstreamPart, place: Place) -> None:
    """Report secrets in the definition of an upstream."""
    way_out = "write ${NAME} for it and set NAME in the server's environment"
    for field, values in (("env", part.env), ("headers", part.headers)):
        for name, value in values.items():
            at = place.below(field, name)
            _report(at, _in_named(name, value, public=part.public), way_out, name=name)
    for at, why in _in_arguments(part.args, place.below("args")):
        _report(at, why, way_out)
    for field in ("command", "cwd"):
        _report(place.below(field), _by_form(getattr(part, field) or ""), way_out)
    for why, name in _in_url(part.url or "", part.public):
        _report(place.below("url"), why, way_out, name=name)
    _check_public(part.public, {*part.env, *part.headers, *_query(part.url or "")}, place)


def check_command_secrets(executor: CommandExecutorPart, place: Place) -> None:
    """Report secrets in the command line of an executor."""
    for at, why in _in_arguments(executor.argv, place.below("argv")):
        _report(at, why, "have the program read it from a variable, and name that in env")


def check_http_secrets(executor: HttpExecutorPart, place: Place) -> None:
    """Report secrets in a request."""
    way_out = 'name it in secrets: {"env": "NAME"} or {"keyring": "service/name"}'
    for field, values in (("headers", executor.headers), ("query", executor.query)):
        for name, value in values.items():
            if isinstance(value, str):
                at, plain = place.below(field, name), _PARAMETER.sub("", value)
                why = _by_form(value) if plain != value else _in_named(name, value, public=executor.public)
                _report(at, why, way_out, name=name)
    for why, name in _in_url(executor.url, executor.public):
        _report(place.below("url"), why, way_out, name=name)
    _check_public(executor.public, {*executor.headers, *executor.query, *_query(executor.url)}, place)
    body = executor.body
    if body is not None:
        parts = {"json": body.json_value, "form": body.form}
        for text, at in (found for name, part in parts.items() for found in texts(part, place.below("body", name))):
            _report(at, _by_form(text), "have a Python function or an upstream send it, which reads it itself")


def _check_public(names: Iterable[str], known: Collection[str], place: Place) -> None:
    for index, name in enumerate(names):
        if name not in known:
            place.below("public", index).add("invalid_value", f"there is no variable, header or query field {name}")


def _report(place: Place, why: str | None, way_out: str, *, name: str | None = None) -> None:
    """``name``: of what can be declared public, if it is not certain to be a secret."""
    if why is None:
        return
    declared = (
        f'; if it is no secret, say "public": ["{name}"]' if name is not None and why in (_NAMED, _RANDOM) else ""
    )
    place.add(CODE, f"{why}, and an atlas is kept and shown: {way_out}{declared}")


_CERTAIN = "has the form of a secret"
_NAMED = "is a value under the name of a secret"
_RANDOM = "looks like a secret"
_DEFAULT = "has a default for a secret"


def _in_named(name: str, value: str, *, public: Collection[str]) -> str | None:
    """What is wrong with a value that has a name."""
    wrong = _by_form(value) or _in_defaults(value)
    if wrong is not None or name in public:
        return wrong
    literals, refers = _literals(value)
    # A reference and what is written around it, a scheme or the name of a cookie, are a secret that is named.
    if announces_secret(name) and not refers and any(map(_may_be_secret, literals)):
        return _NAMED
    return _RANDOM if any(map(_is_token, literals)) else None


def _in_arguments(arguments: Iterable[str], place: Place) -> Iterator[tuple[Place, str]]:
    """What is wrong with the arguments of a command line: ``--token X``, ``--token=X``, ``TOKEN=X``, ``Authorization: X``."""
    awaited = False
    for index, argument in enumerate(arguments):
        why = _by_form(argument) or _in_defaults(argument)
        flag, assignment = _FLAG.fullmatch(argument), _ASSIGNMENT.fullmatch(argument)
        if why is None and awaited and flag is None:
            why = _in_named("token", argument, public=_NO_SECRETS)
        if why is None and assignment is not None and announces_secret(assignment[1]):
            why = _in_named(assignment[1], assignment[2], public=_NO_SECRETS)
        awaited = flag is not None and not flag[1].startswith("no-") and secret_forms.secret_name(flag[1]) is not None
        if why is not None:
            yield place.below(index), why


def _in_url(url: str, public: Collection[str]) -> Iterator[tuple[str, str | None]]:
    wrong = _by_form(url) or _in_defaults(url)
    if wrong is not None:
        yield wrong, None
        return
    authority = url.partition("://")[2].partition("/")[0]
    user = authority.rpartition("@")[0]
    if user and any(each.strip(":") for each in _literals(user)[0]):
        yield "holds a user name or password", None
    for name, value in _query(url).items():
        why = _in_named(name, _PARAMETER.sub("", value) if "${" not in value else value, public=public)
        if why is not None:
            yield why, name


def _query(url: str) -> dict[str, str]:
    return dict(parse_qsl(url.partition("?")[2].partition("#")[0], keep_blank_values=True))


def _by_form(text: str) -> str | None:
    """``_CERTAIN`` if part of a text has the form of a secret, whatever it stands under."""
    for literal in _literals(text)[0]:
        for each in (literal, unquote(literal)):
            if any(_is_found(form, each) for form in _FORMS):
                return _CERTAIN
    return None


def _in_defaults(text: str) -> str | None:
    """What is wrong with what stands in for a variable that is not set."""
    for match in _REFERENCE.finditer(text):
        if match["default"] and announces_secret(match["name"]) and _may_be_secret(match["default"].removeprefix(":-")):
            return _DEFAULT
    return None


def _is_found(form: re.Pattern[str], text: str) -> bool:
    match = form.search(text)
    if match is None:
        return False
    return form is not secret_forms.BEARER or any(map(str.isdigit, match["value"]))


def _literals(text: str) -> tuple[list[str], bool]:
    """What is written in a text: first what is left without references, then their defaults; and whether one has no default."""
    defaults = [match["default"] for match in _REFERENCE.finditer(text)]
    rest = _REFERENCE.sub("", text)
    return [rest, *(each.removeprefix(":-") for each in defaults if each)], None in defaults


def announces_secret(name: str) -> bool:
    """Whether the name of a variable, header, field or flag says that its value is a secret."""
    if secret_forms.secret_name(name) is not None:
        return True
    last = re.split(r"[^A-Za-z0-9]+", name)[-1]
    written_as_one = (last.isupper() or last.islower()) and last.lower() not in _ENDINGS
    return last.lower() in _LAST_WORDS or (written_as_one and last.lower().endswith(_ENDINGS))


def _may_be_secret(value: str) -> bool:
    """Whether a value can be a secret at all: a switch, a path and a plain address are none."""
    plain = _SCHEME.sub("", value, count=1).strip()
    if not plain or plain.lower() in _PLAIN:
        return False
    return not (_PATH.match(plain) or _URL.fullmatch(plain))


def _is_token(value: str) -> bool:
    """Whether all of a value looks drawn at random; paths have hashes in them."""
    match = secret_forms.ENTROPIC.fullmatch(value)
    return match is not None and not _PATH.match(value) and secret_forms.is_random(value)

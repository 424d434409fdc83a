"""Secrets of requests: fetched when they are needed, and hidden wherever they come back.

Rule: an atlas names secrets and never holds them. A value is in memory for the length of one call, in the request and in
the mask of its answer, and nowhere else: errors name the setting, never what is in it.
Source: specs/atlas.md, "Executor: http".
"""

import base64
import html
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import quote, quote_plus

import anyio.to_thread

from cra_mcp.atlas.model import SecretReference
from cra_mcp.errors import ExecutionError

REDACTED = "[redacted]"

Lookup = Callable[[str, str], Awaitable[str | None]]
"""``(service, name)`` to what a keyring holds there."""

_SENDABLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret as it is sent. ``plain`` is what was kept."""

    reference: SecretReference
    plain: str = field(repr=False)
    sent: str = field(repr=False)


async def fetch_secrets(
    references: Iterable[SecretReference], environ: Mapping[str, str], lookup: Lookup
) -> tuple[Secret, ...]:
    """Every secret an action needs.

    Raises:
        ExecutionError: ``missing_setting``: one is not there, is empty, or can't be sent.
    """
    return tuple([await _fetch(reference, environ, lookup) for reference in references])


async def _fetch(reference: SecretReference, environ: Mapping[str, str], lookup: Lookup) -> Secret:
    if reference.env is not None:
        what = f"the environment variable {reference.env}"
        hint = f"set {reference.env} in the environment this server is started with"
        plain = environ.get(reference.env)
    else:
        service, _, name = (reference.keyring or "").partition("/")
        what = f"the keyring entry {service}/{name}"
        hint = f"store it: keyring set {service} {name}"
        plain = await lookup(service, name)
    if not plain:
        raise ExecutionError("missing_setting", f"{what} is not set", hint=hint)
    sent = base64.b64encode(_bytes(plain)).decode() if reference.encode else plain
    if not _SENDABLE.fullmatch(sent):
        raise ExecutionError(
            "missing_setting",
            f"{what} holds what can't be sent: other than printable ASCII, or a space or line break at an end",
            hint=hint,
        )
    return Secret(reference, plain, reference.prefix + sent)


async def keyring_lookup(service: str, name: str) -> str | None:
    """What the keyring of the operating system holds.

    Raises:
        ExecutionError: ``missing_setting``: there is no keyring that can be used.
    """
    try:
        import keyring  # noqa: PLC0415 - an extra; 0.2 s
    except ImportError:
        raise ExecutionError(
            "missing_setting",
            "a secret is kept in a keyring, which needs the package keyring",
            hint="pip install 'cra-mcp[keyring]'",
        ) from None
    try:
        return await anyio.to_thread.run_sync(keyring.get_password, service, name, abandon_on_cancel=True)
    except Exception as error:  # back ends of keyrings raise anything
        raise ExecutionError(
            "missing_setting",
            f"the keyring could not be read ({type(error).__name__})",
            hint="unlock it, or keep the secret in an environment variable",
        ) from error


class Mask:
    """Hides secrets in what comes back, in the forms in which they are likely to be echoed.

    Those are: as kept, as sent, in Base64, percent-encoded, and escaped as in JSON or HTML.
    """

    def __init__(self, secrets: Iterable[Secret]) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        self.longest = len(_bytes(longest_first[0])) if longest_first else 0
        self._text = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._bytes = re.compile(b"|".join(re.escape(_bytes(form)) for form in longest_first)) if self._text else None

    def text(self, text: str) -> str:
        """A text without them."""
        return text if self._text is None else self._text.sub(REDACTED, text)

    def data(self, data: bytes) -> bytes:
        """Bytes without them, as many as before."""
        return data if self._bytes is None else self._bytes.sub(lambda found: b"*" * len(found[0]), data)

    def value(self, value: object) -> object:
        """A JSON value without them: in texts, in names of members, and in numbers written out."""
        return value if self._text is None else self._value(value)

    def _value(self, value: object) -> object:
        match value:
            case str():
                return self.text(value)
            case dict():
                members = cast("dict[str, object]", value).items()
                return {self.text(name): self._value(member) for name, member in members}
            case list():
                return [self._value(item) for item in cast("list[object]", value)]
            case int() | float() if not isinstance(value, bool):
                return REDACTED if self.text(str(value)) != str(value) else value
            case _:
                return value

    def finds_in(self, text: str) -> bool:
        """Whether a text holds one."""
        return self._text is not None and self._text.search(text) is not None


def _forms(secret: Secret) -> Iterator[str]:
    bare = secret.sent.removeprefix(secret.reference.prefix)
    for text in {secret.plain, bare}:
        yield text
        yield base64.b64encode(_bytes(text)).decode().rstrip("=")
        yield base64.urlsafe_b64encode(_bytes(text)).decode().rstrip("=")
        encoded = quote(text, safe="", errors="surrogateescape")
        yield from (encoded, re.sub("%..", lambda found: found[0].lower(), encoded))
        yield quote(text, errors="surrogateescape")
        yield quote_plus(text, errors="surrogateescape")
        yield json.dumps(text)[1:-1]
        yield json.dumps(text)[1:-1].replace("/", "\\/")
        yield html.escape(text)


def _bytes(text: str) -> bytes:
    """The bytes a variable of the environment has, whatever they are."""
    return text.encode("utf-8", "surrogateescape")

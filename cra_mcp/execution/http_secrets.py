"""Secrets of requests: fetched when they are needed, and hidden wherever they come back.

Rule: an atlas names secrets and never holds them. A value is in memory for the length of one call, in the request and in
the mask of its answer, and nowhere else: errors name the setting, never what is in it.
Source: specs/atlas.md, "Executor: http".
"""

import base64
import html
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

import anyio.to_thread

from cra_mcp.atlas.model import SecretReference
from cra_mcp.errors import ExecutionError

REDACTED = "[redacted]"

Lookup = Callable[[str, str], Awaitable[str | None]]
"""``(service, name)`` to what a keyring holds there."""

_LONGEST_ESCAPE = 12
_SHORTEST_PART = 8
"""Of a Base64 text; shorter ones would be found everywhere."""

_SENDABLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret as it is sent. ``plain`` is what was kept."""

    reference: SecretReference
    plain: str = field(repr=False)
    sent: str = field(repr=False)

    @property
    def bare(self) -> str:
        """As it is sent, without its prefix."""
        return self.sent.removeprefix(self.reference.prefix)


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

    Those are: as kept, as sent, each character of either as it is or escaped as in a URL, JSON or HTML, and in Base64,
    alone or inside something longer.
    """

    def __init__(self, secrets: Iterable[Secret]) -> None:
        texts = {text for secret in secrets for text in (secret.plain, secret.bare)}
        forms = sorted((form for text in texts for form in _forms(text)), key=lambda form: (-len(form), form))
        pattern = "|".join(forms)
        self.longest = max((len(_bytes(text)) for text in texts), default=0) * _LONGEST_ESCAPE
        self._text = re.compile(pattern) if forms else None
        self._bytes = re.compile(_bytes(pattern)) if forms else None

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


def _forms(text: str) -> Iterator[str]:
    """Patterns of what a secret may look like when it comes back."""
    yield "".join(map(_escaped, text))
    data = _bytes(text)
    for offset in range(3):
        # What stands before it in the same Base64 text shifts it by bits; what is cut off here depends on its neighbours.
        encoded = base64.b64encode(b"\0" * offset + data).decode().rstrip("=")
        whole = (len(data) + offset) * 8 // 6
        kept = encoded[-(-offset * 8 // 6) : whole]
        if len(kept) >= _SHORTEST_PART or (offset == 0 and kept):
            yield re.escape(kept).replace(r"\+", "[+-]").replace("/", "[/_]")


def _escaped(character: str) -> str:
    """The pattern of one character, as it is or escaped."""
    code = ord(character)
    encoded = "".join(f"%{byte:02x}" for byte in _bytes(character))
    forms = [
        re.escape(character),
        f"(?i:{encoded})",
        rf"(?i:\\u{code:04x})",
        f"(?i:&#(?:0{{0,5}}{code}|x0{{0,5}}{code:x});)",
    ]
    if character == " ":
        forms.append("[+]")
    if character in '"/\\':
        forms.append(re.escape(f"\\{character}"))
    if html.escape(character) != character:
        forms.append(re.escape(html.escape(character)))
    return f"(?:{'|'.join(forms)})"


def _bytes(text: str) -> bytes:
    """The bytes a variable of the environment has, whatever they are."""
    return text.encode("utf-8", "surrogateescape")

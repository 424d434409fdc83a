"""Published names and URIs: what an action is called towards hosts, and what it may not be called.

Rule: a name depends on its action id alone, so it never changes when other atlases come or go. Two ids may share a
name; the loader and the registry refuse that.
Source: specs/atlas.md, "Published names".
"""

import re
import unicodedata
from urllib.parse import unquote

from cra_mcp.canonical import sha256_hex

MAX_LENGTH = 40
"""Longest name that stays under every known host's limit with the prefix the host adds."""

RESERVED_PREFIX = "cra_"
"""Names of the control tools begin so; no action's may."""

OWN_NAME = "cra"
"""The scheme of the runtime's own resources, and the authority of those that need another scheme (``ui://cra/...``)."""

_HASH_DIGITS = 8
_UI = "ui"
_MAX_DECODED = 8  # times that percent-encoding may be encoded again


def published_name(action_id: str) -> str:
    """The host-safe name of an action: ``^[a-zA-Z][a-zA-Z0-9_-]{0,39}$``.

    Dots and slashes become ``_``. A longer name is cut and ends in ``_`` and 8 hex digits of the id's SHA-256.
    """
    name = action_id.replace(".", "_").replace("/", "_")
    if len(name) <= MAX_LENGTH:
        return name
    return f"{name[: MAX_LENGTH - _HASH_DIGITS - 1]}_{sha256_hex(action_id.encode())[:_HASH_DIGITS]}"


def is_reserved(name: str) -> bool:
    """Whether a published name belongs to the control tools, or would to a host that does not tell case, or - and _, apart."""
    return name.casefold().replace("-", "_").startswith(RESERVED_PREFIX)


def prompt_name(atlas_id: str, pack_id: str, *, shared: bool = False) -> str:
    """The name of a context pack as a prompt; ``shared``: where a pack of another atlas has the plain one."""
    words = f"{atlas_id.rsplit('.', 1)[-1]}.{pack_id}"
    return published_name(f"{words}.{sha256_hex(atlas_id.encode())[:_HASH_DIGITS]}" if shared else words)


def is_own_uri(uri: str) -> bool:
    """Whether a URI belongs to the runtime: those of the scheme ``cra`` and, under any scheme, of the authority ``cra``.

    However it is written: hosts and proxies undo percent-encoding, case and look-alikes, and drop what nobody sees.
    """
    scheme, authority = _split(uri)
    return OWN_NAME in {scheme, _host(authority)}


def takes_own_uri(template: str) -> bool:
    """Whether an action of this URI, or template, would have a name that belongs to the runtime.

    A variable that may become ``cra`` is refused under ``ui`` alone, where the runtime has resources; under others what it would
    name then is never handed to the action.
    """
    scheme, authority = _split(template)
    # A variable can be any text without / ? and #, so that only what stands after the last one is certain.
    _, variable, tail = authority.rpartition("}")
    if variable and "@" not in tail:
        return scheme == OWN_NAME or (scheme == _UI and OWN_NAME.endswith(_host(tail)))
    return OWN_NAME in {scheme, _host(tail)}


def _split(uri: str) -> tuple[str, str]:
    """Scheme and authority, or what stands in the place of one."""
    scheme, _, rest = _plain(uri).partition(":")
    return scheme, re.split(r"[/?#]", rest.lstrip("/"), maxsplit=1)[0]


def _host(authority: str) -> str:
    return authority.rpartition("@")[2].partition(":")[0].rstrip(".")


def _plain(uri: str) -> str:
    """A URI without percent-encoding, case, look-alikes and invisible characters."""
    for _ in range(_MAX_DECODED):
        decoded = unquote(uri)
        if decoded == uri:
            break
        uri = decoded
    shown = (part for part in unicodedata.normalize("NFKC", uri) if unicodedata.category(part)[0] not in "CZ")
    return "".join(shown).replace("\\", "/").casefold()

"""First outcomes by idempotency key, so that a repeated request carries nothing out twice.

Source: specs/carp.md, "Idempotency".
"""

import threading
from collections import OrderedDict

from cra_mcp.errors import RequestError
from cra_mcp.gate.call import ExecutionOutcome

_MAX_KEYS = 10_000


class Replays:
    """The idempotency keys of one session. Of more than 10,000 keys the oldest settled ones are forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fingerprints: dict[str, str] = {}
        self._outcomes: OrderedDict[str, ExecutionOutcome] = OrderedDict()

    def claim(self, key: str, fingerprint: str) -> ExecutionOutcome | None:
        """The first outcome of ``key``; None for a new key, which is under way until it is settled.

        Args:
            key: chosen by the caller.
            fingerprint: digest of the call it stands for.

        Raises:
            RequestError: ``invalid_request`` if the key stood for another call, ``duplicate_request`` if it is under way.
        """
        with self._lock:
            first = self._fingerprints.get(key)
            if first is None:
                self._fingerprints[key] = fingerprint
                return None
            if first != fingerprint:
                raise RequestError(
                    "invalid_request", "this idempotency_key was used for another call", hint="use a new key"
                )
            known = self._outcomes.get(key)
            if known is not None:
                return known
            raise RequestError(
                "duplicate_request", "a call with this idempotency_key is under way", hint="wait for its outcome"
            )

    def settle(self, key: str, outcome: ExecutionOutcome | None) -> None:
        """Keep the outcome of a key; None (nothing came of it yet) frees the key for another try."""
        with self._lock:
            if outcome is None:
                self._fingerprints.pop(key, None)
                return
            self._outcomes[key] = outcome
            if len(self._outcomes) > _MAX_KEYS:
                oldest, _ = self._outcomes.popitem(last=False)
                self._fingerprints.pop(oldest, None)

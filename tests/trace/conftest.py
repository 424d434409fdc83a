"""What the tests of traces share."""

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from cra_mcp.trace.event import Draft, Head, format_timestamp, link

Chain = Callable[..., list[bytes]]


def identifier(number: int) -> str:
    return f"01980000-0000-7000-8000-{number:012x}"


@pytest.fixture
def make_id() -> Callable[[int], str]:
    return identifier


@pytest.fixture
def new_id() -> Callable[[], str]:
    numbers: Iterator[int] = count(1_000)
    return lambda: identifier(next(numbers))


@pytest.fixture
def draft() -> Callable[..., Draft]:
    def make(note: object = "", event_type: str = "x.test.note", parent: int | None = None) -> Draft:
        payload: dict[str, object] = {"note": note}
        return Draft(event_type, payload, identifier(2), identifier(parent) if parent is not None else None)

    return make


@pytest.fixture
def chain(draft: Callable[..., Draft]) -> Chain:
    """Lines of a good chain; every other event has a parent span."""

    def make(events: int, *, session: int = 1) -> list[bytes]:
        head: Head | None = None
        lines: list[bytes] = []
        for number in range(events):
            head, line = link(
                head,
                draft(f"event {number}", parent=3 if number % 2 else None),
                session_id=identifier(session),
                trace_id=identifier(4),
                event_id=identifier(100 + number),
                timestamp=format_timestamp(1_760_000_000_000_000_000 + number * 1_000),
            )
            lines.append(line)
        return lines

    return make

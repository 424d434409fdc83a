"""RFC 6901 JSON pointers.

Source: RFC 6901.
"""


def pointer(*steps: str | int) -> str:
    """The pointer of these steps."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in steps)


def steps_of(at: str) -> tuple[str, ...]:
    """The steps of a pointer."""
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in at.split("/")[1:])

"""Words that people read."""


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """A number of things: ``1 event``, ``2 events``; ``plural`` where it is not the noun with an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"

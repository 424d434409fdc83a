"""Pins packages that are pinned with extras without them, too: ``python tests/installation/bare_pins.py FILE...``.

pip 23.2 resolves ``package`` and ``package[extra]`` apart. Where one package needs the first and another the second, a file that
pins only one of them breaks on the day ``package`` publishes a release. uv writes only the second (``--no-strip-extras``).
"""

import re
import sys
from pathlib import Path

_PIN = re.compile(r"^([\w.-]+)\[[^]]+\](==.*\n(?:[ ].*\n)+)", re.MULTILINE)


def with_bare_pins(text: str) -> str:
    """The file with a bare pin before each that has extras; it may have them already."""

    def doubled(found: re.Match[str]) -> str:
        bare = found[1] + found[2]
        return found[0] if bare in text else bare + found[0]

    return _PIN.sub(doubled, text)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(with_bare_pins(path.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")

"""JUnit XML, as continuous integration reads it.

Rule: what XML can't carry is replaced, so that the file is always well-formed.
Source: the form written by Ant's JUnit task and read by Jenkins, GitLab and others; XML 1.0, "Char".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element, SubElement, tostring

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Case:
    """One test. ``failure``: its first line, and all of it; ``error`` likewise, of what could not even be run."""

    name: str
    place: str
    failure: tuple[str, str] | None = None
    error: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Suite:
    """Tests that belong together. ``properties`` are for readers."""

    name: str
    cases: Sequence[Case]
    properties: dict[str, str] = field(default_factory=dict[str, str])


def document(suites: Sequence[Suite]) -> bytes:
    """The file, UTF-8."""
    root = Element("testsuites", _counts([case for suite in suites for case in suite.cases]))
    for suite in suites:
        element = SubElement(root, "testsuite", {"name": _clean(suite.name), **_counts(suite.cases)})
        if suite.properties:
            properties = SubElement(element, "properties")
            for name, value in suite.properties.items():
                SubElement(properties, "property", {"name": name, "value": _clean(value)})
        for case in suite.cases:
            _add(element, case)
    return tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _add(suite: Element, case: Case) -> None:
    element = SubElement(suite, "testcase", {"name": _clean(case.name), "classname": _clean(case.place)})
    for tag, told in (("failure", case.failure), ("error", case.error)):
        if told is not None:
            SubElement(element, tag, {"message": _clean(told[0]), "type": tag}).text = _clean(told[1])


def _counts(cases: Sequence[Case]) -> dict[str, str]:
    return {
        "tests": str(len(cases)),
        "failures": str(sum(case.failure is not None for case in cases)),
        "errors": str(sum(case.error is not None for case in cases)),
    }


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)

"""What policy hides from an agent is absent from everything it hears: no answer tells it from what isn't there."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.faces.mcp import dialogue
from tests.faces.mcp.conftest import Place, Wire, environment

both_eras = pytest.mark.parametrize("modern", [False, True], ids=["2025", "2026"])


def opened(place: Place, options: list[str], *, fresh: bool = False) -> Wire:
    command = (place.fresh_command if fresh else place.command)(*options)
    return Wire(
        subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), bufsize=0
        )
    )


def asking(wire: Wire, *, modern: bool) -> dialogue.Ask:
    if not modern:
        wire.initialize()

    def ask(method: str, params: dict[str, Any]) -> dict[str, Any]:
        answer = wire.request(method, params, modern=modern)
        return {key: answer[key] for key in ("result", "error") if key in answer}

    return ask


def talk(place: Place, options: list[str], *, modern: bool) -> list[str]:
    with closing(opened(place, options)) as wire:
        return dialogue.hold(asking(wire, modern=modern))


@both_eras
@pytest.mark.parametrize("seed", range(3))
def test_an_agent_hears_the_same_whether_an_action_is_hidden_or_undeclared(
    tmp_path: Path, seed: int, modern: bool
) -> None:
    hidden, undeclared = dialogue.worlds(tmp_path, seed)
    heard = talk(*hidden, modern=modern)
    assert heard == talk(*undeclared, modern=modern)
    assert len(heard) > 100
    recorded = json.dumps(hidden[0].events())
    assert "veil" in recorded, "the trace knows"
    assert '"action_id": "vault.' in recorded
    assert dialogue.SECRET not in recorded
    told = "\n".join(answer.partition(" -> ")[2] for answer in heard)
    assert not any(name in told.replace("vault_", "").replace("app://vault", "") for name in ("veil", "loud"))


@pytest.mark.parametrize("uri", ["ui://cra/trace", "note://cra", "NOTE://%63ra"])
def test_a_request_for_a_uri_of_the_runtime_reaches_no_action(tmp_path: Path, uri: str) -> None:
    place = Place(tmp_path, tmp_path / "atlas")
    publish = {"as": "resource", "uri": "note://{id}"}
    dialogue.write(place, [{**dialogue.HIDDEN[-1], "action_id": "open.note", "publish": publish}], [])
    with closing(opened(place, [])) as wire:
        ask = asking(wire, modern=False)
        found = ask("resources/read", {"uri": uri})
        assert ("result" in found) == (uri == "ui://cra/trace")
        assert place.traces() == [], "nothing was called"
        assert "result" in ask("resources/read", {"uri": "note://mine"})

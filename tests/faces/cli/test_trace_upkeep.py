"""Keeping a folder of traces in order from the command line."""

import json
import os
import re

from cra_mcp import CRARuntime
from tests.faces.cli.conftest import cra
from tests.faces.mcp.conftest import Place


def test_old_traces_go_when_it_is_asked_for_and_a_statement_stays(place: Place, server: CRARuntime) -> None:
    session = server.create_session("ann", "Something")
    server.end_session(session.session_id)
    trace = place.data / "traces" / f"{session.session_id}.trace.jsonl"
    where = ("--data-dir", place.data)
    fresh = cra("trace", "prune", "--keep", "30d", *where)
    assert (fresh.returncode, fresh.stdout, fresh.stderr) == (0, "", "0 traces gone, 0 old ones kept\n")
    trace.write_text(re.sub(r'"timestamp":"[0-9]{4}', '"timestamp":"2016', trace.read_text()))
    os.utime(trace, (1_460_000_000, 1_460_000_000))
    kept = cra("trace", "prune", "--keep", "1y", *where)
    assert kept.stdout == f"kept    {session.session_id}  hash_mismatch\n"
    dry = cra("trace", "prune", "--keep", "1y", "--damaged", "--dry-run", *where)
    assert "would go" in dry.stdout
    assert trace.exists()
    done = json.loads(cra("trace", "prune", "--keep", "1y", "--damaged", "--json", *where).stdout)
    assert [statement["session_id"] for statement in done["pruned"]] == [session.session_id]
    assert not trace.exists()
    shown = cra("trace", "show", session.session_id, *where)
    assert shown.returncode == 3


def test_a_period_that_is_none_is_wrong_usage(place: Place) -> None:
    for period in ("30", "d", "0d", "-1d", "1.5d", "30 days"):
        refused = cra("trace", "prune", f"--keep={period}", "--data-dir", place.data)
        assert (refused.returncode, "--keep" in refused.stderr) == (2, True), period

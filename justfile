# Every recipe runs from a checkout whose .venv holds requirements-dev.lock. `just` alone lists them.

bin := env("CRA_VENV_BIN", justfile_directory() / (if os_family() == "windows" { ".venv/Scripts" } else { ".venv/bin" }))
python := bin / "python"
compile := bin / "uv" + " pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header --no-annotate"
measured := "tests/access tests/canonical tests/gate tests/policy tests/resolution tests/runtime tests/specs tests/state tests/trace/test_event.py tests/trace/test_linked.py"

_list:
    @just --list --unsorted

# Put the package itself and the clients of the tests in place
setup:
    {{python}} -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
    {{python}} tests/clients/install.py
    {{python}} tests/clients/environments.py
    -{{python}} tests/clients/debian.py

# The tests, with what they need installed first, and the branch coverage that may not fall. Measuring makes all Python slower by a
# half, so it is done where those tests are that have to reach every branch. ARGS are options of pytest
test *ARGS: setup
    {{python}} -m coverage erase
    {{python}} -m coverage run -m pytest -n auto --dist worksteal -m "not long" {{ARGS}} {{measured}}
    {{python}} -m coverage combine --quiet
    {{python}} -m coverage report --fail-under=100 --include="cra_mcp/policy/*,cra_mcp/gate/*,cra_mcp/resolution/*,cra_mcp/canonical.py,cra_mcp/trace/event.py,cra_mcp/trace/linked.py"
    {{python}} -m pytest -n auto --dist worksteal -m "not long" {{ARGS}} {{replace_regex(measured, '(\S+)', '--ignore=$1')}}

# The coverage of the whole package by all its tests, every process measured: slow
coverage *ARGS: setup
    {{python}} -m coverage erase
    {{python}} -m coverage run -m pytest -n auto --dist worksteal -m "not long" {{ARGS}}
    {{python}} -m coverage combine --quiet
    {{python}} -m coverage report

# Format, lint, types, layers
lint:
    {{python}} -m ruff format --check .
    {{python}} -m ruff check .
    {{bin}}/basedpyright --pythonpath {{python}}
    {{bin}}/lint-imports

# The whole gate
check: lint test

# Slow and large runs: crash loops, big fuzzes
check-long: setup
    {{python}} -m pytest -n auto -m long

# The official MCP conformance suite against the real server: just mcp-conformance [2025-11-25 | 2026-07-28 | 0.1.16]
mcp-conformance *SPEC: setup
    {{python}} tests/mcp_conformance/run.py {{SPEC}}

# Write formatting and what is generated
fix:
    {{python}} -m ruff format .
    {{python}} -m ruff check --fix .
    {{python}} -m cra_mcp.faces.cli.schemas specs/schemas

# Resolve the pinned requirements again, those of the tests' environments too; releases already pinned stay unless UPGRADE says --upgrade
lock *UPGRADE:
    {{compile}} pyproject.toml --group build -o requirements.lock {{UPGRADE}}
    {{compile}} pyproject.toml --group dev -o requirements-dev.lock {{UPGRADE}}
    for each in fastmcp mcp1 pip sigstore; do {{compile}} tests/clients/python/$each.in -o tests/clients/python/$each.txt {{UPGRADE}}; done
    {{python}} tests/installation/bare_pins.py requirements.lock requirements-dev.lock tests/clients/python/*.txt
    {{python}} tests/clients/install.py --lock

# The performance claims, each one command: just bench policy | trace | resolve | mcp | upstream | http_load
bench NAME *ARGS:
    {{python}} benchmarks/{{NAME}}.py {{ARGS}}

# Remove each guard in turn and show which tests notice
sabotage *ARGS:
    {{python}} tests/sabotage.py {{ARGS}}

# Change one thing at a time in the policy engine and show whether its tests notice (long: half an hour for 100): just mutants --sample 100 --seed 1
mutants *ARGS:
    {{python}} tests/mutants.py {{ARGS}}

"""Changes one thing in ``cra_mcp/policy`` at a time and shows whether its tests notice; too many that go unnoticed are a failure.

``python tests/mutants.py --sample 100 --seed 1`` works on a copy of the tree. A mutant is one comparison, condition, operator,
number, flag, result or statement changed in the syntax tree. It is noticed if a test of ``tests/policy``
fails, or they don't end in time. Mutants that change nothing anybody could see are named in ``EQUIVALENT``, each with its
reason, and not counted.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "cra_mcp/policy"
BAR = 0.95
TIMEOUT_S = 420
LAST = ("test_cedar_export.py", "test_rego_export.py", "test_properties.py")
"""Slow tests go last: most mutants fall before them."""

_FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_SWAPPED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult, ast.Mod: ast.Add,
}  # fmt: skip

EQUIVALENT: dict[tuple[str, str, str], str] = {
    ("cra_mcp/policy/tables.py", "layer: int = 0", "number"): "every rule is made with its layer",
}
"""By file, source line (without indentation) and kind: why nobody can see it."""


@dataclass(frozen=True)
class Mutant:
    """One change: the ``index``-th site of its kind in a file. ``line`` is where, ``source`` what stands there."""

    file: str
    kind: str
    index: int
    line: int
    source: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}: {self.source}"


def sites(tree: ast.Module, kind: str) -> Iterator[ast.AST]:
    """Places for one kind of change; nothing in annotations, decorators, imports or messages of errors."""
    outside = {id(node) for skipped in _skipped(tree) for node in ast.walk(skipped)}
    for node in ast.walk(tree):
        if id(node) not in outside and _fits(node, kind):
            yield node


def _skipped(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef():
                yield from (*node.decorator_list, *filter(None, [node.returns]))
            case ast.ClassDef():
                yield from node.decorator_list
            case ast.AnnAssign() | ast.arg() if node.annotation is not None:
                yield node.annotation
            case ast.Raise():
                yield from filter(None, [node.exc, node.cause])
            case ast.Subscript() if isinstance(node.value, ast.Name) and node.value.id in {"Literal", "Callable"}:
                yield node
            case _:
                pass


KINDS = ("comparison", "condition", "join", "operator", "number", "flag", "result", "statement")


def _fits(node: ast.AST, kind: str) -> bool:  # noqa: PLR0911 - one for each kind
    match kind, node:
        case "comparison", ast.Compare(ops=[only]):
            return type(only) in _FLIPPED
        case "condition", ast.If() | ast.IfExp() | ast.While():
            return True
        case "join", ast.BoolOp():
            return True
        case "operator", ast.BinOp(op=operation):
            return type(operation) in _SWAPPED and not isinstance(node.left, ast.JoinedStr)
        case "number", ast.Constant(value=value):
            return isinstance(value, int) and not isinstance(value, bool)
        case "flag", ast.Constant(value=value):
            return isinstance(value, bool)
        case "result", ast.Return(value=value):
            return value is not None and not (isinstance(value, ast.Constant) and value.value is None)
        case "statement", ast.Assign() | ast.AugAssign() | ast.Raise():
            return not (isinstance(node, ast.Assign) and _declares(node))
        case "statement", ast.Expr(value=value):
            return isinstance(value, ast.Call | ast.Yield | ast.YieldFrom)
        case _:
            return False


def _declares(node: ast.Assign) -> bool:
    """An assignment whose loss is a NameError at import, and no test of anything."""
    return node.col_offset == 0 or any(
        isinstance(target, ast.Name) and target.id == "__slots__" for target in node.targets
    )


class _Change(ast.NodeTransformer):
    def __init__(self, kind: str, target: ast.AST) -> None:
        self._kind = kind
        self._target = target

    def visit(self, node: ast.AST) -> ast.AST:
        if node is not self._target:
            return self.generic_visit(node)
        return ast.copy_location(self._changed(node), node)

    def _changed(self, node: ast.AST) -> ast.AST:
        match self._kind, node:
            case "comparison", ast.Compare():
                node.ops = [_FLIPPED[type(node.ops[0])]()]
            case "condition", ast.If() | ast.IfExp() | ast.While():
                node.test = ast.UnaryOp(ast.Not(), node.test)
            case "join", ast.BoolOp():
                node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            case "operator", ast.BinOp():
                node.op = _SWAPPED[type(node.op)]()
            case "number", ast.Constant(value=int(value)):
                return ast.Constant(value + 1)
            case "flag", ast.Constant(value=value):
                return ast.Constant(not value)
            case "result", ast.Return(value=ast.Constant(value=bool(value))):
                node.value = ast.Constant(not value)
            case "result", ast.Return():
                node.value = ast.Constant(None)
            case _:
                return ast.Pass()
        return node


def all_mutants() -> list[Mutant]:
    """Every mutant of the package, in a fixed order."""
    found: list[Mutant] = []
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        tree, lines = ast.parse(source), source.splitlines()
        for kind in KINDS:
            for index, node in enumerate(sites(tree, kind)):
                line = getattr(node, "lineno", 1)
                found.append(Mutant(path.relative_to(ROOT).as_posix(), kind, index, line, lines[line - 1].strip()))
    return found


def mutated(mutant: Mutant, source: str) -> str:
    """The text of its file, changed."""
    tree = ast.parse(source)
    target = list(sites(tree, mutant.kind))[mutant.index]
    return ast.unparse(ast.fix_missing_locations(_Change(mutant.kind, target).visit(tree)))


def is_noticed(mutant: Mutant | None, tree: Path) -> bool:
    """Whether a test fails in a copy of the tree with this change, or with none."""
    original = "" if mutant is None else (tree / mutant.file).read_text(encoding="utf-8")
    own = "" if mutant is None else Path(mutant.file).stem
    tests = sorted(
        (tree / "tests/policy").glob("test_*.py"), key=lambda path: (path.name in LAST, own not in path.name, path.name)
    )
    try:
        if mutant is not None:
            (tree / mutant.file).write_text(mutated(mutant, original), encoding="utf-8")
        outcome = subprocess.run(
            [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not long",
             "--hypothesis-seed=0", *map(str, tests)],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            check=False,
            timeout=TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return True
    finally:
        if mutant is not None:
            (tree / mutant.file).write_text(original, encoding="utf-8")
    return outcome.returncode != 0


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run(chosen: list[Mutant], jobs: int, seconds: float) -> tuple[int, int]:
    """How many were tried in the time there is, and how many of them were noticed."""
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            tree = Path(folder, str(number))
            ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".hypothesis", "node_modules")
            shutil.copytree(ROOT, tree, ignore=ignored)
            trees.put(tree)

        def attempt(mutant: Mutant | None) -> bool | None:
            if mutant is not None and time.monotonic() > deadline:
                return None
            tree = trees.get()
            try:
                noticed = is_noticed(mutant, tree)
                if mutant is not None:
                    say(f"{'noticed' if noticed else 'UNNOTICED'}: {mutant}")
                return noticed
            finally:
                trees.put(tree)

        first, *others = pool.map(attempt, [None, *chosen])
        if first:
            raise SystemExit("the tests fail without any change")
    results = [noticed for noticed in others if noticed is not None]
    return len(results), sum(results)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=100, help="how many mutants; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3_600, help="begin no mutant after that")
    parser.add_argument("--file", default="", help="only files whose path contains this")
    asked = parser.parse_args()
    known = [mutant for mutant in all_mutants() if asked.file in mutant.file]
    counted = [mutant for mutant in known if (mutant.file, mutant.source, mutant.kind) not in EQUIVALENT]
    chosen = random.Random(asked.seed).sample(counted, asked.sample) if 0 < asked.sample < len(counted) else counted
    say(f"{len(counted)} mutants, besides {len(known) - len(counted)} that change nothing; {len(chosen)} chosen")
    tried, noticed = run(chosen, asked.jobs, asked.seconds)
    share = noticed / tried if tried else 0.0
    say(f"{noticed} of {tried} noticed: {share:.1%}, at least {BAR:.0%}")
    return 0 if share >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())

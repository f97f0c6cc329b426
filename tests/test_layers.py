"""Imports go down the layers, in the order that CONTRIBUTING.md tells."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: The package's own face, which takes names from everywhere.
FACE = {"__init__", "__main__"}


def told() -> list[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("A module imports only modules named before it:")[1].split("`cli`")[0]
    return [*re.findall(r"`(\w+)/?`", section), "cli"]


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that are imported, at once or by a function (but by `plot`, of a result)."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "plot":
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom):
            package, _, module = str(node.module).partition(".")
            if package == "gpbo":
                yield from [module.split(".")[0]] if module else [name.name for name in node.names]
        yield from imported(node)


def test_a_module_imports_only_modules_named_before_it() -> None:
    layers = told()
    place = {module: number for number, module in enumerate(layers)}
    assert len(place) == len(layers)
    found = set()
    for file in sorted((ROOT / "gpbo").rglob("*.py")):
        module = file.relative_to(ROOT / "gpbo").with_suffix("").parts[0]
        if module in FACE:
            continue
        found.add(module)
        for other in imported(ast.parse(file.read_text(encoding="utf-8"))):
            assert place[other] <= place[module], f"{file}: {other} comes after {module}"
    assert found == set(layers)

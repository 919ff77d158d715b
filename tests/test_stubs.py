"""The type stubs of the compiled modules name what the modules have, and nothing else."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ENGINE = Path(__file__).resolve().parents[1] / "bitnet_cy" / "engine"
MODULES = sorted(path.stem for path in ENGINE.glob("*.pyx"))


def _defined(body: list[ast.stmt]) -> set[str]:
    definitions = (ast.FunctionDef, ast.ClassDef)
    named = {node.name for node in body if isinstance(node, definitions)}
    named |= {
        node.target.id
        for node in body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    return {name for name in named if not name.startswith("_")}


def _public(owner: object, module: str) -> set[str]:
    names = {name for name in dir(owner) if not name.startswith("_")}
    if not isinstance(owner, type):
        names = {n for n in names if getattr(getattr(owner, n), "__module__", "") == module}
    return names


@pytest.mark.parametrize("name", MODULES)
def test_a_stub_names_what_its_module_defines(name: str) -> None:
    module = importlib.import_module(f"bitnet_cy.engine.{name}")
    tree = ast.parse((ENGINE / f"{name}.pyi").read_text(encoding="utf-8"))
    assert _defined(tree.body) == _public(module, module.__name__)
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            native = getattr(module, node.name)
            assert _defined(node.body) == _public(native, module.__name__), node.name

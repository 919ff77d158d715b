"""Imports point one way, and C headers include only what their layer may know."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bitnet_cy"
CSRC = PACKAGE / "engine" / "csrc"

# Part of the package -> the parts it may import, at any depth and under TYPE_CHECKING too.
SMALL_PARTS = {"errors", "checks", "cgroup", "cores"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "checks": {"errors"},
    "cgroup": set(),
    "cores": {"cgroup"},
    "engine": {"errors"},
    "formats": {"errors"},
    "tokenizer": {"errors", "formats"},
    "chat": {"errors", "tokenizer"},
    "sampling": {"errors", "checks"},
    "threads": SMALL_PARTS,
    "memory": SMALL_PARTS,
    "speculation": set(),
    "generation": {"errors", "checks", "sampling", "speculation", "tokenizer"},
    "batch": {"generation"},
    "sessions": {"errors", "generation"},
    "embedding": {"errors", "checks", "engine"},
    "screening": {"errors", "engine", "memory"},
    "convert": {"errors", "chat", "checks", "formats", "threads", "tokenizer"},
    "hub": {"errors", "formats"},
    "architectures": {"errors", "engine", "formats"},
    "report": SMALL_PARTS | {"engine", "memory", "threads"},
    "model": SMALL_PARTS
    | {
        "architectures",
        "batch",
        "chat",
        "embedding",
        "engine",
        "formats",
        "generation",
        "hub",
        "memory",
        "sampling",
        "screening",
        "sessions",
        "threads",
        "tokenizer",
    },
    "": {"errors", "generation", "model", "report", "tokenizer"},
    "__main__": {"cli"},
}
ANYTHING = {"cli"}
# A kernel may use plain C ones, and the one of the instruction set that its own extends.
BUILDS_ON = {
    "avx2_float": "avx2",
    "avx512_float": "avx2_float",
    "avx2_dense": "avx2",
    "avx2_screen": "avx2",
    "avx2_tables": "avx2",
    "avxvnni_dense": "avxvnni",
    "avx512vnni_dense": "avx512vnni",
    "avx512vnni_screen": "avx2_screen",
    "neon_dense": "neon",
    "neondot_dense": "neondot",
    "avxvnni": "avx2",
    "avx512vnni": "avx512_float",
    "avx512vnni_gemm": "avx512vnni",
    "neondot": "neon",
    "neoni8mm": "neondot",
}
SLOW_TO_IMPORT = (
    "huggingface_hub",
    "jinja2",
    "sentencepiece",
    "tokenizers",
    "torch",
    "tqdm",
    "transformers",
)

SOURCES = sorted(path for path in PACKAGE.rglob("*.py*") if path.suffix in {".py", ".pyi"})
CYTHON = sorted([*PACKAGE.rglob("*.pyx"), *PACKAGE.rglob("*.pxd")])
HEADERS = sorted(CSRC.rglob("*.h"))
KERNELS = sorted((CSRC / "kernels").glob("*.h"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _part(path: Path) -> str:
    """The part of the package a file belongs to: "" for the face."""
    first = path.relative_to(PACKAGE).parts[0].split(".")[0]
    return "" if first == "__init__" else first


def _absolute(node: ast.ImportFrom, path: Path) -> str:
    """The dotted module that a `from ... import` statement in `path` names."""
    if node.level == 0:
        return node.module or ""
    folder = path.relative_to(ROOT).parent.parts
    above = folder[: len(folder) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def _imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(node, path)
            names = [f"{module}.{alias.name}" for alias in node.names]
            yield from names if module == "bitnet_cy" else [module]


def _parts_imported(path: Path) -> set[str]:
    """A name that is no part, as in `from bitnet_cy import Model`, belongs to the face."""
    ours = (m.split(".") for m in _imported_modules(path) if m.split(".")[0] == "bitnet_cy")
    parts = {module[1] if len(module) > 1 else "" for module in ours}
    return {part if part in MAY_IMPORT or part in ANYTHING else "" for part in parts}


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_module_imports_only_the_layers_below_it(path: Path) -> None:
    part = _part(path)
    if part in ANYTHING:
        return
    assert part in MAY_IMPORT, f"{_name(path)} is a part that the layering does not know"
    upward = _parts_imported(path) - MAY_IMPORT[part] - {part}
    assert not upward, f"{_name(path)} imports {sorted(upward)}"


def test_the_allowed_imports_have_no_cycle() -> None:
    done: set[str] = set()
    while len(done) < len(MAY_IMPORT):
        ready = {part for part, below in MAY_IMPORT.items() if below - ANYTHING <= done} - done
        assert ready, f"a cycle among {sorted(set(MAY_IMPORT) - done)}"
        done |= ready


@pytest.mark.parametrize("path", CYTHON, ids=_name)
def test_cython_imports_nothing_of_the_package_but_errors(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"^\s*(?:from\s+(\S+)\s+c?import|import\s+(\S+))", text, re.MULTILINE)
    modules = {first or second for first, second in named}
    ours = {m for m in modules if m.startswith(("bitnet_cy", "."))}
    allowed = re.compile(r"(bitnet_cy\.errors|\.\.errors|bitnet_cy\.engine(\.\w+)?|\.\w*)$")
    assert all(allowed.match(m) for m in ours), f"{_name(path)} imports {sorted(ours)}"


def _includes(path: Path) -> set[str]:
    """The quoted includes of a header, as paths relative to csrc/."""
    text = path.read_text(encoding="utf-8")
    quoted = re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.MULTILINE)
    return {(path.parent / name).resolve().relative_to(CSRC).as_posix() for name in quoted}


@pytest.mark.parametrize("path", KERNELS, ids=_name)
def test_a_kernel_knows_no_other_kernel_no_threads_and_no_heap(path: Path) -> None:
    below = {"scalar", "scalar_screen", BUILDS_ON.get(path.stem)}
    assert _includes(path) <= {"half.h", "kernels.h", *(f"kernels/{name}.h" for name in below)}
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(
        r"\b(malloc|calloc|realloc|free|alloca)\s*\(|#\s*pragma\s+omp|<omp\.h>", code
    )
    assert not found


def test_only_dispatch_includes_kernels() -> None:
    includers = {
        path.relative_to(CSRC).as_posix()
        for path in set(HEADERS) - set(KERNELS)
        if any(name.startswith("kernels/") for name in _includes(path))
    }
    assert includers <= {"dispatch.h"}


def test_files_stay_short_enough_to_read() -> None:
    limits = {".py": 400, ".h": 500}
    sources = [*SOURCES, *HEADERS, *(ROOT / "tools").rglob("*.py"), *(ROOT / "tests").glob("*.py")]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    long = {_name(p): n for p, n in lengths.items() if n > limits.get(p.suffix, 400)}
    assert not long


def test_importing_the_package_imports_no_slow_dependency() -> None:
    script = (
        "import sys, bitnet_cy; bitnet_cy.load, bitnet_cy.Model, bitnet_cy.info;"
        f"print([m for m in {SLOW_TO_IMPORT!r} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"

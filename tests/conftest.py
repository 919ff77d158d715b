"""The tests run the installed package, whichever way pytest was started."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _holds_compiled_engine(root: Path) -> bool:
    engine = root / "bitnet_cy" / "engine"
    return any(path.suffix in {".so", ".pyd"} for path in engine.iterdir())


# `python -m pytest` puts the current folder first on the import path, where an unbuilt
# checkout would hide the installed package. A checkout built in place is what we want to test.
if not _holds_compiled_engine(ROOT):
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]


def pytest_report_header() -> str:
    import bitnet_cy

    return f"bitnet_cy: {Path(bitnet_cy.__file__).parent}"


@pytest.fixture(autouse=True, scope="session")
def _elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run in an empty folder, so that `python -m bitnet_cy` in a test finds the installed one."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("cwd"))
    yield
    os.chdir(before)


@pytest.fixture(scope="module")
def plain_torch() -> Iterator[None]:
    """torch in one thread and without its compiler."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.compiler.set_stance("force_eager"):
        yield
    torch.set_num_threads(threads)

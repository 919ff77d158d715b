"""tools/bench.py: its record, its sections in quick mode, and the pages made from figures."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import bench
import pytest
from measures import page, plots, record, tables

from bitnet_cy.errors import OptionError

TEXT = "Once upon a time there was a king who had three daughters and no son at all. " * 60
PEER = """
import json, os
assert os.environ["MODEL"].endswith("peer.gguf")
print("loading")
print(json.dumps({"prefill_tps": 100.0 * int(os.environ["T"]), "decode_tps": 10.0}))
"""


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every section on the embedded model, quickly."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "peer_x.py").write_text(PEER)
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    paths = ["--yardstick", folder, "--peer", folder / "peer.gguf", "--text", folder / "text.txt"]
    command = ["run", "--quick", "--threads", "2", "--out", folder / "quick.json", *paths]
    assert bench.main([str(word) for word in command]) == 0
    return record.read(folder / "quick.json")


def measured(sections: dict[str, Any]) -> dict[str, Any]:
    """The sections as if they were of a real run."""
    return {
        name: section | {"about": section["about"] | {"quick": False}}
        for name, section in sections.items()
    }


def test_every_section_measures_the_embedded_model(quick: dict[str, Any]) -> None:
    assert set(quick) == set(bench.SECTIONS)
    for section in quick.values():
        assert section["about"]["quick"] is True
        assert "error" not in section["about"]
        assert section["figures"]
        for figure in section["figures"]:
            assert figure["low"] <= figure["median"] <= figure["high"]
            assert all(isinstance(value, float) for value in figure["samples"])


def test_a_share_is_of_the_read_in_its_own_round(quick: dict[str, Any]) -> None:
    section = quick["decode"]
    for share in record.figures(section, "ternary share of plain read"):
        ternary, plain = (
            record.figures(section, name, **share["labels"])[0]["samples"]
            for name in ("ternary read", "plain read")
        )
        expected = [a / b for a, b in zip(ternary, plain, strict=True)]
        assert share["samples"] == pytest.approx(expected, rel=1e-4)


def test_every_table_shows_the_figures(quick: dict[str, Any]) -> None:
    sections = measured(quick)
    text = "".join(f"<!-- table: {name} -->\n<!-- end -->\n" for name in tables.TABLES)
    text += "".join(f"<!-- table: {name} -->\n<!-- end -->\n" for name in tables.OVERVIEWS)
    filled = page.filled(text, sections)
    assert page.MISSING not in filled
    assert page.filled(filled, sections) == filled
    step = record.figures(sections["rows"], "step", rows=20)[0]
    assert f"{1e3 * step['median']:.1f}" in filled
    assert all(line.startswith(("|", "<!--")) for line in filled.splitlines())


def test_figures_of_a_quick_run_make_no_page(quick: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="quick run"):
        page.filled("", quick)


def test_a_table_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(OptionError, match="no table 'speed'"):
        page.filled("<!-- table: speed -->\n<!-- end -->\n", {})


def test_plots_are_the_same_file_each_time(quick: dict[str, Any], tmp_path: Path) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed (extra: bench)")
    first = [path.read_bytes() for path in plots.draw(measured(quick), tmp_path)]
    second = [path.read_bytes() for path in plots.draw(measured(quick), tmp_path)]
    assert len(first) == 2
    assert first == second


# The README keeps its older figures until there is a record.
PAGES = ["docs/performance.md", *(["README.md"] if bench.RECORD.exists() else [])]


@pytest.mark.parametrize("name", PAGES)
def test_the_tables_of_a_page_are_those_of_the_record(name: str) -> None:
    sections = record.read(bench.RECORD) if bench.RECORD.exists() else {}
    text = (bench.ROOT / name).read_text(encoding="utf-8")
    assert page.filled(text, sections) == text


def half_a_section(path: Path) -> None:
    with record.Section(path, "a", quick=True) as section:
        section.sample("speed", "tok/s", 3, threads=1)
        section.sample("speed", "tok/s", 1, threads=1)
        raise ValueError("broken")


def test_a_section_that_fails_keeps_its_figures_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record.write(path, {"other": {"about": {"quick": True}, "figures": []}})
    with pytest.raises(ValueError, match="broken"):
        half_a_section(path)
    found = record.read(path)
    assert set(found) == {"other", "a"}
    assert found["a"]["about"]["error"] == "ValueError: broken"
    assert found["a"]["figures"][0]["samples"] == [3.0, 1.0]
    assert found["a"]["figures"][0]["median"] == 2.0
    assert json.loads(path.read_text(encoding="utf-8")) == found


def test_an_error_of_the_system_is_recorded_without_its_path(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    with pytest.raises(FileNotFoundError), record.Section(path, "a", quick=True):
        (tmp_path / "absent").read_bytes()
    assert str(tmp_path) not in path.read_text(encoding="utf-8")


def test_a_run_goes_on_after_a_section_that_failed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "record.json")
    command = ["run", "--quick", "--threads", "1", "--out", out]
    assert bench.main([*command, "--sections", "yardstick,roofline"]) == 1
    assert "yardstick failed" in capfd.readouterr().out
    found = record.read(Path(out))
    assert "--yardstick" in found["yardstick"]["about"]["error"]
    assert found["roofline"]["figures"]


def test_an_unknown_section_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["run", "--sections", "speed"]) == 1
    assert "no section 'speed'" in capsys.readouterr().err

"""Names of repositories, the choice among their files, and the cache: no network, no package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bitnet_cy.errors import DownloadError, OptionError, UnsupportedError
from bitnet_cy.hub import cache, choice
from bitnet_cy.hub.reference import Reference, names_repository, parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("org/name", Reference("org/name")),
        ("Org-1/b1.58_2B-gguf", Reference("Org-1/b1.58_2B-gguf")),
        ("org/name@v1.0", Reference("org/name", "v1.0")),
        ("org/name@refs/pr/3:a/b.gguf", Reference("org/name", "refs/pr/3", "a/b.gguf")),
        ("org/name:B.GGUF", Reference("org/name", None, "B.GGUF")),
        ("hf://org/name", Reference("org/name")),
    ],
)
def test_a_name_says_repository_revision_and_file(name: str, expected: Reference) -> None:
    assert names_repository(name)
    assert parse(name) == expected
    assert str(expected) == name.removeprefix("hf://")


@pytest.mark.parametrize(
    "path",
    [
        "name", "a/b/c", "/org/name", "./name", "../name", "~/name", "a\\b", "C:\\a", "C:/a/b",
        "models/tiny.gguf", "a/tokenizer.json", "org/", "/name", "org/na me", "org/name@", "",
    ],
)  # fmt: skip
def test_a_path_is_no_repository(path: str) -> None:
    assert not names_repository(path)


@pytest.mark.parametrize(
    ("name", "revision", "error"),
    [
        ("name", None, OptionError),
        ("https://huggingface.co/org/name", None, OptionError),
        ("org/name@main", "v1", OptionError),
        ("org/name", "../../etc", OptionError),
        ("org/name@a/../b", None, OptionError),
        ("org/name", "", OptionError),
        ("org/name:../../x.gguf", None, OptionError),
        ("org/name:/x.gguf", None, OptionError),
        ("org/name:pytorch_model.bin", None, UnsupportedError),
    ],
)
def test_a_name_that_leaves_the_repository_is_refused(
    name: str, revision: str | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        parse(name, revision)


def test_a_revision_beside_the_name_is_the_same() -> None:
    assert parse("org/name:a.gguf", "v1") == parse("org/name@v1:a.gguf", "v1")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["a.gguf"], "a.gguf"),
        (["deep/a.gguf", "model.safetensors"], "deep/a.gguf"),
        (["m-i2_s.gguf", "m-Q4_K_M.gguf", "m-f16.gguf", "m.BF16.gguf"], "m-i2_s.gguf"),
        (["m-TQ1_0.gguf", "mmproj.gguf"], "m-TQ1_0.gguf"),
        (["model.safetensors", "config.json"], None),
    ],
)
def test_the_ternary_file_is_chosen(names: list[str], chosen: str | None) -> None:
    assert choice.gguf_file(Reference("org/name"), names) == chosen


@pytest.mark.parametrize(
    "names", [["m-Q4_K_M.gguf"], ["m-IQ2_XXS.gguf"], ["m-i2_s-00001-of-00002.gguf"]]
)
def test_files_that_cannot_run_are_listed_and_taken_only_by_name(names: list[str]) -> None:
    with pytest.raises(UnsupportedError, match=names[0]):
        choice.gguf_file(Reference("org/name"), names)
    assert choice.gguf_file(Reference("org/name", None, names[0]), names) == names[0]


def test_a_file_that_is_not_there_and_several_that_are() -> None:
    with pytest.raises(DownloadError, match=r"no file x\.gguf; it has a\.gguf"):
        choice.gguf_file(Reference("org/name", None, "x.gguf"), ["a.gguf"])
    with pytest.raises(OptionError, match=r"a\.gguf, b\.gguf; say which, as in org/name:a\.gguf"):
        choice.gguf_file(Reference("org/name"), ["b.gguf", "a.gguf"])
    many = [f"{number:02}.txt" for number in range(20)]
    with pytest.raises(UnsupportedError, match=r"11\.txt and 8 more"):
        choice.checkpoint_files(Reference("org/name"), many)


def test_a_checkpoint_is_taken_without_pickles_and_without_copies() -> None:
    names = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    names += ["model.safetensors.index.json", "tokenizer.model", "tokenizer_config.json"]
    others = ["consolidated.safetensors", "pytorch_model.bin", "original/a.safetensors", "x.py"]
    assert choice.checkpoint_files(Reference("org/name"), names + others) == sorted(names)
    with pytest.raises(UnsupportedError, match="pickled weights .* never downloaded"):
        choice.checkpoint_files(Reference("org/name"), ["config.json", "pytorch_model.bin"])


def test_the_cache_is_where_the_others_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert cache.folder() == Path.home() / ".cache" / "huggingface" / "hub"
    for name, expected in zip(
        reversed(names), ("x/huggingface/hub", "x/hub", "x", "x"), strict=True
    ):
        monkeypatch.setenv(name, "x")
        assert cache.folder() == Path(expected)


def test_the_cache_tells_revisions_and_the_files_that_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert cache.repositories() == []
    folder = cache.repository("org/na-me")
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "a.gguf").write_bytes(b"12345")
    if sys.platform != "win32":  # where links need a right of their own
        (snapshot / "lost.gguf").symlink_to(folder / "blobs" / "gone")
    assert cache.snapshot("org/na-me", None) is None
    assert cache.snapshot("org/na-me", COMMIT) == snapshot
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    assert cache.snapshot("org/na-me", None) == snapshot
    assert cache.files(snapshot) == {"a.gguf": 5}
    assert cache.repositories() == ["org/na-me"]
    assert cache.snapshots("org/na-me") == [("main", snapshot)]
    (folder / "refs" / "main").write_text("../../elsewhere")
    assert cache.snapshot("org/na-me", None) is None

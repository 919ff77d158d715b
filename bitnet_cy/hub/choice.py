"""Which files of a repository are the model: one GGUF file, or the files of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from bitnet_cy.errors import DownloadError, OptionError, UnsupportedError
from bitnet_cy.formats import ternary
from bitnet_cy.hub.reference import Reference

_SHOWN = 12
_PART_OF_SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
# Types that names of GGUF files carry, as in model-Q4_K_M.gguf.
_TYPE_IN_NAME = re.compile(
    r"(?<![a-z0-9])((?:ud-)?(?:i2_s|tl[12]|tq[12]_0|i?q\d_\w+|mxfp4(?:_moe)?|bf16|f16|fp16|f32))"
    r"(?![a-z0-9])",
    re.IGNORECASE,
)
_CHECKPOINT = re.compile(
    r"config\.json|generation_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.json|"
    r"merges\.txt|chat_template\.(?:jinja|json)|tokenizer\.(?:json|model)|tokenizer_config\.json|"
    r"model\.safetensors\.index\.json|[^/]+\.safetensors"
)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def gguf_file(reference: Reference, names: Iterable[str]) -> str | None:
    """The GGUF file to run; None if there is none, and the repository may hold a checkpoint.

    The file that the reference names, else the only one whose name does not tell a type that is
    not ternary. Raises DownloadError if the named file is not there, OptionError if several would
    do, UnsupportedError if there are only files of other types or parts of a split one.
    """
    names = sorted(names)
    found = [name for name in names if name.lower().endswith(".gguf")]
    if reference.file is not None:
        if reference.file in names:
            return reference.file
        raise DownloadError(f"{reference.repo} has no file {reference.file}; it has {_told(names)}")
    able = [name for name in found if _may_run(name)]
    said = [name for name in able if _types_in(name)]
    if len(able) > 1 and len(said) == 1:  # model-i2_s.gguf beside mmproj.gguf
        return said[0]
    if len(able) > 1:
        raise OptionError(
            f"{reference.repo} has several models: {_told(able)}; say which, as in "
            f"{Reference(reference.repo, reference.revision, able[0])}"
        )
    if found and not able:
        raise UnsupportedError(
            f"{reference.repo} has no file that bitnet_cy runs, only {_told(found)}; ternary "
            f"weights in one file are needed ({', '.join(ternary.NAMES)}); name a file with "
            f"{reference.repo}:FILE to take it all the same"
        )
    return able[0] if able else None


def checkpoint_files(reference: Reference, names: Iterable[str]) -> list[str]:
    """The files of a Hugging Face checkpoint: configuration, safetensors, tokenizer; no pickles.

    Raises UnsupportedError if the repository holds no such checkpoint.
    """
    names = sorted(names)
    found = [name for name in names if _CHECKPOINT.fullmatch(name)]
    weights = [name for name in found if name.endswith(".safetensors")]
    if "config.json" in found and weights:
        named = [name for name in weights if name.startswith("model")]  # not the same ones twice
        return [name for name in found if name not in weights or name in (named or weights)]
    reason = ""
    if any(name.lower().endswith(_PICKLES) for name in names):
        reason = "; pickled weights can run any program when loaded and are never downloaded"
    raise UnsupportedError(
        f"{reference.repo} has no model that bitnet_cy runs or converts; a GGUF file or a "
        f"checkpoint in safetensors is needed, and it has {_told(names)}{reason}"
    )


def _may_run(name: str) -> bool:
    types = _types_in(name)
    return not _PART_OF_SPLIT.search(name) and (not types or bool(types & set(ternary.NAMES)))


def _types_in(name: str) -> set[str]:
    return {text.upper() for text in _TYPE_IN_NAME.findall(PurePosixPath(name).name)}


def _told(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) + more) or "no files"

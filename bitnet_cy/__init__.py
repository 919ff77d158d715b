"""Run ternary language models (BitNet b1.58) on the CPU.

    import bitnet_cy

    model = bitnet_cy.load()  # the small model in the package, or load("model.gguf")
    print(model.generate("Once upon a time", max_new_tokens=64).text)

The names below are imported when first used, so that the parts that need no compiled engine
(bitnet_cy.formats, bitnet_cy.tokenizer) work without one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitnet_cy import errors, tokenizer
    from bitnet_cy.errors import BitNetError
    from bitnet_cy.generation import GenerationConfig
    from bitnet_cy.model import Model, load
    from bitnet_cy.report import info

    __version__: str

__all__ = [
    "BitNetError",
    "GenerationConfig",
    "Model",
    "__version__",
    "errors",
    "info",
    "load",
    "tokenizer",
]

_HOMES = {
    "BitNetError": "errors",
    "GenerationConfig": "generation",
    "Model": "model",
    "info": "report",
    "load": "model",
}


def __getattr__(name: str) -> Any:
    value: Any
    if name in ("errors", "tokenizer"):
        value = import_module(f"bitnet_cy.{name}")
    elif name in _HOMES:
        value = getattr(import_module(f"bitnet_cy.{_HOMES[name]}"), name)
    elif name == "__version__":
        from importlib import metadata

        value = metadata.version("bitnet_cy")
    else:
        raise AttributeError(f"module 'bitnet_cy' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

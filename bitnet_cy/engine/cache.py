"""The key-value cache: its types, and the memory it takes."""

from __future__ import annotations

from bitnet_cy.engine.weights import Shape

#: Type -> bytes of a cached number. An int8 row (one position, one kv head) has a scale besides.
KV_DTYPES = {"float16": 2, "float32": 4, "int8": 1}
_SCALE_BYTES = {"int8": 4}


def row_count(shape: Shape, context_length: int) -> int:
    """Rows of head_dim numbers: as many of keys, and as many of values."""
    return shape.n_layers * shape.n_kv_heads * context_length


def cache_nbytes(shape: Shape, context_length: int, kv_dtype: str) -> int:
    """Bytes of keys, values and scales of a cache of this type, one of KV_DTYPES."""
    row = shape.head_dim * KV_DTYPES[kv_dtype] + _SCALE_BYTES.get(kv_dtype, 0)
    return 2 * row_count(shape, context_length) * row

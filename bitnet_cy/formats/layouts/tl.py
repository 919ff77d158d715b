"""TL1 and TL2, the lookup-table layouts of bitnet.cpp (ARM and x86).

The order of bytes follows the kernel a matrix was made for: tiles of BM rows and BK columns,
worked on in groups of bm rows. Files do not say which, so the caller must: `read_kernels` reads
the kernel_config.ini that bitnet.cpp writes next to them.

TL1: a nibble is a pair of trits, 3 t + t' + 4. TL2: a nibble is the magnitude of three trits,
|9 t + 3 t' + t''|, their signs apart; columns beyond the last whole BK are pairs as in TL1.
The float32 scale of the tensor follows the codes.
"""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitnet_cy.errors import FormatError, OptionError, UnsupportedError
from bitnet_cy.formats import types
from bitnet_cy.formats.layouts.base import (
    Layout,
    Ternary,
    check_multiple,
    check_scale,
    check_size,
    check_trits,
    single_scale,
)

Kernel = tuple[int, int, int]  # BM, BK, bm

_PAIRS, _TRIPLES = 9, 14  # how many codes of each kind there are
_NINE_THREE_ONE = np.array([9, 3, 1], np.int8)


def read_kernels(path: Path) -> dict[tuple[int, int], Kernel]:
    """Kernels by matrix shape (rows, cols), from a kernel_config.ini of bitnet.cpp."""
    parser = configparser.ConfigParser()
    try:
        parser.read_string(path.read_text("utf-8"))
        return {
            (section.getint("m", -1), section.getint("k", -1)): (
                section.getint("bm", -1),
                section.getint("bk", -1),
                section.getint("bmm", -1),
            )
            for name, section in parser.items()
            if name != parser.default_section
        }
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror}") from None
    except (configparser.Error, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise FormatError(f"{path.name} is no kernel_config.ini of bitnet.cpp: {reason}") from None


@dataclass(frozen=True)
class _Order:
    """A matrix cut into pieces along both axes, and the order in which they are stored."""

    splits: tuple[int, ...]
    axes: tuple[int, ...]

    def apply(self, matrix: np.ndarray) -> np.ndarray:
        return matrix.reshape(self.splits).transpose(self.axes)

    def undo(self, stored: np.ndarray, rows: int) -> np.ndarray:
        pieces = stored.reshape([self.splits[axis] for axis in self.axes])
        return pieces.transpose(np.argsort(self.axes)).reshape(rows, -1)


def _decode_tl1(raw: np.ndarray, rows: int, cols: int, *, kernel: Kernel | None = None) -> Ternary:
    order = _tl1_order(rows, cols, kernel)
    count = rows * cols // 4
    raw = check_size(raw, count + 32, "TL1")
    trits = order.undo(_unpair(raw[:count], "TL1"), rows)
    return _with_scale(trits, raw[count : count + 4], "TL1")


def _encode_tl1(
    trits: np.ndarray, scale: np.ndarray | float, *, kernel: Kernel | None = None
) -> np.ndarray:
    trits = check_trits(trits)
    rows, cols = trits.shape
    order = _tl1_order(rows, cols, kernel)
    out = np.zeros(trits.size // 4 + 32, np.uint8)
    out[:-32] = _pair(order.apply(trits))
    out[-32:-28] = _scale_bytes(scale, "TL1")
    return out


def _tl1_order(rows: int, cols: int, kernel: Kernel | None) -> _Order:
    tile_rows, tile_cols, group = _check_kernel(kernel, "TL1", (32, 64))
    step = 256 // group
    check_multiple(rows, tile_rows, "TL1 with this kernel", "rows")
    check_multiple(cols, tile_cols, "TL1 with this kernel", "columns")
    check_multiple(tile_rows, group, "TL1 kernel", "BM")
    check_multiple(tile_cols, step, "TL1 kernel", "BK")
    splits = (
        rows // tile_rows, tile_rows // group, group // 16, 16,
        cols // tile_cols, tile_cols // step, step // 4, 4,
    )  # fmt: skip
    return _Order(splits, (0, 4, 1, 5, 2, 6, 3, 7))


class _Tl2Sections:
    """The three sections of a TL2 tensor: where they lie and how they are ordered."""

    def __init__(self, rows: int, cols: int, kernel: Kernel | None) -> None:
        tile_rows, tile_cols, _ = _check_kernel(kernel, "TL2", (32,))
        check_multiple(rows, tile_rows, "TL2 with this kernel", "rows")
        check_multiple(tile_rows, 32, "TL2 kernel", "BM")
        check_multiple(tile_cols, 24, "TL2 kernel", "BK")
        self.rows = rows
        self.threes = cols - cols % tile_cols
        rest = cols - self.threes
        check_multiple(rest, 32, "TL2 with this kernel", "columns beyond whole BK")
        self.signs_start = rows * self.threes // 6
        self.rest_start = self.signs_start + rows * self.threes // 24
        self.end = self.rest_start + rows * rest // 4
        payload = types.tl2_payload(rows, cols)
        if payload is None or self.end > payload:
            raise UnsupportedError(f"TL2 with this kernel cannot hold {rows} x {cols} weights")
        self.nbytes = -(-payload // 32) * 32 + 32
        tiles, groups = rows // tile_rows, tile_rows // 32
        bands = self.threes // tile_cols
        self.magnitudes = _Order((tiles, groups, 32, bands, tile_cols // 6, 6), (0, 3, 1, 4, 2, 5))
        self.signs = _Order(
            (tiles, groups, 2, 16, bands, tile_cols // 24, 8), (0, 4, 1, 5, 3, 6, 2)
        )
        self.rest = _Order((tiles, groups, 32, rest // 32, 8, 4), (0, 3, 1, 4, 2, 5))
        # The two middle groups of eight rows are stored in swapped order, except for signs.
        self.swapped = np.arange(rows).reshape(-1, 4, 8)[:, [0, 2, 1, 3]].reshape(-1)


def _decode_tl2(raw: np.ndarray, rows: int, cols: int, *, kernel: Kernel | None = None) -> Ternary:
    sections = _Tl2Sections(rows, cols, kernel)
    raw = check_size(raw, sections.nbytes, "TL2")
    trits = np.empty((rows, cols), np.int8)
    if sections.threes:
        values = _untriple(raw[: sections.signs_start])
        values = sections.magnitudes.undo(values, rows)[sections.swapped]
        words = raw[sections.signs_start : sections.rest_start].reshape(-1, 2)[:, ::-1]
        negative = sections.signs.undo(np.unpackbits(words, axis=1), rows).astype(np.int8)
        trits[:, : sections.threes] = values * np.repeat(1 - 2 * negative, 3, axis=1)
    if cols > sections.threes:
        values = _unpair(raw[sections.rest_start : sections.end], "TL2")
        trits[:, sections.threes :] = sections.rest.undo(values, rows)[sections.swapped]
    return _with_scale(trits, raw[-32:-28], "TL2")


def _encode_tl2(
    trits: np.ndarray, scale: np.ndarray | float, *, kernel: Kernel | None = None
) -> np.ndarray:
    trits = check_trits(trits)
    rows, cols = trits.shape
    sections = _Tl2Sections(rows, cols, kernel)
    out = np.zeros(sections.nbytes, np.uint8)
    swapped = trits[sections.swapped]
    if sections.threes:
        values = sections.magnitudes.apply(swapped[:, : sections.threes])
        out[: sections.signs_start] = _triple(values)
        triples = trits[:, : sections.threes].reshape(rows, -1, 3) @ _NINE_THREE_ONE
        words = np.packbits(sections.signs.apply(triples < 0).reshape(-1, 16), axis=1)
        out[sections.signs_start : sections.rest_start] = words[:, ::-1].reshape(-1)
    if cols > sections.threes:
        values = sections.rest.apply(swapped[:, sections.threes :])
        out[sections.rest_start : sections.end] = _pair(values)
    out[-32:-28] = _scale_bytes(scale, "TL2")
    return out


def _check_kernel(kernel: Kernel | None, name: str, groups: tuple[int, ...]) -> Kernel:
    if kernel is None:
        raise UnsupportedError(
            f"{name} files do not say how they are ordered; give the kernel_config.ini they were "
            "made with, or use the I2_S file of the model"
        )
    if len(kernel) != 3 or min(kernel) < 1 or kernel[2] not in groups:
        raise OptionError(
            f"{name} kernel {kernel}: BM, BK and bm are positive, and bm one of {groups}"
        )
    return kernel


def _pair(trits: np.ndarray) -> np.ndarray:
    """Groups of four trits on the last axis as bytes, flat."""
    index = (3 * trits[..., 0::2] + trits[..., 1::2] + 4).astype(np.uint8)
    return (index[..., 0] << 4 | index[..., 1]).reshape(-1)


def _unpair(packed: np.ndarray, name: str) -> np.ndarray:
    """The inverse of `_pair`, int8 [n, 2, 2]."""
    index = _nibbles(packed, _PAIRS, name)
    return np.stack([index // 3, index % 3], -1) - np.int8(1)


def _triple(trits: np.ndarray) -> np.ndarray:
    """Groups of six trits on the last axis as bytes of two magnitudes, flat."""
    values = np.abs(trits.reshape(-1, 2, 3) @ _NINE_THREE_ONE).astype(np.uint8)
    return values[:, 0] << 4 | values[:, 1]


def _untriple(packed: np.ndarray) -> np.ndarray:
    """The inverse of `_triple`, without signs: int8 [n, 2, 3]."""
    value = _nibbles(packed, _TRIPLES, "TL2")
    last = (value + 1) % 3 - 1
    upper = (value - last) // 3
    middle = (upper + 1) % 3 - 1
    return np.stack([(upper - middle) // 3, middle, last], -1)


def _nibbles(packed: np.ndarray, count: int, name: str) -> np.ndarray:
    """Both halves of each byte, high first: int8 [n, 2] below `count`."""
    values = np.stack([packed >> 4, packed & 15], -1)
    if (values >= count).any():
        raise FormatError(f"{name} holds a code that is no trits: damaged, or not ternary")
    return values.view(np.int8)


def _scale_bytes(scale: np.ndarray | float, name: str) -> np.ndarray:
    return single_scale(scale, name).astype("<f4").reshape(1).view(np.uint8)


def _with_scale(trits: np.ndarray, raw: np.ndarray, name: str) -> Ternary:
    scale = check_scale(raw.view("<f4")[0], name)
    return Ternary(trits if scale else np.zeros_like(trits), scale)


TL1 = Layout("TL1", _decode_tl1, _encode_tl1)
TL2 = Layout("TL2", _decode_tl2, _encode_tl2)

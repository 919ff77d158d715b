"""Packed ternary layouts, one file per family. A new one is added to `LAYOUTS`."""

from __future__ import annotations

from bitnet_cy.formats.layouts.base import Layout, Ternary
from bitnet_cy.formats.layouts.i2_s import I2_S
from bitnet_cy.formats.layouts.tq import TQ1_0, TQ2_0

__all__ = ["LAYOUTS", "Layout", "Ternary"]

LAYOUTS = {layout.name: layout for layout in (I2_S, TQ1_0, TQ2_0)}

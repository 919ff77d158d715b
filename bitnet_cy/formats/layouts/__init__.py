"""Packed ternary layouts, one file per family. A new one is added to `LAYOUTS`."""

from __future__ import annotations

from bitnet_cy.formats.layouts.base import Layout, Ternary
from bitnet_cy.formats.layouts.i1_6_s import I1_6_S
from bitnet_cy.formats.layouts.i2_s import I2_S
from bitnet_cy.formats.layouts.ik import IQ1_BN, IQ2_BN, IQ2_BN_R4
from bitnet_cy.formats.layouts.q2_0 import PQ2_0, Q2_0, Q2_0_128
from bitnet_cy.formats.layouts.tl import TL1, TL2
from bitnet_cy.formats.layouts.tq import TQ1_0, TQ2_0

__all__ = ["LAYOUTS", "Layout", "Ternary"]

_ALL = (I2_S, I1_6_S, TQ1_0, TQ2_0, Q2_0, Q2_0_128, PQ2_0, IQ1_BN, IQ2_BN, IQ2_BN_R4, TL1, TL2)
LAYOUTS = {layout.name: layout for layout in _ALL}

"""Fail unless the installed package offers exactly these kernels on this CPU.

Usage: python wheels/kernels.py NAME... (in the order in which `bitnet-cy info` lists them)
"""

from __future__ import annotations

import sys

from bitnet_cy.engine import kernels

if __name__ == "__main__":
    found, expected = kernels.available(), sys.argv[1:]
    if found != expected:
        raise SystemExit(f"this CPU is offered {', '.join(found)}, not {', '.join(expected)}")

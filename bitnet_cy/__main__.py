"""`python -m bitnet_cy` is the command line."""

from __future__ import annotations

import sys

from bitnet_cy.cli import main

if __name__ == "__main__":
    sys.exit(main())

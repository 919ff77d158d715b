"""Convert a ternary model: `bitnet-cy convert`, for those who work in a checkout.

python tools/convert.py SRC -o OUT --type i2_s
"""

from __future__ import annotations

import sys

from bitnet_cy.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))

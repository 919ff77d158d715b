"""Print the README's nth command block, so that CI runs what readers are told to run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def command(number: int) -> str:
    blocks = re.findall(r"^```sh\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    return blocks[number - 1]


if __name__ == "__main__":
    print(command(int(sys.argv[1])), end="")

"""Fail if a test was skipped for a reason that CI should have removed.

Usage: skips.py [--without PACKAGE]... JUNIT_XML... (PACKAGE: not installed where the tests ran)
"""

from __future__ import annotations

import argparse
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# What cannot be installed: files that are not part of the project.
ALLOWED = []
if not (ROOT.parent / "shared").exists():
    ALLOWED.append("is not beside the (checkout|repository)|training text is not at hand")


def skipped(report: Path) -> list[tuple[str, str]]:
    """Names and reasons of the skipped tests of a JUnit report."""
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return [
        (f"{case.get('classname')}::{case.get('name')}", f"{skip.get('message')} {skip.text}")
        for case in cases
        for skip in case.findall("skipped")
    ]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--without", metavar="PACKAGE", action="append", default=[])
    parser.add_argument("reports", metavar="JUNIT_XML", nargs="+", type=Path)
    options = parser.parse_args()
    missing = [rf"\b{name}\b.* is not installed|needs {name}\b" for name in options.without]
    found = [case for report in options.reports for case in skipped(report)]
    reasons = ALLOWED + missing
    wrong = [(n, why) for n, why in found if not any(re.search(p, why) for p in reasons)]
    for name, why in wrong:
        print(f"skipped, but CI should run it: {name}: {why}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The tables of a page, between markers that name them: <!-- table: decode --> ... <!-- end -->."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bitnet_cy.errors import OptionError
from measures import tables

BLOCK = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
MISSING = "Not measured yet.\n"


def filled(text: str, sections: Mapping[str, Any]) -> str:
    """The page with every table made anew. Raises OptionError for figures of a quick run."""
    quick = [name for name, section in sections.items() if section["about"]["quick"]]
    if quick:
        raise OptionError(f"section {quick[0]} is of a quick run; measure without --quick")
    return BLOCK.sub(lambda found: f"{found[1]}{_table(found[2], sections)}{found[3]}", text)


def _table(name: str, sections: Mapping[str, Any]) -> str:
    if name in tables.OVERVIEWS:
        return markdown(tables.OVERVIEWS[name](sections)) if sections else MISSING
    if name not in tables.TABLES:
        raise OptionError(
            f"no table {name!r}; known are {', '.join([*tables.OVERVIEWS, *tables.TABLES])}"
        )
    section, make = tables.TABLES[name]
    if section not in sections or not sections[section]["figures"]:
        return MISSING
    return markdown(make(sections[section]))


def markdown(rows: tables.Rows) -> str:
    """Rows, the first of them the header, as a Markdown table."""
    header, *body = rows
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

"""Every seed of the fuzzers is read without complaint, and what they found is refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import seeds, targets


@pytest.mark.parametrize("name", targets.TARGETS)
def test_every_seed_is_a_valid_input(name: str, tmp_path: Path) -> None:
    for seed in seeds.SEEDS[name]():
        targets.TARGETS[name](seed, tmp_path)


@pytest.mark.parametrize("name", targets.TARGETS)
def test_a_seed_cut_anywhere_or_with_a_byte_changed_is_used_or_refused(
    name: str, tmp_path: Path
) -> None:
    for seed in seeds.SEEDS[name]():
        for place in range(1, len(seed), max(1, len(seed) // 40)):
            targets.check(name, seed[:place], tmp_path)
            targets.check(name, seed[:place] + b"\xff" + seed[place + 1 :], tmp_path)

"""The same work by another engine, in turn with ours: a program that prints JSON lines.

The program peer_x*.py of the folder reads MODEL, T, PP and TG (file, threads, prompt tokens, new
tokens) from its environment; the last line it prints holds "prefill_tps" and "decode_tps".
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from bitnet_cy.errors import OptionError
from measures.plan import Plan
from measures.record import Section

PROMPT, NEW = 128, 32


def measure(plan: Plan, section: Section) -> None:
    """A peer's run, then ours, and so on; a ratio belongs to one round."""
    if plan.yardstick is None or plan.peer is None:
        raise OptionError("the yardstick needs --yardstick FOLDER and --peer FILE")
    programs = sorted(plan.yardstick.glob("peer_x*.py"))
    if not programs:
        raise OptionError(f"{plan.yardstick.name} holds no peer_x*.py; give the folder of one")
    section.note(peer=programs[0].stem, prompt_tokens=PROMPT, new_tokens=NEW)
    for threads in plan.threads:
        for _ in plan.rounds(4 if threads == max(plan.threads) else 2):
            theirs = _peer(programs[0], plan.peer, threads)
            ours = _ours(plan.model, threads)
            for stage in ("prompt", "decode"):
                labels = {"stage": stage, "threads": threads}
                section.sample("rate", "tok/s", theirs[stage], engine="peer", **labels)
                section.sample("rate", "tok/s", ours[stage], engine="bitnet_cy", **labels)
                section.sample("ratio", "ratio", ours[stage] / theirs[stage], **labels)


def _peer(program: Path, model: Path, threads: int) -> dict[str, float]:
    settings = {"MODEL": str(model), "T": str(threads), "PP": str(PROMPT), "TG": str(NEW)}
    found = _last_line([sys.executable, str(program)], os.environ | settings)
    return {"prompt": found["prefill_tps"], "decode": found["decode_tps"]}


def _ours(model: Path | None, threads: int) -> dict[str, float]:
    command = [sys.executable, "-m", "bitnet_cy", "bench", "--json", "--repeats", "2"]
    command += ["-p", str(PROMPT), "-n", str(NEW), "-t", str(threads)]
    command += [] if model is None else ["-m", str(model)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    return {stage: found[f"{stage}_tokens_per_second"] for stage in ("prompt", "decode")}


def _last_line(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
    found: dict[str, float] = json.loads(lines[-1])
    return found

"""Starting: import, load and first token, and the memory of a full context."""

from __future__ import annotations

import json
import subprocess
import sys

from measures.plan import Plan
from measures.record import Section

FIRST_TOKEN = """
import json, sys, time
start = time.perf_counter()
import bitnet_cy
imported = time.perf_counter()
model = bitnet_cy.load(sys.argv[1] or None, threads=int(sys.argv[2]))
loaded = time.perf_counter()
model.generate([5], max_new_tokens=1)
first = time.perf_counter()
print(json.dumps({"import": imported - start, "load": loaded - imported,
                  "first token after load": first - loaded}))
"""
MEMORY = """
import json, sys
import bitnet_cy
from bitnet_cy import memory
model = bitnet_cy.load(sys.argv[1] or None, threads=int(sys.argv[2]), context_length=256)
before = memory.peak_resident()
model.generate([5] * 240, max_new_tokens=16)
parts = model.memory_breakdown
print(json.dumps({"known": sum(sum(part.values()) for part in parts.values()),
                  "file": model.path.stat().st_size, "peak": memory.peak_resident()}))
"""


def measure(plan: Plan, section: Section) -> None:
    """Every round in processes of their own; the file is in the system's cache."""
    threads = max(plan.threads)
    models = {"embedded": ""} | ({} if plan.model is None else {"full size": str(plan.model)})
    for _ in plan.rounds(5):
        for name, path in models.items():
            for what, seconds in _child(FIRST_TOKEN, path, threads).items():
                section.sample(what, "s", seconds, model=name, threads=threads)
    for name, path in models.items():
        found = _child(MEMORY, path, threads)
        for what, nbytes in found.items():
            section.sample(f"{what} memory", "B", nbytes, model=name, threads=threads)


def _child(program: str, path: str, threads: int) -> dict[str, float]:
    command = [sys.executable, "-c", program, path, str(threads)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return found

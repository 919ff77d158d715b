r"""Measure the engine on this machine, and put the figures into the documentation.

    python tools/bench.py run --model 2b.gguf --gaussian 2b-gaussian.gguf \
        --yardstick FOLDER --peer tq2_0.gguf --text held-out.txt
    python tools/bench.py page

`run` measures section after section, each in a process of its own with a limit of time, and
keeps what it has in one JSON file all the while; `--sections` repeats some. `page` writes the
tables and plots of docs/performance.md (and the README's) from that file. `run --quick` only
shows that everything works. The 2B files are made by tools/make_model.py --preset bitnet-2b-4t, the
second with --spectrum gaussian; without one of the files what needs it is left out.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from measures import record
from measures.plan import Plan

from bitnet_cy.errors import BitNetError, OptionError

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
RECORD = DOCS / "performance.json"
SECTIONS = {
    "roofline": 20,
    "decode": 180,
    "head": 60,
    "yardstick": 200,
    "prefill": 220,
    "rows": 100,
    "batch": 60,
    "neighbour": 60,
    "start": 40,
    "speculation": 30,
    "loss": 90,
}
"""Section -> seconds after which it begins no new round."""
LEEWAY = 200
"""Seconds past that in which a round has to end."""


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (BitNetError, OSError) as error:
        print(f"bench: error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    run = verbs.add_parser("run", help="measure")
    run.set_defaults(run=_run)
    section = verbs.add_parser("section", help="measure one section in this process")
    section.add_argument("name", choices=SECTIONS)
    section.set_defaults(run=_section)
    run.add_argument("--sections", help=f"some of {','.join(SECTIONS)}; default: all that can")
    for verb in (run, section):
        verb.add_argument("--model", type=Path, help="default: the embedded model")
        verb.add_argument("--out", type=Path, help=f"default: {RECORD.relative_to(ROOT)}")
        verb.add_argument("--threads", default="2,1", help="default: 2,1")
        verb.add_argument("--yardstick", type=Path, help="folder with a peer's program")
        verb.add_argument("--peer", type=Path, help="the file the peer runs")
        verb.add_argument("--gaussian", type=Path, help="like --model, its head plain Gaussian")
        verb.add_argument("--text", type=Path, help="held-out text of the embedded model")
        verb.add_argument("--quick", action="store_true", help="few small rounds: no figures")
    page = verbs.add_parser("page", help="write the documentation's tables and plots")
    page.set_defaults(run=_page)
    return parser


def _run(options: argparse.Namespace) -> int:
    names = _chosen(options)
    out = _out(options)
    failed = []
    for name in names:
        limit = SECTIONS[name] + LEEWAY
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        command = [sys.executable, __file__, "section", name, *_passed_on(options)]
        problem = _child(command, limit)
        if problem:
            failed.append(f"{name} {problem}")
            _note(out, name, problem)
    print(f"{time.strftime('%H:%M:%S')} {out}: " + ("; ".join(failed) or "all measured"))
    return 1 if failed else 0


def _child(command: list[str], limit: float) -> str:
    """Run a section's process; what went wrong, or "". Its own children end with it."""
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            return "" if process.wait(limit) == 0 else "failed"
        except subprocess.TimeoutExpired:
            return f"stopped after {limit} s"
        finally:
            if process.poll() is None:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _chosen(options: argparse.Namespace) -> list[str]:
    if options.sections is not None:
        names = options.sections.split(",")
        unknown = [name for name in names if name not in SECTIONS]
        if unknown:
            raise OptionError(f"no section {unknown[0]!r}; choose from {', '.join(SECTIONS)}")
        return list(names)
    left_out = set()
    if options.yardstick is None or options.peer is None:
        left_out.add("yardstick")
    if options.text is None:
        left_out.add("loss")
    return [name for name in SECTIONS if name not in left_out]


def _out(options: argparse.Namespace) -> Path:
    """Where the figures go; quick ones never beside those of the documentation."""
    if options.out is not None:
        return Path(options.out)
    return Path("performance-quick.json") if options.quick else RECORD


def _passed_on(options: argparse.Namespace) -> list[str]:
    words = ["--out", str(_out(options)), "--threads", options.threads]
    for name in ("model", "yardstick", "peer", "gaussian", "text"):
        value = getattr(options, name)
        words += [] if value is None else [f"--{name}", str(value)]
    return words + (["--quick"] if options.quick else [])


def _note(out: Path, name: str, problem: str) -> None:
    """Say in the record why a section is not whole, unless it says so itself."""
    sections = record.read(out) if out.exists() else {}
    if name in sections:
        sections[name]["about"].setdefault("error", problem)
        record.write(out, sections)


def _section(options: argparse.Namespace) -> int:
    out = _out(options)
    out.parent.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        model=options.model,
        threads=tuple(int(word) for word in options.threads.split(",")),
        seconds=SECTIONS[options.name],
        quick=options.quick,
        yardstick=options.yardstick,
        peer=options.peer,
        gaussian=options.gaussian,
        text=options.text,
    )
    with record.Section(out, options.name, quick=options.quick) as section:
        importlib.import_module(f"measures.{options.name}").measure(plan, section)
    return 0


def _page(options: argparse.Namespace) -> int:
    from measures import page, plots

    sections = record.read(RECORD)
    for path in (DOCS / "performance.md", ROOT / "README.md"):
        text = path.read_text(encoding="utf-8")
        path.write_text(page.filled(text, sections), encoding="utf-8")
    plots.draw(sections, DOCS)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""bitnet-cy bench: how fast a model runs here, and how near to what the memory allows."""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from bitnet_cy import checks
from bitnet_cy.cli import options, output
from bitnet_cy.cli.breakdown import memory_rows
from bitnet_cy.errors import OptionError

if TYPE_CHECKING:
    from bitnet_cy.engine import Session
    from bitnet_cy.model import Model


def add_parser(verbs: options.Verbs) -> None:
    parser = verbs.add_parser("bench", help="measure speed and memory", description=__doc__)
    parser.add_argument(
        "-p", "--prompt-tokens", type=int, default=128, metavar="N", help="default: 128"
    )
    parser.add_argument(
        "-n", "--max-new-tokens", type=int, default=32, metavar="N", help="default: 32"
    )
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="default: 5")
    options.add_json(parser)
    options.add_model(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    prompt = checks.whole("--prompt-tokens", arguments.prompt_tokens, 1)
    new = checks.whole("--max-new-tokens", arguments.max_new_tokens, 1)
    repeats = checks.whole("--repeats", arguments.repeats, 1)
    start = time.perf_counter()
    model = options.load_model(arguments)
    load_seconds = time.perf_counter() - start
    result = measure(model, prompt, new, repeats) | {"load_seconds": load_seconds}
    if arguments.json:
        output.write_json(result)
    else:
        print(as_text(result))
    return 0


def measure(model: Model, prompt: int, new: int, repeats: int) -> dict[str, Any]:
    """Time `repeats` rounds of a prompt of random tokens and the greedy decoding after it.

    Rates are medians over the rounds with the smallest and largest beside them; in every round
    as many bytes as the ternary weights take are plainly read, for comparison.
    """
    from bitnet_cy import engine, memory, report

    if prompt + new > model.context_length:
        raise OptionError(
            f"{prompt} prompt and {new} new tokens do not fit the context of "
            f"{model.context_length}; take fewer"
        )
    session = model.new_session()
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, prompt).tolist()
    ternary = sum(model.network.parts["ternary"].values())
    _round(session, ids, 1)
    session.expect(new)  # after a prompt, as generation does
    _round(session, ids, 1)  # brings the file into memory and wakes the threads
    peak = memory.peak_resident()  # before the plain read, which takes memory of its own
    memory.require(ternary, "the plain read for comparison", "measure a smaller model")
    plain = np.ones(max(ternary, 1 << 20), dtype=np.uint8)
    rounds = []
    for _ in range(repeats):
        bandwidth = max(engine.read_rate(plain, model.threads.count) for _ in range(2))
        rounds.append(_round(session, ids, new) | {"read_bandwidth": bandwidth})
    scratch = {"mapped": 0, "copied": session.nbytes - model.kv_cache_nbytes}
    return {
        "model": model.path.name,
        "architecture": model.architecture,
        "version": report.version(),
        "cpu": report.cpu_name(),
        "kernel": engine.info()["kernel"],
        "weights": model.weights.layout,
        "weights_reason": model.weights.reason,
        "threads": model.threads.count,
        "threads_reason": model.threads.reason,
        "prompt_tokens": prompt,
        "new_tokens": new,
        "repeats": repeats,
        **_medians(rounds),
        "bytes_per_token": model.nbytes_per_token,
        "ternary_bytes": ternary,
        "memory_breakdown": model.memory_breakdown | {"scratch": scratch},
        "peak_memory_bytes": peak,
    }


def _round(session: Session, ids: list[int], new: int) -> dict[str, float]:
    """Tokens per second of the prompt and of decoding after it, and where decoding's time went."""
    from bitnet_cy.engine import timing
    from bitnet_cy.generation import evaluate

    session.truncate(0)
    session.time_stages(False)
    start = time.perf_counter()
    token = int(np.argmax(evaluate(session, ids)))
    middle = time.perf_counter()
    session.time_stages()
    for _ in range(new):
        token = _next(session, token)
    seconds = time.perf_counter() - middle
    parts = timing.by_part(session.stage_seconds)
    parts["other"] += seconds - sum(parts.values())
    return {
        "prompt_tokens_per_second": len(ids) / (middle - start),
        "decode_tokens_per_second": new / seconds,
        **{f"{name}_seconds_per_token": spent / new for name, spent in parts.items()},
    }


def _next(session: Session, token: int) -> int:
    """Append a token; the likeliest next one, found as generation finds it."""
    if not session.screened:
        return int(np.argmax(session.forward([token], logits="last")))
    found, logits = session.forward_top([token], 1)[0]
    return int(found[np.argmax(logits)])


def _medians(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Every number's median over the rounds, and as {name}_spread its least and greatest."""
    found: dict[str, Any] = {}
    for name in rounds[0]:
        values = [one[name] for one in rounds]
        found[name] = median(values)
        found[f"{name}_spread"] = [min(values), max(values)]
    return found


def as_text(result: dict[str, Any]) -> str:
    """The measurements for people."""
    from bitnet_cy.memory import size

    peak = result["peak_memory_bytes"]
    rows = [
        ["model", f"{output.printable(result['model'])} ({result['architecture']})"],
        ["machine", f"{result['cpu']}, kernel {result['kernel']}"],
        ["weights", f"{result['weights']}: {result['weights_reason']}"],
        ["threads", f"{result['threads']}: {result['threads_reason']}"],
        ["prompt", _rate(result, "prompt", result["prompt_tokens"])],
        ["decode", _rate(result, "decode", result["new_tokens"])],
        *_decode_rows(result),
        ["load", f"{result['load_seconds']:.3f} s"],
        *memory_rows(result["memory_breakdown"]),
        ["  peak", "unknown" if peak is None else f"{size(peak)} resident"],
    ]
    return output.table(rows)


def _decode_rows(result: dict[str, Any]) -> list[list[str]]:
    """Where the time of a decoded token goes, and the wall that the weights run against."""
    from bitnet_cy.memory import size

    seconds = {
        name: result[f"{name}_seconds_per_token"]
        for name in ("ternary", "head", "attention", "other")
    }
    whole = sum(seconds.values())
    cells = {name: f"{1e3 * s:.3g} ms of a token, {s / whole:.0%}" for name, s in seconds.items()}
    rate, wall = result["ternary_bytes"] / seconds["ternary"], result["read_bandwidth"]
    cells["ternary"] += (
        f": {size(result['ternary_bytes'])} at {size(rate)}/s, {rate / wall:.0%} of a plain "
        f"read's {size(wall)}/s"
    )
    return [[f"  {name}", cell] for name, cell in cells.items()]


def _rate(result: dict[str, Any], stage: str, tokens: int) -> str:
    low, high = result[f"{stage}_tokens_per_second_spread"]
    return (
        f"{result[f'{stage}_tokens_per_second']:.1f} tok/s ({low:.1f} to {high:.1f}) "
        f"for {tokens} tokens, median of {result['repeats']}"
    )

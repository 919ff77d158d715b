"""bitnet-cy bench: how fast a model runs here, and how near to what the memory allows."""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from bitnet_cy import checks
from bitnet_cy.cli import options, output
from bitnet_cy.errors import OptionError

if TYPE_CHECKING:
    from bitnet_cy.generation import Session
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

    Rates are medians over the rounds with the smallest and largest beside them; between the
    rounds the same number of bytes as a decoded token takes is plainly read, for comparison.
    """
    from bitnet_cy import engine, memory, report

    if prompt + new > model.context_length:
        raise OptionError(
            f"{prompt} prompt and {new} new tokens do not fit the context of "
            f"{model.context_length}; take fewer"
        )
    session = model.new_session()
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, prompt).tolist()
    nbytes = model.nbytes_per_token
    _round(session, ids, 1)  # brings the file into memory and wakes the threads
    peak = memory.peak_resident()  # before the plain read, which takes as much again
    memory.require(nbytes, "the plain read for comparison", "measure a smaller model")
    rounds = []
    for _ in range(repeats):
        bandwidth = engine.read_bandwidth(nbytes, model.threads.count)
        rounds.append((*_round(session, ids, new), bandwidth))
    prompt_rates, decode_rates, bandwidths = zip(*rounds, strict=True)
    return {
        "model": model.path.name,
        "architecture": model.architecture,
        "version": report.version(),
        "cpu": report.cpu_name(),
        "kernel": engine.info()["kernel"],
        "threads": model.threads.count,
        "threads_reason": model.threads.reason,
        "prompt_tokens": prompt,
        "new_tokens": new,
        "repeats": repeats,
        "prompt_tokens_per_second": median(prompt_rates),
        "prompt_spread": [min(prompt_rates), max(prompt_rates)],
        "decode_tokens_per_second": median(decode_rates),
        "decode_spread": [min(decode_rates), max(decode_rates)],
        "bytes_per_token": nbytes,
        "decode_bytes_per_second": nbytes * median(decode_rates),
        "read_bandwidth": median(bandwidths),
        "read_bandwidth_spread": [min(bandwidths), max(bandwidths)],
        "mapped_bytes": model.network.mapped_nbytes,
        "copied_bytes": model.network.nbytes,
        "session_bytes": session.nbytes,
        "peak_memory_bytes": peak,
    }


def _round(session: Session, ids: list[int], new: int) -> tuple[float, float]:
    """Tokens per second of the prompt, and of decoding after it."""
    from bitnet_cy.generation import evaluate

    session.truncate(0)
    start = time.perf_counter()
    logits = evaluate(session, ids)
    middle = time.perf_counter()
    for _ in range(new):
        logits = session.forward([int(np.argmax(logits))], logits="last")
    end = time.perf_counter()
    return len(ids) / (middle - start), new / (end - middle)


def as_text(result: dict[str, Any]) -> str:
    """The measurements for people."""
    from bitnet_cy.memory import size

    peak = result["peak_memory_bytes"]
    share = result["decode_bytes_per_second"] / result["read_bandwidth"]
    rows = [
        ["model", f"{output.printable(result['model'])} ({result['architecture']})"],
        ["machine", f"{result['cpu']}, kernel {result['kernel']}"],
        ["threads", f"{result['threads']}: {result['threads_reason']}"],
        ["prompt", _rate(result, "prompt", result["prompt_tokens"])],
        ["decode", _rate(result, "decode", result["new_tokens"])],
        [
            "reads",
            f"{size(result['bytes_per_token'])} per token, "
            f"{size(result['decode_bytes_per_second'])}/s: {share:.0%} of a plain read's "
            f"{size(result['read_bandwidth'])}/s",
        ],
        ["load", f"{result['load_seconds']:.3f} s"],
        [
            "memory",
            f"peak {'unknown' if peak is None else size(peak)}: "
            f"{size(result['mapped_bytes'])} mapped from the file, "
            f"{size(result['copied_bytes'])} copied, {size(result['session_bytes'])} session",
        ],
    ]
    return output.table(rows)


def _rate(result: dict[str, Any], stage: str, tokens: int) -> str:
    low, high = result[f"{stage}_spread"]
    return (
        f"{result[f'{stage}_tokens_per_second']:.1f} tok/s ({low:.1f} to {high:.1f}) "
        f"for {tokens} tokens, median of {result['repeats']}"
    )

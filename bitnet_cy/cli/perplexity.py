"""bitnet-cy perplexity: how well a model predicts a text.

The text is cut into windows of the context length. Each window starts with BOS if the model uses
one, and repeats from the window before only as many tokens as the stride leaves: none by default
(one without BOS, so that the first token has something to follow). Every token is predicted once,
but for the first of the text where there is no BOS. Perplexity is exp of the mean negative
log-likelihood per token; bits per byte is the sum in bits over the bytes of the text, which
compares models with different vocabularies.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitnet_cy import checks
from bitnet_cy.cli import options, output
from bitnet_cy.errors import OptionError

if TYPE_CHECKING:
    from bitnet_cy.model import Model

LOGITS_AT_ONCE = 1 << 23
"""Logits held at a time: 32 MB of float32."""


@dataclass(frozen=True)
class Window:
    """Tokens [start, end) of the text go through the model; those from `scored` on count."""

    start: int
    scored: int
    end: int


def add_parser(verbs: options.Verbs) -> None:
    parser = verbs.add_parser(
        "perplexity",
        help="measure how well a model predicts a text",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-f", "--file", metavar="FILE", required=True, help="the text, or -")
    parser.add_argument(
        "--stride", type=int, metavar="N", help="tokens scored per window; fewer: more context"
    )
    options.add_json(parser)
    options.add_model(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    text = output.read_text(arguments.file)
    if not text:
        raise OptionError(f"{arguments.file} is empty; give a text")
    result = evaluate(options.load_model(arguments), text, arguments.stride)
    if arguments.json:
        output.write_json(result)
        return 0
    print(f"perplexity {result['perplexity']:.4f}, {result['bits_per_byte']:.4f} bits per byte")
    print(
        f"{result['tokens']} tokens, {result['bytes']} bytes, in {result['windows']} windows of "
        f"{result['context_length']} tokens with stride {result['stride']}, "
        f"{result['seconds']:.1f} s"
    )
    return 0


def evaluate(model: Model, text: str, stride: int | None = None) -> dict[str, Any]:
    """Measure a model on a text; the result's keys are those of `--json`."""
    tokenizer = model.tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False)
    bos = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    room = model.context_length - len(bos)
    widest = room if bos else room - 1
    step = widest if stride is None else checks.whole("stride", stride, 1, widest)
    plan = list(windows(len(ids), room, step, first=0 if bos else 1))
    if not plan:
        raise OptionError("the text has too few tokens to predict any; give a longer text")
    start = time.perf_counter()
    total = sum(_progress(_losses(model, ids, bos, plan), sum(w.end - w.scored for w in plan)))
    seconds = time.perf_counter() - start
    tokens = plan[-1].end - plan[0].scored
    unscored = b"".join(tokenizer.token_bytes(token) for token in ids[: plan[0].scored])
    nbytes = len(text.encode("utf-8")) - len(unscored)
    return {
        "perplexity": math.exp(min(total / tokens, 700.0)),
        "bits_per_byte": total / math.log(2) / nbytes,
        "tokens": tokens,
        "bytes": nbytes,
        "windows": len(plan),
        "context_length": model.context_length,
        "stride": step,
        "seconds": seconds,
    }


def windows(count: int, room: int, step: int, first: int) -> Iterator[Window]:
    """Cut `count` tokens into windows of at most `room`, each scoring at most `step` new ones.

    `first` is the first token that can be predicted.
    """
    scored, end = first, min(count, room)
    while scored < end:
        yield Window(max(end - room, 0) if first < scored else 0, scored, end)
        scored, end = end, min(count, end + step)


def _losses(
    model: Model, ids: list[int], bos: list[int], plan: list[Window]
) -> Iterator[NDArray[np.float64]]:
    """The negative log-likelihoods of all scored tokens, in blocks."""
    session = model.new_session()
    at_once = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    for window in plan:
        session.truncate(0)
        tokens = bos + ids[window.start : window.end]
        before = window.scored - window.start + len(bos) - 1  # predicts the first scored token
        if before:
            session.forward(tokens[:before], logits="none")
        for first in range(before, len(tokens) - 1, at_once):
            last = min(first + at_once, len(tokens) - 1)
            logits = session.forward(tokens[first:last], logits="all")
            yield losses(logits, tokens[first + 1 : last + 1])


def losses(logits: NDArray[np.float32], targets: list[int]) -> NDArray[np.float64]:
    """-log softmax(logits)[target] of each row: float32 [T, vocab] to float64 [T]."""
    largest = logits.max(axis=1)
    sums = np.exp(logits - largest[:, None]).sum(axis=1, dtype=np.float64)
    chosen = logits[np.arange(len(targets)), targets].astype(np.float64)
    result: NDArray[np.float64] = largest + np.log(sums) - chosen
    return result


def _progress(blocks: Iterator[NDArray[np.float64]], total: int) -> Iterator[float]:
    """The sum of each block, under a progress bar where a person is watching."""
    from tqdm import tqdm

    with tqdm(total=total, unit="tok", file=sys.stderr, disable=None, leave=False) as bar:
        for block in blocks:
            bar.update(len(block))
            yield float(block.sum())

"""Training loop: epochs of shuffled tales, checkpoints that resume, held-out bits per byte."""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tales.network import Network, Shape
from tales.optimizer import Muon


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run apart from the text and the sizes of the network."""

    batch: int = 8
    steps: int | None = None
    minutes: float | None = None  # wall time; the learning rate then follows the clock
    matrix_rate: float = 0.02
    other_rate: float = 0.004
    weight_decay: float = 0.1
    dropout: float = 0.0
    warmup: float = 0.02
    decay_from: float = 0.3
    printed_lines: float = 0.1
    patience: int = 4
    evaluations: int = 12
    seed: int = 0

    def rate(self, progress: float) -> float:
        """Learning-rate factor at a fraction of the run: warm-up, hold, linear to zero."""
        if progress < self.warmup:
            return max(progress / self.warmup, 0.05)
        return min(1.0, max(0.0, (1 - progress) / (1 - self.decay_from)))


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0
    epoch: int = 0
    window: int = 0
    seconds: float = 0.0
    evaluated_at: float = 0.0
    best: float = math.inf
    worse: int = 0

    def fraction(self, recipe: Recipe) -> float:
        parts = [0.0]
        if recipe.steps:
            parts.append(self.step / recipe.steps)
        if recipe.minutes:
            parts.append(self.seconds / 60 / recipe.minutes)
        return max(parts)


def epoch_windows(
    documents: list[tuple[list[int], list[int]]], context: int, epoch: int, recipe: Recipe
) -> Tensor:
    """Token windows [N, context + 1] of one epoch; tales in random order, some as printed."""
    rng = random.Random(recipe.seed * 1000 + epoch)
    order = rng.sample(documents, len(documents))
    stream = [t for plain, printed in order for t in _pick(plain, printed, rng, recipe)]
    start = rng.randrange(min(context, max(1, len(stream) - context)))
    count = max(0, (len(stream) - start - 1) // context)
    windows = [stream[start + i * context : start + (i + 1) * context + 1] for i in range(count)]
    rng.shuffle(windows)
    return torch.tensor(windows)


def _pick(plain: list[int], printed: list[int], rng: random.Random, recipe: Recipe) -> list[int]:
    return printed if rng.random() < recipe.printed_lines else plain


@torch.no_grad()
def bits(network: Network, documents: list[list[int]], stride: int) -> float:
    """Total bits of all tokens after the first of each document.

    A window of the context's length moves by `stride`; each token counts once, in the first
    window that holds it, so that it sees at least context - stride earlier tokens where there are.
    """
    context = network.shape.context
    rows = [row for ids in documents for row in _scored_windows(ids, context, stride)]
    total = 0.0
    training = network.training
    network.eval()
    for i in range(0, len(rows), 8):
        part = rows[i : i + 8]
        length = max(len(r[0]) for r in part) - 1
        ids = torch.zeros(len(part), length, dtype=torch.long)
        targets = torch.full_like(ids, -100)
        for k, (window, counted_from) in enumerate(part):
            ids[k, : len(window) - 1] = torch.tensor(window[:-1])
            targets[k, counted_from - 1 : len(window) - 1] = torch.tensor(window[counted_from:])
        logits = network(ids).flatten(0, 1)
        total += functional.cross_entropy(logits, targets.flatten(), reduction="sum").item()
    network.train(training)
    return total / math.log(2)


def _scored_windows(ids: list[int], context: int, stride: int) -> Iterator[tuple[list[int], int]]:
    """Windows of at most context + 1 ids, each with the index of the first id it scores."""
    scored = 1
    start = 0
    while scored < len(ids):
        end = min(len(ids), start + context + 1)
        yield ids[start:end], scored - start
        scored, start = end, start + stride


class Trainer:
    """One run in a folder: checkpoint.pt, best.pt, log.jsonl."""

    def __init__(self, folder: Path, shape: Shape, recipe: Recipe, *, compiled: bool) -> None:
        self.folder, self.recipe = folder, recipe
        torch.manual_seed(recipe.seed)
        self.network = Network(shape, recipe.dropout)
        named = list(self.network.named_parameters())
        matrices = [p for n, p in named if p.ndim == 2 and n != "token_embd.weight"]
        others = [p for n, p in named if p.ndim != 2 or n == "token_embd.weight"]
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, recipe.matrix_rate, weight_decay=recipe.weight_decay),
            torch.optim.AdamW(others, recipe.other_rate, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.progress = Progress()
        self.loss = torch.compile(self.network.loss) if compiled else self.network.loss
        if (folder / "checkpoint.pt").exists():
            self._resume()

    def _resume(self) -> None:
        state = torch.load(self.folder / "checkpoint.pt", weights_only=True)
        self.network.load_state_dict(state["network"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progress = Progress(**state["progress"])

    def save(self, name: str) -> None:
        """Write a checkpoint under a temporary name, then rename."""
        state = {
            "network": self.network.state_dict(),
            "shape": self.network.shape.as_dict(),
            "recipe": asdict(self.recipe),
            "progress": asdict(self.progress),
            "optimizers": [o.state_dict() for o in self.optimizers],
        }
        temporary = self.folder / f"{name}.partial"
        torch.save(state, temporary)
        os.replace(temporary, self.folder / name)

    def log(self, **entry: Any) -> None:
        entry = {"step": self.progress.step, "tokens": self.tokens, **entry}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        print(" ".join(f"{k} {v}" for k, v in entry.items()), flush=True)

    @property
    def tokens(self) -> int:
        return self.progress.step * self.recipe.batch * self.network.shape.context

    def step(self, batch: Tensor) -> float:
        """One update on windows [B, context + 1]; the loss in nats per token."""
        factor = self.recipe.rate(self.progress.fraction(self.recipe))
        for optimizer, rate in zip(
            self.optimizers, (self.recipe.matrix_rate, self.recipe.other_rate), strict=True
        ):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        loss = self.loss(batch[:, :-1], batch[:, 1:])
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def evaluate(self, held: list[list[int]], held_bytes: int) -> None:
        """Measure held-out bits per byte, keep the best network."""
        value = bits(self.network, held, self.network.shape.context) / held_bytes
        self.progress.evaluated_at = self.progress.fraction(self.recipe)
        if value < self.progress.best:
            self.progress.best, self.progress.worse = value, 0
            self.save("best.pt")
        else:
            self.progress.worse += 1
        self.log(held_out_bits_per_byte=round(value, 4), best=round(self.progress.best, 4))

    def run(
        self, documents: list[tuple[list[int], list[int]]], held: list[list[int]], held_bytes: int
    ) -> None:
        """Train until the planned end, or until held-out text no longer gains."""
        progress, recipe = self.progress, self.recipe
        began = time.monotonic() - progress.seconds
        logged = saved = time.monotonic()
        losses: list[float] = []
        done = False
        while not done:
            windows = epoch_windows(documents, self.network.shape.context, progress.epoch, recipe)
            while progress.window + recipe.batch <= len(windows) and not done:
                batch = windows[progress.window : progress.window + recipe.batch]
                losses.append(self.step(batch))
                progress.step += 1
                progress.window += recipe.batch
                now = time.monotonic()
                progress.seconds = now - began
                fraction = progress.fraction(recipe)
                done = fraction >= 1 or progress.worse >= recipe.patience
                if now - logged > 20 or done:
                    self._log_losses(losses, fraction, now - logged)
                    losses, logged = [], now
                if now - saved > 120:
                    self.save("checkpoint.pt")
                    saved = now
                if done or fraction - progress.evaluated_at >= 1 / recipe.evaluations:
                    self.evaluate(held, held_bytes)
            if not done:
                progress.epoch, progress.window = progress.epoch + 1, 0
        self.save("checkpoint.pt")

    def _log_losses(self, losses: list[float], fraction: float, seconds: float) -> None:
        count = len(losses)
        self.log(
            epoch=self.progress.epoch,
            loss=round(sum(losses) / count, 4),
            rate=round(self.recipe.rate(fraction), 3),
            percent=round(100 * fraction, 1),
            tokens_per_second=round(
                count * self.recipe.batch * self.network.shape.context / seconds
            ),
        )

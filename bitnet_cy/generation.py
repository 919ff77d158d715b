"""Generating text: the options, the loop over a session, and what comes out of it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

from bitnet_cy import checks
from bitnet_cy.errors import ContextError, OptionError
from bitnet_cy.sampling import Logits, Sampler
from bitnet_cy.tokenizer.stream import StreamDecoder

if TYPE_CHECKING:
    from bitnet_cy.tokenizer import Tokenizer

BLOCK = 256
"""Tokens of a prompt per call of the engine: between the calls Ctrl-C is heard."""


@dataclass(frozen=True)
class GenerationConfig:
    """How to generate. Checks itself: OptionError names the option, the value and the range.

    max_new_tokens: stop after this many tokens (at least 1).
    temperature: 0 (the default) takes the likeliest token each time; above 0 tokens are drawn.
    top_k, top_p, min_p: which tokens may be drawn; see bitnet_cy.sampling.Sampler for the order.
    repetition_penalty: above 1 discourages tokens of the prompt and the text so far.
    stop: a string or several; the text ends before the first that appears.
    seed: makes the draws repeatable; None draws a fresh one.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: str | Sequence[str] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        self._set("max_new_tokens", checks.whole("max_new_tokens", self.max_new_tokens, 1))
        self._set("temperature", checks.real("temperature", self.temperature, 0))
        self._set("top_k", checks.whole("top_k", self.top_k, 0))
        self._set("top_p", checks.real("top_p", self.top_p, 0, 1))
        self._set("min_p", checks.real("min_p", self.min_p, 0, 1))
        penalty = checks.real("repetition_penalty", self.repetition_penalty, 0.01, 100)
        self._set("repetition_penalty", penalty)
        self._set("stop", checks.strings("stop", self.stop))
        if self.seed is not None:
            self._set("seed", checks.whole("seed", self.seed, 0))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def updated(self, **options: Any) -> GenerationConfig:
        """A copy with some options changed; `max_tokens` is another name of max_new_tokens.

        Raises OptionError for a bad value, and for an unknown name, naming the nearest known one.
        """
        if "max_tokens" in options:
            if "max_new_tokens" in options:
                raise OptionError("max_tokens and max_new_tokens are one option; give one of them")
            options["max_new_tokens"] = options.pop("max_tokens")
        names = [field.name for field in fields(self)]
        for name in options:
            checks.known(name, names)
        return replace(self, **options)


@dataclass(frozen=True)
class Chunk:
    """One token of a stream and the running numbers.

    `text` is what became final with this token: complete characters only, and empty while a
    character or a possible stop string is unfinished. `finish_reason` is None until the last
    chunk: "stop" (a stop token or string) or "length" (max_new_tokens, or the context is full).
    Seconds count computing only, not the time the caller takes between chunks.
    """

    text: str
    token_id: int
    finish_reason: str | None
    prompt_tokens: int
    new_tokens: int
    prompt_seconds: float
    decode_seconds: float
    reused_tokens: int = 0

    @property
    def prompt_tokens_per_second(self) -> float:
        """Prompt tokens per second, without those reused from an earlier turn of a chat."""
        return _rate(self.prompt_tokens - self.reused_tokens, self.prompt_seconds)

    @property
    def decode_tokens_per_second(self) -> float:
        """Tokens per second after the first, which comes out of the prompt; 0.0 until then."""
        return _rate(self.new_tokens - 1, self.decode_seconds)


@dataclass(frozen=True)
class Generation:
    """A finished text and how it came about.

    `token_ids` are all tokens produced, the stop token included; `text` holds neither it nor the
    stop string. `finish_reason`, seconds and rates as in Chunk.
    """

    text: str
    token_ids: list[int]
    prompt_token_ids: list[int]
    finish_reason: str
    prompt_seconds: float
    decode_seconds: float
    prompt_tokens_per_second: float
    decode_tokens_per_second: float

    @classmethod
    def from_chunks(cls, prompt_ids: Sequence[int], chunks: Iterable[Chunk]) -> Generation:
        """Join a whole stream."""
        parts = list(chunks)
        last = parts[-1]
        return cls(
            text="".join(chunk.text for chunk in parts),
            token_ids=[chunk.token_id for chunk in parts],
            prompt_token_ids=list(prompt_ids),
            finish_reason=last.finish_reason or "length",
            prompt_seconds=last.prompt_seconds,
            decode_seconds=last.decode_seconds,
            prompt_tokens_per_second=last.prompt_tokens_per_second,
            decode_tokens_per_second=last.decode_tokens_per_second,
        )


class Session(Protocol):
    """What the loop asks of an engine session."""

    @property
    def position(self) -> int: ...
    @property
    def context_length(self) -> int: ...
    def forward(self, ids: Any, logits: str = "last") -> Any: ...
    def truncate(self, position: int) -> None: ...


class StopStrings:
    """Cuts a text that arrives in pieces before the first stop string completed in it."""

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Take a piece; return the text that is final now, and whether a stop string was found.

        What could still become a stop string is held back.
        """
        self._held += text
        found = [
            (start + len(stop), start)
            for stop in self._stops
            if (start := self._held.find(stop)) >= 0
        ]
        cut = min(found)[1] if found else len(self._held) - self._unfinished()
        final, self._held = self._held[:cut], self._held[cut:]
        return final, bool(found)

    def flush(self) -> str:
        """The text still held back, when no more is to come."""
        held, self._held = self._held, ""
        return held

    def _unfinished(self) -> int:
        """The length of the longest end of the held text with which a stop string starts."""
        longest = max((len(stop) for stop in self._stops), default=0) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0


def run(
    session: Session,
    prompt_ids: Sequence[int],
    config: GenerationConfig,
    tokenizer: Tokenizer,
    continuation: bool = True,
) -> Generator[Chunk, None, None]:
    """Generate after a prompt; one Chunk per token, the last with a finish_reason.

    What the session holds already must be the beginning of the prompt, and shorter than it. The
    prompt must fit the context (check_fits); when the context is full the generation ends with
    "length". `continuation`: the text goes on from the prompt's, so a space it starts with
    belongs to it. Uses the session until the generator ends or is closed.
    """
    sampler = _sampler(config, prompt_ids)
    decoder = StreamDecoder(tokenizer, continuation=continuation)
    stops = StopStrings(config.stop)
    reused = session.position
    room = session.context_length - len(prompt_ids) + 1  # the last token needs no place
    limit = min(config.max_new_tokens, room)
    pending = list(prompt_ids[reused:])
    prompt_seconds = decode_seconds = 0.0
    for count in range(1, limit + 1):
        start = time.perf_counter()
        token = sampler.sample(evaluate(session, pending))
        pending = [token]
        text, reason = _step(token, tokenizer, decoder, stops)
        if reason is None and count == limit:
            text, reason = text + _rest(decoder, stops), "length"
        seconds = time.perf_counter() - start
        if count == 1:
            prompt_seconds = seconds
        else:
            decode_seconds += seconds
        yield Chunk(
            text, token, reason, len(prompt_ids), count, prompt_seconds, decode_seconds, reused
        )
        if reason is not None:
            return


def evaluate(session: Session, ids: Sequence[int]) -> Logits:
    """Append ids to the session, in blocks; the logits float32 [vocab] after the last."""
    last = len(ids) - 1 - (len(ids) - 1) % BLOCK
    for first in range(0, last, BLOCK):
        session.forward(ids[first : first + BLOCK], logits="none")
    logits: Logits = session.forward(ids[last:], logits="last")
    return logits


def check_fits(tokens: int, context_length: int, longest: int) -> None:
    """Raise ContextError if a prompt of so many tokens does not fit the context.

    `longest` is the longest context that the model allows.
    """
    if tokens > context_length:
        remedy = "shorten the prompt"
        if longest > context_length:
            remedy += f" or load the model with a context_length of up to {longest}"
        raise ContextError(
            f"the prompt has {tokens} tokens and the context holds {context_length}; {remedy}"
        )


def _sampler(config: GenerationConfig, prompt_ids: Sequence[int]) -> Sampler:
    return Sampler(
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        min_p=config.min_p,
        repetition_penalty=config.repetition_penalty,
        seed=config.seed,
        seen=prompt_ids,
    )


def _step(
    token: int, tokenizer: Tokenizer, decoder: StreamDecoder, stops: StopStrings
) -> tuple[str, str | None]:
    """The text that a token makes final, and "stop" if it ends the generation."""
    if token in tokenizer.stop_ids:
        return _rest(decoder, stops), "stop"
    text, stopped = stops.push(decoder.push(token))
    return text, "stop" if stopped else None


def _rest(decoder: StreamDecoder, stops: StopStrings) -> str:
    """What is still held back at the end: an incomplete character becomes U+FFFD."""
    text, stopped = stops.push(decoder.flush())
    return text if stopped else text + stops.flush()


def _rate(tokens: int, seconds: float) -> float:
    return tokens / seconds if tokens > 0 and seconds > 0 else 0.0

"""Generating text: the options, the loop over a session, and what comes out of it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

from bitnet_cy import checks
from bitnet_cy.errors import ContextError, OptionError
from bitnet_cy.sampling import Ask, Ids, Logits, Sampler
from bitnet_cy.speculation import PromptLookup
from bitnet_cy.tokenizer.stream import StreamDecoder

if TYPE_CHECKING:
    from bitnet_cy.tokenizer import Tokenizer

BLOCK = 256
"""Tokens of a prompt per call of the engine: between the calls Ctrl-C is heard."""


SEARCHED_ROWS = 4
"""Most tokens of a step whose heads are searched: more share the reading of a full head."""


@dataclass(frozen=True)
class GenerationConfig:
    """How to generate. Checks itself: OptionError names the option, the value and the range.

    max_new_tokens: stop after this many tokens (at least 1).
    temperature: 0 (the default) takes the likeliest token each time; above 0 tokens are drawn.
    top_k, top_p, min_p: which tokens may be drawn; see bitnet_cy.sampling.Sampler for the order.
    repetition_penalty: above 1 discourages tokens of the prompt and the text so far.
    stop: a string or several; the text ends before the first that appears.
    prompt_lookup_num_tokens: above 0, check up to so many guessed tokens in one step where the
        text repeats an earlier part of itself: the same tokens, sooner.
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
    prompt_lookup_num_tokens: int = 0

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
        lookup = checks.whole("prompt_lookup_num_tokens", self.prompt_lookup_num_tokens, 0, 64)
        self._set("prompt_lookup_num_tokens", lookup)

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
    @property
    def screened(self) -> bool: ...
    def forward(self, ids: Any, logits: str = "last") -> Any: ...
    def forward_top(self, ids: Any, k: int, listed: Any = None, rows: str = "last") -> Any: ...
    def expect(self, tokens: int) -> None: ...
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


class Writer:
    """One generation in progress: logits in, chunks out.

    `prompt_ids` must fit the context (check_fits); `held` of them are in the session already.
    `continuation`: the text goes on from the prompt's, so a space it starts with belongs to it.
    `pending` are the ids to evaluate next, `finished` tells that there are none.
    """

    def __init__(
        self,
        prompt_ids: Sequence[int],
        config: GenerationConfig,
        tokenizer: Tokenizer,
        context_length: int,
        *,
        held: int = 0,
        continuation: bool = True,
    ) -> None:
        self.pending = list(prompt_ids[held:])
        self.finished = False
        self._tokenizer = tokenizer
        self._sampler = _sampler(config, prompt_ids)
        self._decoder = StreamDecoder(tokenizer, continuation=continuation)
        self._stops = StopStrings(config.stop)
        self._prompt_tokens, self._held, self._count = len(prompt_ids), held, 0
        room = context_length - len(prompt_ids) + 1  # the last token needs no place
        self._limit = min(config.max_new_tokens, room)
        self._seconds = [0.0, 0.0]  # prompt, decode

    @property
    def remaining(self) -> int:
        """The most tokens that can still come."""
        return 0 if self.finished else self._limit - self._count

    def wanted(self) -> Ask | None:
        """Which logits the next token needs: see Sampler.wanted."""
        return self._sampler.wanted(self._tokenizer.vocab_size)

    def take(self, logits: Logits, start: float, ids: Ids | None = None) -> Chunk:
        """Choose the next token; `start` is when computing its logits (of `ids`, or all) began."""
        token = self._sampler.sample(logits, ids)
        self.pending = [token]
        self._count += 1
        text, reason = _step(token, self._tokenizer, self._decoder, self._stops)
        if reason is None and self._count == self._limit:
            text, reason = text + _rest(self._decoder, self._stops), "length"
        self.finished = reason is not None
        self._seconds[self._count > 1] += time.perf_counter() - start
        prompt, decode = self._seconds
        return Chunk(
            text, token, reason, self._prompt_tokens, self._count, prompt, decode, self._held
        )


def run(
    session: Session,
    prompt_ids: Sequence[int],
    config: GenerationConfig,
    tokenizer: Tokenizer,
    continuation: bool = True,
) -> Generator[Chunk, None, None]:
    """Generate after a prompt; one Chunk per token, the last with a finish_reason.

    What the session holds already must be the beginning of the prompt, and shorter than it. When
    the context is full the generation ends with "length". Uses the session until the generator
    ends or is closed.
    """
    writer = Writer(
        prompt_ids,
        config,
        tokenizer,
        session.context_length,
        held=session.position,
        continuation=continuation,
    )
    start = time.perf_counter()
    chunk = writer.take(evaluate(session, writer.pending), start)
    yield chunk
    session.expect(writer.remaining)
    lookup = PromptLookup(prompt_ids, config.prompt_lookup_num_tokens)
    while not writer.finished:
        start = time.perf_counter()
        lookup.push(chunk.token_id)
        draft = lookup.draft(writer.remaining - 1)
        if not draft:
            ids, logits = _next_logits(session, writer)
            chunk = writer.take(logits, start, ids)
            yield chunk
            continue
        for chunk in _checked_draft(session, writer, lookup, draft, start):
            yield chunk


def _next_logits(session: Session, writer: Writer) -> tuple[Ids | None, Logits]:
    """Append the pending token: (ids, their logits), or (None, all logits)."""
    wanted = writer.wanted() if session.screened else None
    if wanted is None:
        return None, session.forward(writer.pending)
    found: list[tuple[Ids, Logits]] = session.forward_top(writer.pending, *wanted)
    return found[0]


def _draft_logits(
    session: Session, writer: Writer, ids: list[int]
) -> Iterable[tuple[Ids | None, Logits]]:
    """Append ids: for each of them what _next_logits gives."""
    wanted = writer.wanted() if session.screened and len(ids) <= SEARCHED_ROWS else None
    if wanted is None or wanted[1] is not None:  # what is listed changes with each token
        return [(None, row) for row in session.forward(ids, logits="all")]
    found: list[tuple[Ids, Logits]] = session.forward_top(ids, *wanted, rows="all")
    return found


def _checked_draft(
    session: Session, writer: Writer, lookup: PromptLookup, draft: list[int], start: float
) -> list[Chunk]:
    """Evaluate the pending token and a draft in one step; the chunks of what holds of it.

    Every token is sampled from the logits it would have been sampled from without a draft, so
    tokens and distribution are those of plain decoding.
    """
    first = session.position
    rows = _draft_logits(session, writer, [*writer.pending, *draft])
    chunks: list[Chunk] = []
    for (ids, row), guess in zip(rows, [*draft, None], strict=True):
        chunks.append(writer.take(row, start, ids))
        start = time.perf_counter()
        if writer.finished or chunks[-1].token_id != guess:
            break
    for chunk in chunks[:-1]:
        lookup.push(chunk.token_id)
    lookup.judge(len(draft), len(chunks) - 1)
    session.truncate(first + len(chunks))
    return chunks


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

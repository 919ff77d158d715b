"""A loaded model: its file, configuration, tokenizer and network joined."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnet_cy import architectures, chat, checks, embedding, engine, hub, memory, screening
from bitnet_cy.batch import Batch
from bitnet_cy.errors import FormatError, OptionError, UnsupportedError
from bitnet_cy.formats import gguf
from bitnet_cy.generation import Chunk, Generation, GenerationConfig, Writer, check_fits, run
from bitnet_cy.sessions import SessionPool
from bitnet_cy.threads import ThreadChoice, choose
from bitnet_cy.tokenizer import Tokenizer, from_gguf

DEFAULT_CONTEXT = 4096


def embedded_model() -> Path:
    """The path of the small model in the package."""
    return Path(__file__).parent / "models" / "tales.gguf"


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    threads: int | None = None,
    context_length: int | None = None,
    kv_dtype: str = "float16",
    weights: str = "auto",
    activation: str | None = None,
    activation_dtype: str | None = None,
    pre: str | None = None,
    head: str = "auto",
) -> Model:
    """Open a ternary model for generating text.

    Arguments
        path: a GGUF file; None opens the small model in the package. What is no file here and has
            the form "org/name", "org/name@revision" or "org/name:file.gguf" is a repository of the
            Hugging Face Hub, and is downloaded unless it is in the cache (bitnet_cy.hub.pull).
        revision: of the repository: a branch, a tag or a commit.
        threads: threads to compute with; None takes OMP_NUM_THREADS, else the physical cores
            within the affinity mask and the cgroup's quota. The text is the same for any number.
        context_length: the most tokens of prompt and text together. None takes the model's own
            length, at most 4096, because the memory of the KV cache grows with it.
        kv_dtype: "float16", "float32" or "int8", the type of the KV cache. Int8 takes little more
            than half the memory of float16, and rounds more.
        weights: how the ternary weights lie in memory: "2bit", as in I2_S files, "1.6bit", five in
            a byte, or "auto": what the file holds, or a copy in 1.6 bits where a few milliseconds
            of measuring show that this machine reads it faster. The text is the same.
        activation: "relu2", "silu" or "gelu", where the file does not say and the family leaves
            it open.
        activation_dtype: what weights are multiplied with. "int8" quantizes each token's values,
            as BitNet b1.58 models were trained to bear; "float32" does not, for models whose
            weights alone are ternary. None goes by the file.
        pre: the rule that splits text before tokenizing, such as "llama-bpe", where the file
            names none and its vocabulary is not a known one.
        head: how the largest logits are found, the same ones in either way: "full" reads the
            whole output head for each token, "screened" keeps a copy of about half its size and
            reads the rows in question, "auto" does so where it pays.

    Weights that run as the file holds them stay in it, mapped; the tokenizer is read when it is
    first used.
    Raises FormatError (a file that is damaged, or none), UnsupportedError (a model that is not
    ternary or of an unknown kind), OptionError, ResourceError (too large for the memory), and
    DownloadError (a repository that cannot be had).
    """
    choice = choose(threads, openmp=bool(engine.info()["openmp"]))
    checks.member("kv_dtype", kv_dtype, tuple(engine.KV_DTYPES))
    checks.member("head", head, screening.CHOICES)
    checks.member("weights", weights, architectures.CHOICES)
    file = _open(path, revision)
    config = architectures.describe(file, activation=activation, activation_dtype=activation_dtype)
    return Model(file, config, choice, context_length, kv_dtype, weights, pre, head)


class Model:
    """A loaded model. It never changes, so Python threads may share it and generate at once.

    path: the file. architecture: its family, as the file names it. config: its shape.
    context_length: tokens a generation may hold. threads: how many, and why.
    network: the engine's view of the weights. weights: in which layout they run, and why.
    """

    def __init__(
        self,
        file: gguf.GGUFFile,
        config: architectures.ModelConfig,
        threads: ThreadChoice,
        context_length: int | None,
        kv_dtype: str,
        weights: str,
        pre: str | None,
        head: str,
    ) -> None:
        self.path, self.architecture = file.path, config.architecture
        self.config, self.threads, self.kv_dtype = config, threads, kv_dtype
        longest, note = config.context_length, ", which this model allows"
        asked = min(longest, DEFAULT_CONTEXT) if context_length is None else context_length
        self.context_length = checks.whole("context_length", asked, 1, longest, note)
        self._file, self._pre = file, pre
        self._require(file.nbytes, "")
        left = memory.available()
        self.network, self.weights = architectures.build(
            file,
            config,
            threads=threads.count,
            weights=weights,
            room=None if left is None else left - file.nbytes - self.kv_cache_nbytes,
        )
        self._require(
            file.nbytes + self.kv_cache_nbytes, f" with a context of {self.context_length} tokens"
        )
        self._screen_after = screening.tokens_worth_it(self.network, head, self.path.name)
        self._pool = SessionPool(self.new_session)

    def _require(self, nbytes: int, what: str) -> None:
        remedy = "take a smaller context_length, a smaller model, or a machine with more memory"
        memory.require(nbytes, self.path.name + what, remedy)

    def __repr__(self) -> str:
        return f"<bitnet_cy.Model {self.path.name}: {self.architecture}, threads {self.threads}>"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer stored in the file. Raises FormatError if there is none that fits."""
        found = from_gguf(self._file, self._pre)
        if found.vocab_size != self.config.vocab_size:
            raise FormatError(
                f"{self.path.name} has a vocabulary of {found.vocab_size} tokens and a network for "
                f"{self.config.vocab_size}; the two must be equal: convert the model again"
            )
        return found

    @property
    def kv_cache_nbytes(self) -> int:
        """Bytes of one session's full KV cache."""
        return engine.cache_nbytes(self.config.shape(), self.context_length, self.kv_dtype)

    @property
    def memory_breakdown(self) -> dict[str, dict[str, int]]:
        """Bytes of the weights and of one session's full KV cache, by what they are for.

        {"ternary": {"mapped": bytes, "copied": bytes}, ...}: mapped bytes are the file's own
        pages, which the system may drop and read again.
        """
        parts = {name: dict(part) for name, part in self.network.parts.items()}
        if self.network.screen is not None:
            parts["head screen"] = {"mapped": 0, "copied": self.network.screen.nbytes}
        return parts | {"KV cache": {"mapped": 0, "copied": self.kv_cache_nbytes}}

    @property
    def nbytes_per_token(self) -> int:
        """Bytes of weights read per decoded token: of a separate embedding only one row."""
        weights = int(self.network.nbytes + self.network.mapped_nbytes)
        embedding = self._file.tensors["token_embd.weight"].nbytes
        return weights if self.config.tied_head else weights - embedding

    def generate(
        self,
        prompt: str | Sequence[int],
        config: GenerationConfig | None = None,
        **options: Any,
    ) -> Generation:
        """Continue a prompt and return the whole text with its numbers.

        Arguments
            prompt: text, or token ids. Text is encoded as the file asks (with BOS or without);
                special tokens in it are plain text. An empty text starts from BOS.
            config, options: fields of GenerationConfig; options override config. `max_tokens`
                is accepted for max_new_tokens.

        Raises OptionError for a bad option or prompt, ContextError if the prompt does not fit.
        """
        ids, settings = self._prompt_ids(prompt), _settings(config, options)
        return Generation.from_chunks(ids, self._chunks(ids, settings))

    def stream(
        self,
        prompt: str | Sequence[int],
        config: GenerationConfig | None = None,
        **options: Any,
    ) -> Generator[Chunk, None, None]:
        """Like generate, but gives each token's Chunk as it comes. Closing it early is fine."""
        return self._chunks(self._prompt_ids(prompt), _settings(config, options))

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        config: GenerationConfig | None = None,
        **options: Any,
    ) -> Generation:
        """Answer a conversation, using the model's chat template.

        `messages` are mappings with "role" ("system", "user" or "assistant") and "content".
        Raises OptionError for other messages, UnsupportedError if the model cannot chat.
        """
        ids, settings = self._chat_ids(messages), _settings(config, options)
        return Generation.from_chunks(ids, self._chunks(ids, settings, chat=True))

    def chat_stream(
        self,
        messages: Sequence[Mapping[str, str]],
        config: GenerationConfig | None = None,
        **options: Any,
    ) -> Generator[Chunk, None, None]:
        """Like chat, but gives each token's Chunk as it comes.

        What an earlier turn of the same conversation left in a KV cache is not computed again.
        """
        return self._chunks(self._chat_ids(messages), _settings(config, options), chat=True)

    def generate_batch(
        self,
        prompts: Sequence[str | Sequence[int]],
        config: GenerationConfig | None = None,
        *,
        batch_size: int = 8,
        **options: Any,
    ) -> list[Generation]:
        """Continue several prompts, up to batch_size at once, each as generate would alone.

        One step reads the weights once for the whole batch, so together they finish much sooner
        than one by one. A prompt starts as soon as another has finished. Options as in generate;
        prompt_lookup_num_tokens has no effect here. Raises what generate raises, for any prompt,
        before the first token.
        """
        if isinstance(prompts, str) or not isinstance(prompts, Sequence):
            raise OptionError(f"prompts is {prompts!r:.60}; give a list of prompts")
        batch_size = checks.whole("batch_size", batch_size, 1, 64)
        settings = _settings(config, options)
        waiting = [self._prompt_ids(prompt) for prompt in prompts]
        batch = Batch(engine.forward_together)
        chunks = batch.run(
            len(waiting), batch_size, lambda key: self._join(batch, key, waiting[key], settings)
        )
        return [
            Generation.from_chunks(ids, parts) for ids, parts in zip(waiting, chunks, strict=True)
        ]

    def _join(self, batch: Batch, key: int, ids: list[int], config: GenerationConfig) -> None:
        """Add a prompt to a batch, with a session just large enough for it."""
        continuation = any(self.tokenizer.token_bytes(token) for token in ids)
        writer = Writer(ids, config, self.tokenizer, self.context_length, continuation=continuation)
        length = min(self.context_length, len(ids) + writer.remaining)
        batch.add(key, self.new_session(length), writer)

    def embed(
        self,
        texts: Sequence[str | Sequence[int]],
        *,
        pooling: str | None = None,
        normalize: bool = True,
        batch_size: int = 32,
    ) -> NDArray[np.float32]:
        """Vectors of texts: float32 [len(texts), hidden_size].

        Arguments
            texts: of any lengths, or lists of token ids. Text is encoded as the file asks; what
                the model was trained to read before a text (such as "query: ") is the caller's.
            pooling: "mean" of the tokens' vectors, "cls" (the first) or "last"; None: the file's.
            normalize: give vectors of length 1, whose dot products are cosines.
            batch_size: most texts computed at once. A text's vector does not depend on it.

        Raises OptionError for a bad option or text, ContextError for a text that is too long.
        """
        if isinstance(texts, (str, bytes)) or not isinstance(texts, Sequence):
            raise OptionError(f"texts is {texts!r:.60}; give a list of texts")
        pooling = embedding.chosen_pooling(pooling, self.config.pooling)
        batch_size = checks.whole("batch_size", batch_size, 1, 1024)
        ids = [self._text_ids(text) for text in texts]
        threads = self.threads.count
        return embedding.embed(self.network, ids, pooling, normalize, batch_size, threads)

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """The logits after each token: float32 [len(ids), vocab_size]. Needs no tokenizer."""
        checked = self._checked_ids(ids)
        nbytes = len(checked) * self.config.vocab_size * 4
        memory.require(nbytes, f"the logits of {len(checked)} tokens", "take fewer tokens at once")
        with self._pool.lend(checked) as loan:
            logits: NDArray[np.float32] = loan.session.forward(checked, logits="all")
        return logits

    def new_session(self, context_length: int | None = None) -> engine.Session:
        """An empty engine session of this model, for evaluating tokens step by step."""
        if not self.config.causal:
            raise UnsupportedError(
                f"{self.path.name} sees texts from both sides and cannot continue them; it gives "
                "vectors of texts: use embed"
            )
        length = context_length or self.context_length
        nbytes = self.kv_cache_nbytes // self.context_length * length
        name = f"the KV cache of {length} tokens"
        memory.require(nbytes, name, "take a smaller context_length, or fewer prompts at once")
        session = engine.Session(
            self.network,
            context_length=length,
            threads=self.threads.count,
            kv_dtype=self.kv_dtype,
        )
        session.screen_after = self._screen_after
        return session

    def _chunks(
        self, ids: list[int], config: GenerationConfig, chat: bool = False
    ) -> Generator[Chunk, None, None]:
        tokenizer = self.tokenizer
        continuation = not chat and any(tokenizer.token_bytes(token) for token in ids)

        def chunks() -> Generator[Chunk, None, None]:
            with self._pool.lend(ids, reuse=chat) as loan:
                for chunk in run(loan.session, ids, config, tokenizer, continuation):
                    loan.ids.append(chunk.token_id)
                    yield chunk

        return chunks()

    def _require_generative(self) -> None:
        if self.config.pooling is not None:
            raise UnsupportedError(
                f"{self.path.name} is an embedding model and writes no text; use embed"
            )

    def _prompt_ids(self, prompt: str | Sequence[int]) -> list[int]:
        self._require_generative()
        return self._text_ids(prompt)

    def _text_ids(self, prompt: str | Sequence[int]) -> list[int]:
        if not isinstance(prompt, str):
            return self._checked_ids(prompt)
        ids = self.tokenizer.encode(prompt)
        if not ids and self.tokenizer.bos_id is not None:
            ids = [self.tokenizer.bos_id]
        if not ids:
            raise OptionError("the prompt is empty and this model has no BOS token; give some text")
        return self._checked_ids(ids)

    def _chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        self._require_generative()
        return self._checked_ids(chat.encode(messages, self.tokenizer, self.architecture))

    def _checked_ids(self, ids: Any) -> list[int]:
        """Token ids as a list of int, all in the vocabulary and few enough for the context."""
        if isinstance(ids, (str, bytes)) or not isinstance(ids, (Sequence, np.ndarray)):
            raise OptionError(f"the prompt is {ids!r:.60}; give text or a list of token ids")
        most = self.config.vocab_size - 1
        checked = [checks.whole("token id", token, 0, most, ": the vocabulary") for token in ids]
        if not checked:
            raise OptionError("the prompt has no tokens; give at least one")
        check_fits(len(checked), self.context_length, self.config.context_length)
        return checked


def _open(path: Any, revision: Any) -> gguf.GGUFFile:
    if revision is not None and not isinstance(revision, str):
        raise OptionError(f"revision is {revision!r}; give a branch, a tag or a commit")
    if path is None and revision is None:
        return gguf.read(embedded_model())
    if not isinstance(path, (str, os.PathLike)):
        raise OptionError(f"path is {path!r}; give a GGUF file or the name of a repository")
    return gguf.read(hub.locate(path, revision))


def _settings(config: GenerationConfig | None, options: dict[str, Any]) -> GenerationConfig:
    if config is not None and not isinstance(config, GenerationConfig):
        raise OptionError(f"config is {config!r}; give a GenerationConfig, or options by name")
    return (config or GenerationConfig()).updated(**options)

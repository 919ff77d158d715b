"""llama.cpp, as the package xllamacpp brings it, in a process of its own.

    python oracle_llama_cpp.py MODEL <requests >answers     (both are JSON lists)

A request is {"generate": ids, "count": n, "vocab": size} or {"tokenize": text, "special": bool}.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def ask(model: Path, requests: Sequence[dict[str, Any]]) -> Any:
    """The answers of llama.cpp running a model."""
    command = [sys.executable, __file__, str(model)]
    done = subprocess.run(
        command, input=json.dumps(list(requests)), capture_output=True, text=True, timeout=120
    )
    if done.returncode:
        raise RuntimeError(f"llama.cpp on {model.name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def generate(
    model: Path, prompts: Sequence[Sequence[int]], count: int, vocab: int
) -> list[tuple[list[int], np.ndarray]]:
    """Greedy tokens of each prompt, and the log-probabilities float64 [count, vocab] of each."""
    answers = ask(model, [{"generate": ids, "count": count, "vocab": vocab} for ids in prompts])
    return [(tokens, np.array(rows)) for tokens, rows in answers]


def tokenize(model: Path, texts: Sequence[tuple[str, bool]]) -> list[list[int]]:
    """The ids of texts, each with whether special tokens in it are parsed; BOS as the file says."""
    return ask(model, [{"tokenize": text, "special": special} for text, special in texts])


def _main() -> None:
    server = _server(Path(sys.argv[1]))
    answers = [
        _tokenize(server, request) if "tokenize" in request else _generate(server, request)
        for request in json.load(sys.stdin)
    ]
    print("\n" + json.dumps(answers), flush=True)
    os._exit(0)  # the server takes seconds to shut down


def _server(model: Path) -> Any:
    """One thread, and the cache in float32, so that what differs is the quantization."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx = 128
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup = params.fit_params = False
    params.verbosity = -1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return xllamacpp.Server(params)


def _generate(server: Any, request: dict[str, Any]) -> tuple[list[int], list[list[float]]]:
    answer = server.handle_completions(
        {
            "prompt": request["generate"], "max_tokens": request["count"], "temperature": 0,
            "cache_prompt": False, "logprobs": request["vocab"],
        }
    )  # fmt: skip
    tokens, rows = [], []
    for step in answer["choices"][0]["logprobs"]["content"]:
        tokens.append(step["id"])
        best = {one["id"]: one["logprob"] for one in step["top_logprobs"]}
        rows.append([best[token] for token in range(len(best))])
    return tokens, rows


def _tokenize(server: Any, request: dict[str, Any]) -> list[int]:
    body = {
        "content": request["tokenize"], "add_special": True, "parse_special": request["special"],
    }  # fmt: skip
    address = server.listening_address.rstrip("/") + "/tokenize"
    post = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(post, timeout=60) as reply:
        return json.load(reply)["tokens"]


if __name__ == "__main__":
    _main()

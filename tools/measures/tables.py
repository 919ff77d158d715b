"""Tables of the documentation, one function each, from the figures of a section."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from measures.record import figures

Section = Mapping[str, Any]
Rows = list[list[str]]

# The best published-source engine on one machine (two cores of AMD EPYC Zen 3 at 3.2 GHz, read
# bandwidth 31 GB/s, vpmaddubsw peak 410 G multiply-adds per second; 2B-4T shape, two threads):
# bitnet.cpp of January 2026 at 93 tok/s for 128 tokens and 20.7 decoded, ik_llama.cpp at 67.9 for
# 512. A token is 2.084 G multiply-adds.
PEER_SHARE = {128: 93 * 2.084 / 410, 512: 67.9 * 2.084 / 410}
PEER_TOKENS_PER_GB = 20.7 / 31
NONE = "-"


def cell(found: Iterable[Mapping[str, Any]], scale: float = 1.0, form: str = ".1f") -> str:
    """ "median (low to high)" of the one figure found, or a dash."""
    chosen = list(found)
    if not chosen:
        return NONE
    middle, low, high = (format(chosen[0][key] * scale, form) for key in ("median", "low", "high"))
    return middle if len(chosen[0]["samples"]) == 1 else f"{middle} ({low} to {high})"


def middle(found: Iterable[Mapping[str, Any]], scale: float = 1.0, form: str = ".1f") -> str:
    """The median alone."""
    chosen = list(found)
    return format(chosen[0]["median"] * scale, form) if chosen else NONE


def label_sets(section: Section, name: str) -> list[dict[str, Any]]:
    """The labels of every figure with this name, in their order."""
    return [figure["labels"] for figure in figures(section, name)]


def runs(sections: Mapping[str, Section]) -> Rows:
    """When and on what each section was measured."""
    rows = [["section", "date", "version, commit", "processor", "load before", "seconds", ""]]
    for name, section in sections.items():
        about = section["about"]
        rows.append([
            name, about["date"], f"{about['version']}, {about['commit']}",
            f"{about['cpu']}, {about['cores']} cores, {about['kernel']}",
            f"{about['load_average']:.2f}", f"{about['seconds']:.0f}", about.get("error", ""),
        ])  # fmt: skip
    return rows


def summary(sections: Mapping[str, Section]) -> Rows:
    """Prompt and decode speed of the fastest kernels, as generation uses them by default."""
    none: Section = {"figures": []}
    prompts, decoding = sections.get("prefill", none), sections.get("decode", none)
    threads = sorted({x["threads"] for x in label_sets(decoding, "decode")})
    table = [["threads", "prompt of 128", "of 512", "of 2048", "decode", "weights of a plain read"]]
    for count in threads:
        default = next(x for x in label_sets(decoding, "decode") if x["threads"] == count)
        found = [
            figures(prompts, "prompt", tokens=n, threads=count, kernel=default["kernel"])
            for n in (128, 512, 2048)
        ]
        share = figures(decoding, "ternary share of plain read", **default)
        speed = cell(figures(decoding, "decode", **default))
        table.append([str(count), *map(cell, found), speed, middle(share, 100, ".0f") + " %"])
    return table


def roofline(section: Section) -> Rows:
    names = list(dict.fromkeys(x["instruction"] for x in label_sets(section, "multiply-adds")))
    rows = [["threads", "plain read, GB/s", "of the mapped file", *(f"`{n}`, G/s" for n in names)]]
    for threads in sorted({x["threads"] for x in label_sets(section, "plain read")}):
        reads = [
            cell(figures(section, "plain read", threads=threads, source=source), 1e-9)
            for source in ("memory", "mapped file")
        ]
        peaks = [
            cell(figures(section, "multiply-adds", threads=threads, instruction=n), 1e-9, ".0f")
            for n in names
        ]
        rows.append([str(threads), *reads, *peaks])
    return rows


def decode(section: Section) -> Rows:
    rows = [["threads", "how", "tok/s", "weights, GB/s", "of a plain read", "tokens per GB",
             "of the best peer's"]]  # fmt: skip
    for labels in label_sets(section, "decode"):
        gb = figures(section, "tokens per GB of plain read", **labels)
        rows.append([
            str(labels["threads"]), how(labels), cell(figures(section, "decode", **labels)),
            cell(figures(section, "ternary read", **labels), 1e-9),
            cell(figures(section, "ternary share of plain read", **labels), 100, ".0f") + " %",
            middle(gb, 1, ".2f"), middle(gb, 1 / PEER_TOKENS_PER_GB, ".2f"),
        ])  # fmt: skip
    return rows


def token_time(section: Section) -> Rows:
    parts = ("ternary", "head", "attention", "other")
    rows = [["threads", "how", *(f"{part}, ms" for part in parts)]]
    for labels in label_sets(section, "decode"):
        times = [cell(figures(section, f"{part} time", **labels), 1e3) for part in parts]
        rows.append([str(labels["threads"]), how(labels), *times])
    return rows


def how(labels: Mapping[str, Any]) -> str:
    """The labels of a variant in words: kernel, layout of the weights, head."""
    return ", ".join(str(labels[key]) for key in ("kernel", "weights", "head") if key in labels)


def head(section: Section) -> Rows:
    """The head alone: the time of a search as a share of the full head's."""
    table = [["head of", "threads", "logits", "ms a token", "of the full head's"]]
    for labels in label_sets(section, "head time"):
        table.append([
            labels["head"], str(labels["threads"]), labels["logits"],
            cell(figures(section, "head time", **labels), 1e3, ".2f"),
            cell(figures(section, "share of the full head's time", **labels), 1, ".2f"),
        ])  # fmt: skip
    return table


def prefill(section: Section) -> Rows:
    rows = [["prompt", "threads", "kernel", "tok/s", "G multiply-adds/s", "of the AVX2 peak",
             "of the best peer's share", "attention"]]  # fmt: skip
    for labels in label_sets(section, "prompt"):
        share = figures(section, "share of peak", instruction="vpmaddubsw", **labels)
        peer = PEER_SHARE.get(labels["tokens"])
        rows.append([
            str(labels["tokens"]), str(labels["threads"]), labels["kernel"],
            cell(figures(section, "prompt", **labels)),
            middle(figures(section, "multiply-adds", **labels), 1e-9, ".0f"),
            cell(share, 100, ".0f") + " %", middle(share, 1 / peer, ".2f") if peer else NONE,
            middle(figures(section, "attention share of time", **labels), 100, ".0f") + " %",
        ])  # fmt: skip
    return rows


def rows(section: Section) -> Rows:
    kernels = list(dict.fromkeys(x["kernel"] for x in label_sets(section, "step")))
    table = [["rows", *(f"{kernel}, ms" for kernel in kernels),
              *(f"{kernel}, ms a row" for kernel in kernels)]]  # fmt: skip
    known = sorted({x["rows"] for x in label_sets(section, "step")})
    for n in (n for n in known if n in (1, 2, 3, 4, 5, 6, 8, 12, 16, 20, 32, 64, 128, 256, 600)):
        found = [figures(section, "step", rows=n, kernel=kernel) for kernel in kernels]
        table.append([
            str(n), *(cell(f, 1e3) for f in found), *(middle(f, 1e3 / n, ".2f") for f in found)
        ])  # fmt: skip
    return table


def batch(section: Section) -> Rows:
    counts = sorted({x["sequences"] for x in label_sets(section, "step")})
    threads = sorted({x["threads"] for x in label_sets(section, "step")})
    header = [(f"ms a step, {t} threads", f"tok/s, {t} threads") for t in threads]
    table = [["sequences", *(word for pair in header for word in pair)]]
    for count in counts:
        words = []
        for t in threads:
            words.append(cell(figures(section, "step", sequences=count, threads=t), 1e3))
            words.append(middle(figures(section, "rate", sequences=count, threads=t)))
        table.append([str(count), *words])
    return table


def speculation(section: Section) -> Rows:
    table = [["text", "guesses", "threads", "tok/s", "against none"]]
    for labels in label_sets(section, "decode"):
        table.append([
            labels["text"], str(labels["lookup"]), str(labels["threads"]),
            cell(figures(section, "decode", **labels), 1, ".0f"),
            cell(figures(section, "gain", **labels), 1, ".2f"),
        ])  # fmt: skip
    return table


def neighbour(section: Section) -> Rows:
    table = [["model", "threads", "alone, tok/s", "beside a busy process", "kept"]]
    for labels in label_sets(section, "share kept"):
        rates = [
            cell(figures(section, "decode", place=place, **labels))
            for place in ("alone", "beside a busy process")
        ]
        kept = cell(figures(section, "share kept", **labels), 100, ".0f") + " %"
        table.append([labels["model"], str(labels["threads"]), *rates, kept])
    rest = cell(figures(section, "processor use at rest"), 100, ".1f")
    return [*table, ["at rest", "", "", f"{rest} % of one core", ""]]


def start(section: Section) -> Rows:
    names = ("import", "load", "first token after load")
    table = [["model", *(f"{name}, s" for name in names), "peak memory, MB", "of what is known"]]
    for labels in label_sets(section, "import"):
        times = [cell(figures(section, name, **labels), 1, ".3f") for name in names]
        (peak,), (known,) = (figures(section, f"{w} memory", **labels) for w in ("peak", "known"))
        memory = [f"{peak['median'] / 1e6:.0f}", f"{peak['median'] / known['median']:.2f}"]
        table.append([labels["model"], *times, *memory])
    return table


def yardstick(section: Section) -> Rows:
    table = [["stage", "threads", "peer, tok/s", "bitnet_cy, tok/s", "ratio"]]
    for labels in label_sets(section, "ratio"):
        rates = [
            cell(figures(section, "rate", engine=engine, **labels))
            for engine in ("peer", "bitnet_cy")
        ]
        ratio = cell(figures(section, "ratio", **labels), 1, ".2f")
        table.append([labels["stage"], str(labels["threads"]), *rates, ratio])
    return table


def loss(section: Section) -> Rows:
    from math import exp

    table = [["variant", "divergence, nats", "same likeliest token", "perplexity"]]
    for labels in label_sets(section, "divergence"):
        mean = {
            name: sum(f["samples"]) / len(f["samples"])
            for name in ("divergence", "same likeliest token", "loss")
            for f in figures(section, name, **labels)
        }
        table.append([
            labels["variant"], f"{mean['divergence']:.2g}",
            f"{mean['same likeliest token']:.2%}", f"{exp(mean['loss']):.3f}",
        ])  # fmt: skip
    return table


TABLES: dict[str, tuple[str, Callable[[Section], Rows]]] = {
    "roofline": ("roofline", roofline),
    "decode": ("decode", decode),
    "token-time": ("decode", token_time),
    "head": ("head", head),
    "prefill": ("prefill", prefill),
    "rows": ("rows", rows),
    "batch": ("batch", batch),
    "speculation": ("speculation", speculation),
    "neighbour": ("neighbour", neighbour),
    "start": ("start", start),
    "yardstick": ("yardstick", yardstick),
    "loss": ("loss", loss),
}
"""Name of a table -> the section it shows, and how."""

OVERVIEWS: dict[str, Callable[[Mapping[str, Section]], Rows]] = {"runs": runs, "summary": summary}
"""Name of a table that shows several sections -> how."""

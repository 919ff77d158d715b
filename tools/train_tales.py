"""Train the embedded BitNet b1.58 tales model on plain-text books, measure it, export it.

    python tools/train_tales.py train --run RUN --minutes 90 BOOK.txt ...
    python tools/train_tales.py export --run RUN -o bitnet_cy/models/tales.gguf
    python tools/train_tales.py evaluate --run RUN -m bitnet_cy/models/tales.gguf

Needs torch and tokenizers, which the package itself does not.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path

import torch
from tales import corpus, export, vocabulary
from tales.network import Network, Shape
from tales.training import Recipe, Trainer, bits


def prepare(run: Path, books: list[Path], seed: int, vocab: int) -> None:
    """Split and clean the books, hold out a tenth of the tales, learn the vocabulary."""
    train, held = corpus.hold_out(corpus.read_tales(books), 0.1, seed)
    if not train or not held:
        raise SystemExit(
            f"{len(books)} text files hold {len(train) + len(held)} tales that differ enough to "
            "leave some out; give UTF-8 books of at least ten tales"
        )
    run.mkdir(parents=True, exist_ok=True)
    vocabulary.train((tale.text for tale in train), vocab).save(str(run / "tokenizer.json"))
    split = {
        side: [{"title": t.title, "book": t.book, "text": t.text, "printed": t.printed} for t in s]
        for side, s in (("train", train), ("held_out", held))
    }
    (run / "tales.json").write_text(json.dumps(split, ensure_ascii=False, indent=0), "utf-8")


def read_split(run: Path) -> dict[str, list[dict[str, str]]]:
    split: dict[str, list[dict[str, str]]] = json.loads((run / "tales.json").read_text("utf-8"))
    return split


def train(options: argparse.Namespace) -> None:
    run = options.run
    if not options.steps and not options.minutes:
        raise SystemExit("how long to train is not said; give --steps or --minutes")
    if not (run / "tales.json").exists():
        prepare(run, options.books, options.seed, options.vocab)
    split, tokenizer = read_split(run), vocabulary.load(run / "tokenizer.json")
    documents = [
        (vocabulary.document(tokenizer, t["text"]), vocabulary.document(tokenizer, t["printed"]))
        for t in split["train"]
    ]
    held = [vocabulary.document(tokenizer, t["text"]) for t in split["held_out"]]
    held_bytes = sum(len(t["text"].encode()) for t in split["held_out"])
    shape = Shape(**{f.name: getattr(options, f.name) for f in fields(Shape)})
    recipe = Recipe(**{f.name: getattr(options, f.name) for f in fields(Recipe)})
    trainer = Trainer(run, shape, recipe, compiled=options.compile)
    trainer.log(
        parameters=sum(p.numel() for p in trainer.network.parameters()),
        train_tokens=sum(len(d[0]) for d in documents),
        held_tokens=sum(map(len, held)),
        held_bytes=held_bytes,
    )
    trainer.run(documents, held, held_bytes)


def export_best(options: argparse.Namespace) -> None:
    """Write the network with the best held-out measure (or the last one) as a GGUF file."""
    name = "checkpoint.pt" if options.last else "best.pt"
    state = torch.load(options.run / name, weights_only=True)
    network = Network(Shape(**state["shape"]))
    network.load_state_dict(state["network"])
    export.write_model(options.output, network, vocabulary.load(options.run / "tokenizer.json"))
    print(json.dumps({"file": options.output.name, "bytes": options.output.stat().st_size}))


def evaluate(options: argparse.Namespace) -> None:
    """Bits per UTF-8 byte of a GGUF file on whole held-out tales, end of text included."""
    network, tales = export.read_network(options.model), read_split(options.run)["held_out"]
    tokenizer = vocabulary.load(options.run / "tokenizer.json")
    size = sum(len(t["text"].encode()) for t in tales)
    documents = [vocabulary.document(tokenizer, t["text"]) for t in tales]
    stride = options.stride or network.shape.context
    total = bits(network, documents, stride)
    measured = {
        "tales": len(tales),
        "bytes": size,
        "tokens": sum(len(d) - 1 for d in documents),
        "stride": stride,
        "bits_per_byte": round(total / size, 4),
    }
    print(json.dumps(measured))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = top.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("train", help="train, or go on from the run's checkpoint")
    verb.add_argument("books", type=Path, nargs="*", help="UTF-8 text files (not when resuming)")
    verb.add_argument("--run", type=Path, required=True, help="folder of checkpoints and log")
    verb.add_argument("--compile", action="store_true", help="fuse operations by torch.compile")
    defaults = [(f.name, f.default) for f in (*fields(Shape), *fields(Recipe))]
    for name, default in defaults:
        kind = float if name == "minutes" else int if default is None else type(default)
        verb.add_argument("--" + name.replace("_", "-"), type=kind, default=default)
    verb.set_defaults(run_verb=train)
    verb = verbs.add_parser("export", help="write the best network as GGUF")
    verb.add_argument("--run", type=Path, required=True)
    verb.add_argument("-o", "--output", type=Path, required=True)
    verb.add_argument("--last", action="store_true", help="the last checkpoint, not the best")
    verb.set_defaults(run_verb=export_best)
    verb = verbs.add_parser("evaluate", help="held-out bits per byte of an exported file")
    verb.add_argument("--run", type=Path, required=True)
    verb.add_argument("-m", "--model", type=Path, required=True)
    verb.add_argument("--stride", type=int, help="tokens a window moves (default: the context)")
    verb.set_defaults(run_verb=evaluate)
    return top


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    options.run_verb(options)


if __name__ == "__main__":
    main()

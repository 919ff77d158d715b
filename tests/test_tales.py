"""The embedded model computes what its training code computes, and writes English."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

import bitnet_cy
from bitnet_cy.formats import gguf

MODELS = Path(bitnet_cy.__file__).parent / "models"
FILE, CARD = MODELS / "tales.gguf", MODELS / "tales.md"
CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"
PASSAGE = (
    "Once upon a time there lived a king who had three sons, and the youngest of them was the "
    "bravest.\n\nOne day the king said to him: \u2018My son, you must go into the wood and fetch "
    'me the golden bird.\u2019 So the prince took his horse and rode away.\n\n"Who are you?" '
    'asked the old woman; "and what is it that you want?"'
)
OPENINGS = ("Once upon a time", "There was once a poor woodcutter who", "The princess said,")
# A last-bit difference before an activation is rounded moves it by one step of 1/127 of the
# token's largest; over four layers that came to at most 0.14, 0.015 on average, in logits up to 17.
LOGIT_TOLERANCE = 0.3
MEAN_LOGIT_TOLERANCE = 0.03
PLAIN_WORDS = {"the", "and", "to", "a", "of", "was", "he", "she", "in", "that", "it", "his", "her"}


@pytest.fixture(scope="module")
def model() -> bitnet_cy.Model:
    return bitnet_cy.load(kv_dtype="float32")


def card_number(name: str) -> float:
    """The first number in the row `name` of the card's tables."""
    row = re.search(rf"^\| {re.escape(name)} \|([^|]*)\|", CARD.read_text("utf-8"), re.MULTILINE)
    assert row, f"the card has no row {name!r}"
    found = re.search(r"[\d,]+(?:\.\d+)?", row[1])
    assert found, f"the card's row {name!r} has no number"
    return float(found[0].replace(",", ""))


# Agreement with the training code


@pytest.fixture(scope="module")
def trained():  # type: ignore[no-untyped-def]
    pytest.importorskip("torch", reason="the training code needs torch")
    from tales import export

    return export.read_network(FILE)


def reference_logits(trained, ids: list[int]) -> np.ndarray:  # type: ignore[no-untyped-def]
    import torch

    with torch.no_grad():
        logits: np.ndarray = trained(torch.tensor([ids]))[0].numpy()
    return logits


def test_logits_are_those_of_the_training_code(model: bitnet_cy.Model, trained) -> None:  # type: ignore[no-untyped-def]
    ids = model.tokenizer.encode(PASSAGE)
    difference = np.abs(model.logits(ids) - reference_logits(trained, ids))
    assert difference.max() < LOGIT_TOLERANCE
    assert difference.mean() < MEAN_LOGIT_TOLERANCE


@pytest.mark.parametrize("opening", OPENINGS)
def test_greedy_tokens_are_those_of_the_training_code(
    model: bitnet_cy.Model,
    trained,  # type: ignore[no-untyped-def]
    opening: str,
) -> None:
    generation = model.generate(opening, max_new_tokens=48)
    ids = list(generation.prompt_token_ids)
    for token in generation.token_ids:
        logits = reference_logits(trained, ids)
        # Where two tokens are as good as equal, either is right.
        assert logits[-1, token] > logits[-1].max() - LOGIT_TOLERANCE
        ids.append(token)


def test_the_vocabulary_is_read_as_it_was_trained(model: bitnet_cy.Model) -> None:
    from tales import vocabulary
    from tokenizers import Tokenizer, models

    with gguf.read(FILE) as file:
        tokens = file.metadata["tokenizer.ggml.tokens"]
        merges = [tuple(m.split(" ")) for m in file.metadata["tokenizer.ggml.merges"]]
    index = {token: i for i, token in enumerate(tokens)}
    trained = vocabulary.with_rules(Tokenizer(models.BPE(index, merges, ignore_merges=True)))
    for text in (PASSAGE, "  two  spaces\n\n\nand 12345 days; na\u00efve \u96ea \U0001f43a!"):
        assert model.tokenizer.encode(text, add_special_tokens=False) == trained.encode(text).ids
        assert model.tokenizer.decode(model.tokenizer.encode(text)) == text


# The KV cache

# Over 10,240 held-out tokens the logits with an int8 cache were at most 0.38 from those with a
# float32 one, 0.027 on average; with a float16 cache 0.25 and 0.022.
CACHE_TOLERANCE = 0.6
MEAN_CACHE_TOLERANCE = 0.06


@pytest.mark.parametrize("kv_dtype", ["float16", "int8"])
def test_a_smaller_cache_changes_the_logits_little(model: bitnet_cy.Model, kv_dtype: str) -> None:
    ids = model.tokenizer.encode(PASSAGE * 3)
    difference = np.abs(bitnet_cy.load(kv_dtype=kv_dtype).logits(ids) - model.logits(ids))
    assert 0 < difference.max() < CACHE_TOLERANCE
    assert difference.mean() < MEAN_CACHE_TOLERANCE


def test_an_int8_cache_predicts_text_as_well(model: bitnet_cy.Model) -> None:
    exact = bits_per_byte(model, PASSAGE)
    assert bits_per_byte(bitnet_cy.load(kv_dtype="int8"), PASSAGE) == pytest.approx(exact, rel=0.01)


# The card


def test_the_card_states_the_size_and_shape_of_the_file(model: bitnet_cy.Model) -> None:
    with gguf.read(FILE) as file:
        parameters = sum(int(np.prod(t.shape)) for t in file.tensors.values())
        ternary = sum(int(np.prod(t.shape)) for t in file.tensors.values() if t.type_name == "I2_S")
    assert card_number("File size in bytes") == FILE.stat().st_size
    assert card_number("Parameters") == parameters
    assert card_number("of them ternary") == ternary
    assert card_number("Vocabulary") == model.config.vocab_size
    assert card_number("Layers") == model.config.n_layers
    assert card_number("Hidden size") == model.config.hidden_size
    assert card_number("FFN size") == model.config.ffn_size
    assert card_number("Context in tokens") == model.config.context_length


def test_the_file_is_small_and_the_stated_measure_meets_its_bound() -> None:
    assert FILE.stat().st_size < 6_000_000
    assert card_number("Held-out bits per byte") < 1.85


def bits_per_byte(model: bitnet_cy.Model, text: str) -> float:
    """Bits per UTF-8 byte of a whole text, in windows of the context, end of text included."""
    ids = [*model.tokenizer.encode(text), model.tokenizer.eos_id or 0]
    length, total = model.context_length, 0.0
    for start in range(0, len(ids) - 1, length):
        window = ids[start : start + length + 1]
        logits = model.logits(window[:-1]).astype(np.float64)
        top = logits.max(axis=1)
        log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        total += float((log_sum - logits[np.arange(len(window) - 1), window[1:]]).sum())
    return total / np.log(2) / len(text.encode())


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the training text is not at hand")
def test_tales_left_out_of_training_are_predicted_as_the_card_says(model: bitnet_cy.Model) -> None:
    from tales import corpus

    tales = corpus.read_tales(p for p in CORPUS.glob("*.txt") if p.name != "README.md")
    held = corpus.hold_out(tales, 0.1, seed=0)[1]
    card = CARD.read_text("utf-8")
    assert len(held) == card_number("Held-out tales")
    assert all(tale.title in card for tale in held)
    short = sorted(held, key=lambda tale: len(tale.text))[10:16]
    measured = np.mean([bits_per_byte(model, tale.text) for tale in short])
    assert measured == pytest.approx(card_number("Held-out bits per byte"), rel=0.12)


# The text


def test_sampled_text_reads_as_words_of_the_tales(model: bitnet_cy.Model) -> None:
    for seed, opening in enumerate(OPENINGS):
        text = model.generate(opening, max_new_tokens=120, temperature=0.7, seed=seed).text
        words = re.findall(r"[a-z]+", text.lower())
        assert len(words) > 40
        assert sum(word in PLAIN_WORDS for word in words) > 0.15 * len(words)
        assert "\ufffd" not in text


def test_a_tale_ends_by_itself(model: bitnet_cy.Model) -> None:
    ending = "So they were married, and they lived happily ever after."
    endings = [
        model.generate(PASSAGE + "\n\n" + ending, max_new_tokens=200, temperature=0.8, seed=seed)
        for seed in range(8)
    ]
    stopped = [g for g in endings if g.finish_reason == "stop"]
    assert stopped
    assert all(model.tokenizer.eos_id not in g.token_ids[:-1] for g in stopped)
    assert all("<|end_of_text|>" not in g.text for g in stopped)


# Training


ANIMALS = ("fox", "wolf", "bear", "hare", "crow", "swan", "goose", "mouse", "otter", "heron")
WORDS = ("king", "went", "over", "hill", "and", "saw", "golden", "ring", "in", "wood", "so", "old")


def write_book(path: Path) -> None:
    """Ten invented tales, each under a title that stands apart."""
    rng = random.Random(5)
    parts = []
    for animal in ANIMALS:
        lines = [f"The {animal} {' '.join(rng.choices(WORDS, k=11))}." for _ in range(30)]
        parts.append(f"THE TALE OF THE {animal.upper()}\n\n" + "\n".join(lines))
    path.write_text("\n\n\n\n".join(parts), "utf-8")


def train(run: Path, book: Path, steps: int) -> None:
    import train_tales

    sizes = "--vocab 300 --hidden 128 --ffn 128 --layers 1 --heads 2 --kv-heads 1 --context 32"
    options = f"--run {run} --steps {steps} --batch 4 {sizes}"
    train_tales.main(["train", str(book), *options.split()])


def test_training_learns_resumes_and_exports_a_file_the_engine_runs(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the training code needs torch")
    import train_tales

    book, run, output = tmp_path / "book.txt", tmp_path / "run", tmp_path / "tiny.gguf"
    write_book(book)
    train(run, book, steps=6)
    train(run, book, steps=24)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    assert [entry["step"] for entry in log if "parameters" in entry] == [0, 6]
    assert log[-1]["step"] == 24
    measured = [entry["best"] for entry in log if "best" in entry]
    assert measured[-1] < measured[0]
    train_tales.main(["export", "--run", str(run), "-o", str(output)])
    model = bitnet_cy.load(output)
    assert model.config.n_layers == 1
    assert model.generate("The fox", max_new_tokens=5).token_ids


def test_held_out_tales_share_no_title_with_training(tmp_path: Path) -> None:
    from tales import corpus

    book = tmp_path / "book.txt"
    write_book(book)
    second = tmp_path / "second.txt"
    second.write_text(book.read_text("utf-8"), "utf-8")
    train_side, held = corpus.hold_out(corpus.read_tales([book, second]), 0.2, seed=3)
    assert len(held) == 4
    assert not {t.key for t in held} & {t.key for t in train_side}


def test_cleaning_joins_printed_lines_and_drops_notes(tmp_path: Path) -> None:
    from tales import corpus

    book = tmp_path / "book.txt"
    prose = "The old king rode out one morning with all his men and his (1) grey horse and\n"
    verse = "    Sing, bird,\n    sing low,\n    the corn will grow.\n"
    body = prose * 8 + "\n" + verse + "\n[Illustration: a horse]\n\n(1) Grimm.\n"
    book.write_text(f"PREFACE\n\n{prose * 9}\n\n\nTHE _GREY_ HORSE(2)\n\n{body}", "utf-8")
    (tale,) = corpus.read_tales([book])
    assert tale.title == "THE GREY HORSE"
    assert tale.text.startswith("THE GREY HORSE\n\nThe old king rode out one morning with all")
    assert "and his grey horse and The old king" in tale.text
    assert tale.text.endswith("\n\nSing, bird,\nsing low,\nthe corn will grow.")

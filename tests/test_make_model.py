"""Generated models: the exact shape and metadata of published files, and seeded content."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import make_model
import model_vocabulary
import numpy as np
import presets
import pytest
from random_weights import RandomWeights

from bitnet_cy.errors import FormatError, OptionError
from bitnet_cy.formats import gguf, ternary
from bitnet_cy.formats.gguf_writer import header

SHARED = Path(__file__).resolve().parents[2] / "shared" / "tokenizers"

# Ternary weights and embedding values of the published models.
WEIGHTS = {
    "bitnet-2b-4t": (2_084_044_800, 328_335_360),
    "bitnet-large": (679_477_248, 49_155_072),
    "bitnet-xl": (1_207_762_944, 65_540_096),
    "bitnet-3b": (3_221_504_000, 102_406_400),
    "falcon3-1b": (1_132_462_080, 268_435_456),
    "falcon-e-1b": (1_585_446_912, 67_108_864),
    "llama3-8b": (6_979_321_856, 525_336_576),
}
TENSORS = {"bitnet-2b-4t": 332, "falcon-e-1b": 219, "llama3-8b": 291}

KEYS_OF_THE_OFFICIAL_FILE = [
    "general.architecture",
    "general.name",
    "bitnet-b1.58.vocab_size",
    "bitnet-b1.58.context_length",
    "bitnet-b1.58.embedding_length",
    "bitnet-b1.58.block_count",
    "bitnet-b1.58.feed_forward_length",
    "bitnet-b1.58.rope.dimension_count",
    "bitnet-b1.58.attention.head_count",
    "bitnet-b1.58.attention.head_count_kv",
    "tokenizer.ggml.add_bos_token",
    "bitnet-b1.58.attention.layer_norm_rms_epsilon",
    "bitnet-b1.58.rope.freq_base",
    "general.file_type",
    "tokenizer.ggml.model",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.chat_template",
    "general.quantization_version",
]


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the vocabulary {name} is not beside the checkout")
    return path


def sources(name: str, **changes) -> list[gguf.TensorSource]:
    shape = replace(presets.PRESETS[name], **changes)
    return list(make_model.tensors(shape, RandomWeights(0), "I2_S", "F16"))


@pytest.mark.parametrize("name", WEIGHTS)
def test_presets_have_the_published_sizes(name):
    tensors = sources(name)
    trits = sum(np.prod(source.shape) for source in tensors if source.type_name == "I2_S")
    embedding = next(source for source in tensors if source.name == "token_embd.weight")
    assert (trits, np.prod(embedding.shape)) == WEIGHTS[name]
    assert len(tensors) == TENSORS.get(name, len(tensors))
    assert any(source.name == "output.weight" for source in tensors) == (
        name in ("falcon3-1b", "falcon-e-1b", "llama3-8b")
    )


@pytest.mark.parametrize("name", presets.PRESETS)
def test_one_layer_of_every_preset_reads_back(name, tmp_path):
    changes = {"layers": 1, "ffn": 128} if name != "tiny" else {}
    shape = presets.PRESETS[name]
    small = {"hidden": 128, "heads": 4, "kv_heads": 2, "head_dim": 32, **changes}
    path = make_model.make(name, tmp_path / "m.gguf", embedding="q8_0", **small)
    with gguf.read(path) as file:
        keys = file.metadata
        assert keys["general.architecture"] == shape.architecture
        assert len(keys["tokenizer.ggml.tokens"]) == shape.vocab_size
        assert len(set(keys["tokenizer.ggml.tokens"])) == shape.vocab_size
        assert keys["tokenizer.ggml.eos_token_id"] == shape.eos
        assert file.tensors["blk.0.attn_k.weight"].shape == (64, 128)
        assert ("blk.0.ffn_sub_norm.weight" in file.tensors) == shape.sub_norms
        for info in file.tensors.values():
            if info.type_name == "I2_S":
                ternary.decode("I2_S", file.raw(info.name), *info.shape)
            else:
                assert np.isfinite(file.array(info.name)).all()


def test_the_2b_preset_has_the_keys_and_the_flaws_of_the_official_file(tmp_path):
    path = make_model.make("bitnet-2b-4t", tmp_path / "m.gguf", layers=1, hidden=128, ffn=128)
    with gguf.read(path) as file:
        keys = file.metadata
        assert list(keys) == KEYS_OF_THE_OFFICIAL_FILE
        assert keys["tokenizer.ggml.eos_token_id"] == 128001
        assert keys["general.file_type"] == 40
        assert "BITNETAssistant" in keys["tokenizer.chat_template"]
        assert keys.typed("bitnet-b1.58.rope.freq_base").type == "f32"
        assert keys["tokenizer.ggml.tokens"][128009] == "<|eot_id|>"


def test_the_2b_preset_with_its_own_vocabulary_has_the_published_size():
    ranks = shared("llama3.tiktoken")
    shape = presets.PRESETS["bitnet-2b-4t"]
    vocabulary = model_vocabulary.from_file(ranks, shape.specials)
    assert (len(vocabulary.tokens), len(vocabulary.merges)) == (128256, 280147)
    metadata = presets.metadata(shape, vocabulary, "I2_S")
    tensors = sources("bitnet-2b-4t")
    start = len(header(metadata, tensors))
    start += -start % 32
    assert start == 8_351_360
    assert start + sum(source.nbytes for source in tensors) == 1_187_801_280


def test_1bitllm_presets_can_take_a_real_sentencepiece_vocabulary(tmp_path):
    vocab = shared("vocab-llama-spm.gguf")
    shape = presets.PRESETS["bitnet-large"]
    vocabulary = model_vocabulary.from_file(vocab, shape.specials).fill(shape.vocab_size)
    assert vocabulary.tokens[32000:] == ["<pad>", "</line>"]
    assert vocabulary.model == "llama"
    assert len(vocabulary.scores) == len(vocabulary.types) == 32002


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return make_model.make("tiny", tmp_path_factory.mktemp("tiny") / "tiny.gguf")


class TestTiny:
    def test_it_is_small_and_has_every_feature(self, tiny):
        assert tiny.stat().st_size < 600_000
        shape = presets.PRESETS["tiny"]
        assert shape.kv_heads < shape.heads
        assert shape.sub_norms

    def test_the_same_seed_gives_the_same_file(self, tiny, tmp_path):
        again = make_model.make("tiny", tmp_path / "again.gguf")
        other = make_model.make("tiny", tmp_path / "other.gguf", seed=1)
        assert tiny.read_bytes() == again.read_bytes()
        assert tiny.read_bytes() != other.read_bytes()

    @pytest.mark.parametrize("kind", ["tq1_0", "tq2_0"])
    def test_every_type_holds_the_same_trits(self, tiny, tmp_path, kind):
        path = make_model.make("tiny", tmp_path / "other.gguf", type=kind)
        with gguf.read(tiny) as first, gguf.read(path) as second:
            for name, info in first.tensors.items():
                if info.type_name != "I2_S":
                    continue
                left = ternary.decode("I2_S", first.raw(name), *info.shape)
                right = ternary.decode(kind.upper(), second.raw(name), *info.shape)
                assert np.array_equal(left.trits, right.trits)
                assert left.scale == pytest.approx(float(right.scale), rel=1e-3)

    def test_fewer_layers_leave_the_others_as_they_are(self, tiny, tmp_path):
        path = make_model.make("tiny", tmp_path / "one.gguf", layers=1)
        with gguf.read(tiny) as first, gguf.read(path) as second:
            name = "blk.0.attn_q.weight"
            assert np.array_equal(first.raw(name), second.raw(name))

    def test_metadata_can_be_changed_and_dropped(self, tmp_path):
        changes = {"tokenizer.chat_template": None, "tokenizer.ggml.pre": "gpt-2"}
        path = make_model.make("tiny", tmp_path / "m.gguf", metadata_changes=changes)
        with gguf.read(path) as file:
            assert "tokenizer.chat_template" not in file.metadata
            assert file.metadata["tokenizer.ggml.pre"] == "gpt-2"

    def test_the_command_line_makes_the_same_file(self, tiny, tmp_path):
        out = tmp_path / "tiny.gguf"
        command = [sys.executable, make_model.__file__, "--preset", "tiny", "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "bytes" in done.stdout
        assert out.read_bytes() == tiny.read_bytes()
        again = subprocess.run(command, capture_output=True, text=True)
        assert again.returncode == 1
        assert "already exists" in again.stderr


class TestStatistics:
    def test_trits_have_the_shares_of_the_official_file(self):
        weights = RandomWeights(0)
        raw = np.concatenate(list(weights.ternary("x", 512, 1024, "I2_S")))
        decoded = ternary.decode("I2_S", raw, 512, 1024)
        assert (decoded.trits == 0).mean() == pytest.approx(0.42, abs=0.005)
        assert decoded.trits.mean() == pytest.approx(0, abs=0.005)
        inputs = np.random.default_rng(0).standard_normal(1024)
        assert (decoded.dense() @ inputs).std() == pytest.approx(1, abs=0.4)

    def test_few_dimensions_hold_most_of_the_energy_at_the_head(self):
        gains = RandomWeights(0).norm("output_norm.weight", 2560, is_last=True)
        energy = np.sort(gains.astype(np.float64) ** 2)[::-1]
        assert energy[:128].sum() / energy.sum() == pytest.approx(0.56, abs=0.04)
        flat = RandomWeights(0, "gaussian").norm("output_norm.weight", 2560, is_last=True)
        assert flat.max() / flat.min() < 3

    def test_embedding_rows_share_a_mean_only_in_the_realistic_spectrum(self):
        def mean_share(spectrum: str) -> float:
            pieces = RandomWeights(0, spectrum).embedding("token_embd.weight", 4096, 256, "F32")
            rows = np.concatenate([piece.view(np.float32) for piece in pieces]).reshape(-1, 256)
            return float(np.linalg.norm(rows.mean(0)) / rows.std())

        assert mean_share("realistic") > 5 * mean_share("gaussian")


class TestRefused:
    def test_unknown_names(self, tmp_path):
        out = tmp_path / "m.gguf"
        for options in (
            {"preset": "bitnet-7b"},
            {"preset": "tiny", "type": "q4_0"},
            {"preset": "tiny", "embedding": "q5_0"},
            {"preset": "tiny", "spectrum": "pink"},
        ):
            with pytest.raises(OptionError, match="known are"):
                make_model.make(out=out, **options)

    def test_rows_that_a_type_cannot_hold(self, tmp_path):
        with pytest.raises(OptionError, match="cannot be TQ1_0"):
            make_model.make("tiny", tmp_path / "m.gguf", type="tq1_0", ffn=640)
        assert not list(tmp_path.iterdir())

    def test_a_vocabulary_larger_than_the_model(self, tmp_path):
        vocab = shared("vocab-gpt-2.gguf")
        with pytest.raises(OptionError, match="50257 tokens, the model 384"):
            make_model.make("tiny", tmp_path / "m.gguf", vocab=vocab)

    def test_a_model_without_layers(self, tmp_path):
        with pytest.raises(OptionError, match="layers is 0"):
            make_model.make("tiny", tmp_path / "m.gguf", layers=0)

    def test_files_that_are_no_vocabulary(self, tmp_path):
        bad = tmp_path / "bad.tiktoken"
        for content in (b"IQ== 0\nIg== 5\n", b"IQ== 0\nnonsense\n", b"?? 0\n"):
            bad.write_bytes(content)
            with pytest.raises(FormatError, match=r"bad\.tiktoken: line"):
                make_model.make("tiny", tmp_path / "m.gguf", vocab=bad)
        with pytest.raises(FormatError, match="cannot read"):
            make_model.make("tiny", tmp_path / "m.gguf", vocab=tmp_path / "absent.tiktoken")

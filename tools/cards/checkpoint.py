"""Seeded random checkpoints of published sizes, and token ids, made with the standard library only."""

from __future__ import annotations

import json
import random
import statistics
import struct
from pathlib import Path

VOCABULARY = 30528
# hidden, layers, heads
SIZES = {"small-en": (512, 4, 8), "base-en": (768, 12, 12)}
# sequences, tokens of each
SHAPES = [(32, 128), (1, 16), (64, 16), (16, 512), (1, 8192)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHUNK = 1 << 20


def config(size: str) -> dict:
    hidden, layers, heads = SIZES[size]
    return {
        "architectures": ["JinaBertForMaskedLM"], "model_type": "bert", "hidden_act": "gelu", "emb_pooler": "mean",
        "feed_forward_type": "geglu", "position_embedding_type": "alibi", "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": 4 * hidden,
        "vocab_size": VOCABULARY, "type_vocab_size": 2, "max_position_embeddings": 8192, "layer_norm_eps": 1e-12,
        "pad_token_id": 0, "torch_dtype": "float16",
    }


def shapes(size: str) -> dict:
    """Name, shape and mean of every tensor."""
    d, layers, _ = SIZES[size]
    f = 4 * d
    found = {
        "embeddings.word_embeddings.weight": ([VOCABULARY, d], 0.0),
        "embeddings.token_type_embeddings.weight": ([2, d], 0.0),
    }

    def norm(name: str) -> None:
        found[f"{name}.weight"] = ([d], 1.0)
        found[f"{name}.bias"] = ([d], 0.0)

    norm("embeddings.LayerNorm")
    for layer in range(layers):
        at = f"encoder.layer.{layer}."
        for part in ["self.query", "self.key", "self.value", "output.dense"]:
            found[f"{at}attention.{part}.weight"] = ([d, d], 0.0)
            found[f"{at}attention.{part}.bias"] = ([d], 0.0)
        norm(f"{at}attention.output.LayerNorm")
        found[f"{at}mlp.gated_layers.weight"] = ([2 * f, d], 0.0)
        found[f"{at}mlp.wo.weight"] = ([d, f], 0.0)
        found[f"{at}mlp.wo.bias"] = ([d], 0.0)
        norm(f"{at}mlp.layernorm")
    return found


def quantiles(mean: float) -> bytes:
    """High bytes of the f16 that are 256 quantiles of a normal distribution of deviation 0.02.

    The low byte, the 8 lowest bits of the mantissa, may then be any."""
    normal = statistics.NormalDist(mean, 0.02)
    return bytes(struct.pack("<e", normal.inv_cdf((i + 0.5) / 256))[1] for i in range(256))


def halves(seed: str, count: int, mean: float):
    """`count` random f16, in chunks of bytes."""
    source, table = random.Random(seed), quantiles(mean)
    while count:
        now = min(count, CHUNK)
        chunk = bytearray(2 * now)
        chunk[0::2] = source.getrandbits(8 * now).to_bytes(now, "little")
        chunk[1::2] = source.getrandbits(8 * now).to_bytes(now, "little").translate(table)
        yield chunk
        count -= now


def write_weights(path: Path, size: str) -> None:
    header, end = {"__metadata__": {"format": "pt"}}, 0
    tensors = shapes(size)
    for name, (shape, _) in tensors.items():
        start, count = end, 1
        for side in shape:
            count *= side
        end += 2 * count
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name, (_, mean) in tensors.items():
            start, stop = header[name]["data_offsets"]
            for chunk in halves(f"{size}/{name}", (stop - start) // 2, mean):
                out.write(chunk)


def tokenizer() -> dict:
    words = SPECIAL[:1] + [f"[unused{i}]" for i in range(99)] + SPECIAL[1:]
    words += [chr(c) for c in range(33, 127)] + [f"##{chr(c)}" for c in range(33, 127)]
    words += [f"w{i}" for i in range(VOCABULARY - len(words))]
    ids = {word: i for i, word in enumerate(words)}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    ends = [{"SpecialToken": {"id": word, "type_id": 0}} for word in ("[CLS]", "[SEP]")]
    a, b = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": ids[word], "content": word, **flags} for word in SPECIAL],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing", "single": [ends[0], a, ends[1]],
            "pair": [ends[0], a, ends[1], b, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {w: {"id": w, "ids": [ids[w]], "tokens": [w]} for w in ("[CLS]", "[SEP]")},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": ids},
    }


def make(size: str, work: Path) -> Path:
    """The directory of a checkpoint, written unless it is there; its configuration is written last."""
    directory = work / f"random-{size}"
    done = directory / "config.json"
    if not done.exists():
        directory.mkdir(parents=True, exist_ok=True)
        write_weights(directory / "model.safetensors", size)
        (directory / "tokenizer.json").write_text(json.dumps(tokenizer()), encoding="utf-8")
        part = directory / "config.json.part"
        part.write_text(json.dumps(config(size)), encoding="utf-8")
        part.replace(done)
    return directory


def write_ids(sequences: int, tokens: int, work: Path) -> Path:
    """A file of token ids, a sequence a line, special tokens included."""
    source = random.Random(f"ids/{sequences}x{tokens}")
    lines = []
    for _ in range(sequences):
        inner = [source.randrange(1000, VOCABULARY) for _ in range(tokens - 2)]
        lines.append(" ".join(map(str, [101, *inner, 102])) + "\n")
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{sequences}x{tokens}.txt"
    path.write_text("".join(lines), encoding="utf-8")
    return path

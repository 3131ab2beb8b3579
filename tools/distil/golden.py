"""Golden vectors of a JinaBERT model: eight texts with token ids and sentence vectors.

The forward pass is written here once more from the equations, in numpy and float64 on the weights
as stored, so that it shares no code with any engine (nor with models.py) that is tested against it:

    x    = LN(word[id] + type[0])
    s_ij = q_i . k_j / sqrt(E) - m_h |i - j|,   m_h = 2^(-8 h / H), h = 1..H
    x    = LN(W_o softmax(s) v + b_o + x)
    x    = LN(W_2 (gelu(gate) * up) + b_2 + x),   [gate | up] = W_1 x,   gelu(z) = z Phi(z)
    e    = mean_i x_i / |mean_i x_i|

Writes golden.json into the model directory, or with --check compares with the one there.
Shapes: T tokens, D hidden size, H heads, E = D / H, F MLP width.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from scipy.special import erf
from tokenizers import Tokenizer

from workdir import SHIPPED_MODEL, require

TEXTS = [
    "How do I install a package without root access?",
    "The cat sat quietly on the warm windowsill.",
    "A man is playing a guitar.",
    "Someone plays an instrument.",
    "GPU compute shaders written in WGSL",
    "Hello",
    "café naïve — résumé 你好",
    "The quick brown fox jumps over the lazy dog. " * 60,
]
DIGITS = 6  # stored after the decimal point
TOLERANCE = 1e-6  # twice the rounding to DIGITS


class JinaBert:
    """The network on one text at a time, in float64."""

    def __init__(self, directory: Path) -> None:
        self.config = json.loads((directory / "config.json").read_text())
        tensors = load_file(directory / "model.safetensors")
        self.weights = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
        heads = self.config["num_attention_heads"]
        if heads & (heads - 1):
            raise SystemExit(f"error: {heads} heads; only powers of two are written down here")
        self.slopes = 2.0 ** (-8.0 * np.arange(1, heads + 1) / heads)

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def layer_norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred**2).mean(-1, keepdims=True)
        normed = centred / np.sqrt(variance + self.config["layer_norm_eps"])
        return normed * self.weights[name + ".weight"] + self.weights[name + ".bias"]

    def attention(self, x: np.ndarray, name: str) -> np.ndarray:
        """[T, D] -> [T, D], before the output matrix."""
        q, k, v = (
            self.linear(x, f"{name}.{part}").reshape(len(x), len(self.slopes), -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        position = np.arange(len(x))
        distance = np.abs(position[:, None] - position)
        scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
        scores -= self.slopes[:, None, None] * distance
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return (weights @ v).swapaxes(0, 1).reshape(x.shape)

    def geglu(self, x: np.ndarray, name: str) -> np.ndarray:
        """[T, D] -> [T, F]."""
        gate, up = np.split(x @ self.weights[name + ".weight"].T, 2, axis=-1)
        return 0.5 * gate * (1 + erf(gate / math.sqrt(2))) * up

    def embed(self, ids: list[int]) -> np.ndarray:
        """[D], unit length."""
        words = self.weights["embeddings.word_embeddings.weight"][ids]
        types = self.weights["embeddings.token_type_embeddings.weight"][0]
        x = self.layer_norm(words + types, "embeddings.LayerNorm")
        for number in range(self.config["num_hidden_layers"]):
            p = f"encoder.layer.{number}."
            context = self.attention(x, p + "attention.self")
            x = self.layer_norm(
                self.linear(context, p + "attention.output.dense") + x,
                p + "attention.output.LayerNorm",
            )
            h = self.geglu(x, p + "mlp.gated_layers")
            x = self.layer_norm(self.linear(h, p + "mlp.wo") + x, p + "mlp.layernorm")
        mean = x.mean(0)
        return mean / np.linalg.norm(mean)


def check(golden: list[dict], stored: list[dict]) -> None:
    """Compares with the stored vectors; ends the program with an error if they differ."""
    largest = 0.0
    for now, then in zip(golden, stored, strict=True):
        if (now["text"], now["ids"]) != (then["text"], then["ids"]):
            raise SystemExit(f"error: text or token ids differ: {then['text'][:60]!r}")
        difference = np.abs(np.subtract(now["embedding"], then["embedding"])).max()
        print(f"{len(now['ids']):5} tokens: {difference:.1e}  {now['text'][:60]!r}")
        largest = max(largest, difference)
    print(f"largest difference {largest:.1e} (allowed {TOLERANCE:.0e})")
    if largest > TOLERANCE:
        raise SystemExit("error: the stored vectors do not belong to these weights")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "model", type=Path, nargs="?", default=SHIPPED_MODEL,
        help="model directory (default: the shipped models/jinabert-mini-en)",
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    args = parser.parse_args()
    files = ["config.json", "model.safetensors", "tokenizer.json"]
    files += ["golden.json"] if args.check else []
    require(*(args.model / name for name in files), source="not a complete model directory")

    model = JinaBert(args.model)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    golden = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        golden.append({"text": text, "ids": ids, "embedding": model.embed(ids).tolist()})
    if args.check:
        check(golden, json.loads((args.model / "golden.json").read_text()))
        return
    for entry in golden:
        entry["embedding"] = [round(value, DIGITS) for value in entry["embedding"]]
    (args.model / "golden.json").write_text(json.dumps(golden))


if __name__ == "__main__":
    main()

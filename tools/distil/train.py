"""Distils the teacher into the student from the labelled shards.

    loss = w_cos  mean_n (1 - e_n . t_n)                               sentence vectors
         + w_tok  mean |x - y|^2 / (0.15 D)                            states after the last layer
         + w_mid  mean |x - y|^2 / (0.5 D)                             states one layer below
         + w_sim  mean_{n != m} (e_n . e_m - t_n . t_m)^2 (1 + 4 max(t_n . t_m, 0))

with e, t the student's and the teacher's unit sentence vectors and x, y their states at aligned
tokens, as in hidden-state and relation distillation (Jiao et al. 2020, arXiv:1909.10351;
Park et al. 2019, arXiv:1904.05068).  AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).

The learning rate warms up for 60 steps.  It then falls linearly to --end-lr over --minutes or
--steps, whichever end first.  With --decay-steps N it stays constant instead, until a file FINISH
appears in --out; the run then saves to OUT-stable, decays over N steps and ends (warmup, stable,
decay: Hu et al. 2024, arXiv:2404.06395).

The model is saved every three minutes together with the optimiser's state; --init OUT resumes
from there.  Shards that appear during the run are used.  If a clone of stsb-multi-mt is present,
a quarter of STS-B dev is watched: Spearman's rho with people (sts), with the teacher on the same
pairs (pair) and on all pairs (all), and the mean cosine to the teacher's vectors (cos).
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from models import JinaBert, Student, Teacher, pad, save_model
from workdir import Shard, WorkDir, add_threads, argument_parser, require

MAX_LENGTH = 2048  # longer texts are cut
WARMUP_STEPS, LOG_STEPS, DEV_STEPS, SAVE_SECONDS = 60, 25, 300, 180
GRADIENT_SCALE = 64.0  # keeps Adam's eps harmless
MAX_GRADIENT_NORM = 5.0
TOKEN_SCALE, MID_SCALE = 0.15, 0.5
LOSSES = ("cos", "tok", "mid", "sim")


class Dev:
    """Every fourth pair of STS-B dev, with the teacher's vectors."""

    def __init__(self, file: Path, work: WorkDir) -> None:
        with open(file, encoding="utf-8", newline="") as rows:
            pairs = list(csv.reader(rows))[::4]
        self.texts = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
        self.scores = [float(pair[2]) for pair in pairs]
        self.teacher = Teacher(work).encode(self.texts)

    def evaluate(self, student: Student) -> dict[str, float]:
        ours, theirs, n = student.encode(self.texts), self.teacher, len(self.scores)
        pairs = (ours[:n] * ours[n:]).sum(1)
        upper = np.triu_indices(2 * n, 1)
        values = {
            "sts": spearmanr(pairs, self.scores)[0],
            "pair": spearmanr(pairs, (theirs[:n] * theirs[n:]).sum(1))[0],
            "all": spearmanr((ours @ ours.T)[upper][::7], (theirs @ theirs.T)[upper][::7])[0],
            "cos": (ours * theirs).sum(1).mean(),
        }
        return {name: round(float(value), 4) for name, value in values.items()}


class Schedule:
    """The learning rate as a function of the step and, without --decay-steps, of the time."""

    def __init__(self, args: argparse.Namespace, first_step: int) -> None:
        self.args = args
        self.first_step = first_step
        self.start = time.time()
        self.decay_from: int | None = None  # the step at which FINISH was seen

    def progress(self, step: int) -> float:
        """0 at full learning rate, 1 at the end of the run."""
        if self.args.decay_steps:
            if self.decay_from is None:
                return 0.0
            return (step - self.decay_from) / self.args.decay_steps
        by_time = (time.time() - self.start) / 60 / self.args.minutes
        return max(by_time, step / self.args.steps if self.args.steps else 0.0)

    def learning_rate(self, step: int) -> float:
        warmup = min(1.0, (step - self.first_step + 1) / WARMUP_STEPS)
        progress = self.progress(step)
        return self.args.lr * warmup * (1 - progress) + self.args.end_lr * progress


def batches(shard: Shard, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Text indices in random order, groups kept together, each batch sorted by length."""
    shuffled_groups = rng.permutation(shard.groups[-1] + 1)
    order = np.argsort(shuffled_groups[shard.groups], kind="stable")
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        if len(batch) >= 16:
            yield batch[np.argsort(shard.lengths[batch])]


def sub_batches(batch: np.ndarray, lengths: np.ndarray) -> list[list[int]]:
    """A batch sorted by length, in parts of similar length and at most 6000 tokens."""
    parts: list[list[int]] = []
    shortest = 0
    for n in batch:
        length = min(int(lengths[n]), MAX_LENGTH)
        if parts and length <= 1.35 * shortest + 2 and length * (len(parts[-1]) + 1) <= 6000:
            parts[-1].append(n)
        else:
            parts.append([n])
            shortest = length
    return parts


def losses(model: JinaBert, shard: Shard, batch: np.ndarray) -> tuple[dict[str, Tensor], int]:
    """The four terms of the loss on one batch, unweighted, and its number of tokens."""
    d = model.config["hidden_size"]
    ours, theirs = [], []
    token_error, mid_error = torch.zeros(()), torch.zeros(())
    tokens = aligned_tokens = 0
    for part in sub_batches(batch, shard.lengths):
        spans = [
            (start, min(start + MAX_LENGTH, end))
            for start, end in zip(shard.offsets[part], shard.offsets[np.add(part, 1)])
        ]
        ids, mask = pad([shard.ids[start:end] for start, end in spans])
        aligned = pad([shard.aligned[start:end] for start, end in spans])[0].bool()
        rows = np.concatenate(
            [np.arange(start, end)[shard.aligned[start:end]] for start, end in spans]
        )
        hidden = model(ids, mask)
        ours.append(model.pool(hidden[-1], mask))
        theirs.append(torch.from_numpy(shard.embeddings[part]))
        if len(rows):
            last = torch.from_numpy(shard.hidden_last[rows].astype(np.float32))
            mid = torch.from_numpy(shard.hidden_mid[rows].astype(np.float32))
            token_error = token_error + ((hidden[-1][aligned] - last) ** 2).sum() / d
            mid_error = mid_error + ((hidden[-2][aligned] - mid) ** 2).sum() / d
            aligned_tokens += len(rows)
        tokens += int(mask.sum())

    e, t = torch.cat(ours), torch.cat(theirs)
    others = ~torch.eye(len(e), dtype=torch.bool)
    our_similarity, their_similarity = (e @ e.T)[others], (t @ t.T)[others]
    weight = 1 + 4 * their_similarity.clamp(min=0)  # errors on near neighbours count more
    return {
        "cos": (1 - (e * t).sum(1)).mean(),
        "tok": token_error / max(1, aligned_tokens) / TOKEN_SCALE,
        "mid": mid_error / max(1, aligned_tokens) / MID_SCALE,
        "sim": ((our_similarity - their_similarity) ** 2 * weight).mean(),
    }, tokens


def make_optimizer(model: JinaBert, args: argparse.Namespace) -> torch.optim.AdamW:
    """AdamW; weight decay on the matrices of the layers only."""
    matrices, vectors, embeddings = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            vectors.append(parameter)
        elif "embedding" in name:
            embeddings.append(parameter)
        else:
            matrices.append(parameter)
    groups = [
        {"params": matrices, "weight_decay": 0.01, "lr_factor": 1.0},
        {"params": vectors, "weight_decay": 0.0, "lr_factor": 1.0},
        {"params": embeddings, "weight_decay": 0.0, "lr_factor": args.embedding_lr_factor},
    ]
    return torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), eps=1e-9)


class Run:
    """One training run and everything that has to be saved to resume it."""

    def __init__(self, args: argparse.Namespace, init: Path, out: Path, log: TextIO) -> None:
        self.args, self.init, self.out, self.log_file = args, init, out, log
        self.weights = {name: getattr(args, f"w_{name}") for name in LOSSES}
        self.rng = np.random.default_rng(args.seed)
        self.student = Student(init)
        self.model = self.student.model
        self.optimizer = make_optimizer(self.model, args)
        self.step = self.texts = 0
        self.epochs: dict[str, int] = {}  # how often each shard was used
        dev = args.work.stsb / "stsb-en-dev.csv"
        self.dev = Dev(dev, args.work) if dev.exists() else None
        numbers = {k: v for k, v in vars(args).items() if isinstance(v, int | float)}
        self.log(f"# {init} -> {out}: {numbers}")
        if self.dev is None:
            self.log(f"no {dev}: training without a development set")
        self.log_dev()
        if (init / "state.pt").exists():
            state = torch.load(init / "state.pt")
            self.optimizer.load_state_dict(state["optimizer"])
            self.model.load_state_dict(state["model"])
            self.epochs, self.step, self.texts = state["epochs"], state["step"], state["texts"]
            self.log(f"resumed at step {self.step}")
        self.schedule = Schedule(args, self.step)

    def log(self, line: str) -> None:
        print(line, flush=True)
        self.log_file.write(line + "\n")
        self.log_file.flush()

    def log_dev(self) -> None:
        if self.dev is not None:
            self.log(f"  dev at step {self.step}: {self.dev.evaluate(self.student)}")

    def save(self, directory: Path) -> None:
        save_model(self.model, self.init / "tokenizer.json", directory)
        state = {
            "optimizer": self.optimizer.state_dict(),
            "model": self.model.state_dict(),
            "epochs": self.epochs,
            "step": self.step,
            "texts": self.texts,
        }
        torch.save(state, directory / "state.pt.partial")
        os.replace(directory / "state.pt.partial", directory / "state.pt")

    def next_shard(self) -> Shard:
        """A random one of the shards that were used least."""
        shards = self.args.work.shards(self.args.max_shards)
        least = min(self.epochs.get(path.name, 0) for path in shards)
        candidates = [path for path in shards if self.epochs.get(path.name, 0) == least]
        path = candidates[self.rng.integers(len(candidates))]
        self.epochs[path.name] = least + 1
        return Shard.load(path)

    def check_finish(self) -> None:
        """Starts the decay when the file FINISH is there."""
        waiting = self.args.decay_steps and self.schedule.decay_from is None
        if waiting and self.step % 5 == 0 and (self.out / "FINISH").exists():
            self.schedule.decay_from = self.step
            self.log(f"FINISH found, decaying from step {self.step}")
            self.save(self.out.with_name(self.out.name + "-stable"))

    def update(self, shard: Shard, batch: np.ndarray) -> tuple[list[float], int]:
        """One optimiser step; the loss terms and the gradient norm, and the tokens seen."""
        rate = self.schedule.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_factor"]
        terms, tokens = losses(self.model, shard, batch)
        loss = sum(self.weights[name] * terms[name] for name in LOSSES)
        self.optimizer.zero_grad(set_to_none=True)
        (loss * GRADIENT_SCALE).backward()
        norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), MAX_GRADIENT_NORM * GRADIENT_SCALE
        )
        self.optimizer.step()
        self.step += 1
        self.texts += len(batch)
        return [*(terms[name].item() for name in LOSSES), norm.item() / GRADIENT_SCALE], tokens

    def train(self) -> None:
        sums, logged, tokens, first_text = np.zeros(len(LOSSES) + 1), 0, 0, self.texts
        saved = time.time()
        while self.schedule.progress(self.step) < 1:
            shard = self.next_shard()
            for batch in batches(shard, self.args.batch, self.rng):
                if self.schedule.progress(self.step) >= 1:
                    break
                self.check_finish()
                values, seen = self.update(shard, batch)
                sums, logged, tokens = sums + values, logged + 1, tokens + seen
                if self.step % LOG_STEPS == 0:
                    seconds = time.time() - self.schedule.start
                    means = zip((*LOSSES, "gradient"), sums / logged)
                    self.log(
                        f"step {self.step}, {seconds / 60:.1f} min: "
                        + ", ".join(f"{name} {mean:.5f}" for name, mean in means)
                        + f"; {(self.texts - first_text) / seconds:.0f} texts/s, "
                        f"{tokens / seconds:.0f} tokens/s"
                    )
                    sums, logged = np.zeros_like(sums), 0
                if self.step % DEV_STEPS == 0:
                    self.log_dev()
                if time.time() - saved > SAVE_SECONDS:
                    self.save(self.out)
                    saved = time.time()
        self.save(self.out)
        self.log(f"finished at step {self.step} after {self.texts} texts")
        self.log_dev()


def parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add_threads(parser)
    add = parser.add_argument
    add("--init", type=Path, metavar="DIR", help="model to start from (default: WORK/refit)")
    add("--out", type=Path, metavar="DIR", help="where to write (default: WORK/student)")
    add("--minutes", type=float, default=60, help="length of the run (default: %(default)s)")
    add("--steps", type=int, default=0, help="length of the run in steps (default: no limit)")
    add("--decay-steps", type=int, default=0, metavar="N", help="see above (default: off)")
    add("--lr", type=float, default=6e-4, help="peak learning rate (default: %(default)s)")
    add("--end-lr", type=float, default=3e-5, help="learning rate at the end (%(default)s)")
    add("--embedding-lr-factor", type=float, default=1.0, help="for the embeddings (%(default)s)")
    add("--batch", type=int, default=96, help="texts in one batch, at least 16 (%(default)s)")
    add("--max-shards", type=int, metavar="N", help="use the first N shards only")
    add("--seed", type=int, default=1, help="of the order of the texts (default: %(default)s)")
    for name, weight in zip(LOSSES, (4.0, 1.0, 0.3, 15.0)):
        add(f"--w-{name}", type=float, default=weight, help="weight of the loss (%(default)s)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    work = args.work
    init, out = args.init or work.refit, args.out or work.student
    if not work.shards():
        require(work.shard(0), source="run label.py first")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    out.mkdir(parents=True, exist_ok=True)
    (out / "FINISH").unlink(missing_ok=True)
    with open(out / "train.log", "a", encoding="utf-8") as log:
        Run(args, init, out, log).train()


if __name__ == "__main__":
    main()

"""Runs the teacher over the training text and stores what it says, shard by shard.

Kept for every text: the teacher's sentence vector.  Kept for every token of the student's
tokenizer that covers the same characters as a token of the teacher's: the teacher's hidden states
at that place after layers 4 and 5.  Texts over 256 tokens get a sentence vector only.
Finished shards are skipped, so the step may be stopped and started again.
"""

from __future__ import annotations

import json
import time

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer

from models import Teacher, batches_by_length, load_tokenizer, pad
from workdir import Shard, add_threads, argument_parser, require

MID_LAYER, LAST_LAYER = 4, 5
MAX_TOKENS = 3000  # in one forward pass


def aligned_positions(student: Encoding, teacher: Encoding) -> tuple[list[int], list[int]]:
    """Positions of the student's tokens and of the teacher's tokens with equal character spans."""
    last = len(teacher.ids) - 1
    at = {span: position for position, span in enumerate(teacher.offsets[1:-1], 1)}
    pairs = [(0, 0)]
    pairs += [(i, at[s]) for i, s in enumerate(student.offsets[1:-1], 1) if s in at]
    pairs += [(len(student.ids) - 1, last)]
    return [i for i, _ in pairs], [j for _, j in pairs]


def label(items: list[list[str]], teacher: Teacher, tokenizer: Tokenizer) -> Shard:
    """The teacher's view of `items`, each of which is one text or a group of related ones."""
    texts = [text for item in items for text in item]
    groups = [number for number, item in enumerate(items) for _ in item]
    by_teacher = teacher.tokenizer.encode_batch(texts)
    by_student = tokenizer.encode_batch(texts)
    offsets = np.cumsum([0] + [len(e.ids) for e in by_student])
    embeddings = np.zeros((len(texts), teacher.D), np.float32)
    hidden_mid = np.zeros((offsets[-1], teacher.D), np.float16)
    hidden_last = np.zeros((offsets[-1], teacher.D), np.float16)
    aligned = np.zeros(offsets[-1], bool)

    owned = [(n, piece) for n, e in enumerate(by_teacher) for piece in teacher.pieces(e.ids)]
    for batch in batches_by_length([len(piece) for _, piece in owned], MAX_TOKENS):
        ids, mask = pad([owned[i][1] for i in batch])
        hidden = teacher.forward(ids, mask)
        sums = (hidden[LAST_LAYER] * mask[..., None]).sum(1).numpy()
        mid, last = hidden[MID_LAYER].numpy(), hidden[LAST_LAYER].numpy()
        for row, i in enumerate(batch):
            n = owned[i][0]
            embeddings[n] += sums[row]
            if len(by_teacher[n].ids) > teacher.MAX_TOKENS:
                continue
            ours, theirs = aligned_positions(by_student[n], by_teacher[n])
            rows = offsets[n] + np.array(ours)
            hidden_mid[rows], hidden_last[rows] = mid[row, theirs], last[row, theirs]
            aligned[rows] = True

    return Shard(
        ids=np.concatenate([np.array(e.ids, np.int32) for e in by_student]),
        offsets=offsets,
        groups=np.array(groups),
        embeddings=embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True),
        hidden_mid=hidden_mid,
        hidden_last=hidden_last,
        aligned=aligned,
    )


def main() -> None:
    parser = argument_parser(__doc__)
    add_threads(parser)
    parser.add_argument(
        "--shard-size", type=int, default=3000, metavar="N",
        help="items of the training text in one shard (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--max-shards", type=int, metavar="N", help="stop after this many shards")
    args = parser.parse_args()
    work = args.work
    require(work.texts, work.tokenizer, source="run prepare.py first")
    torch.set_num_threads(args.threads)
    teacher, tokenizer = Teacher(work), load_tokenizer(work.tokenizer)

    with open(work.texts, encoding="utf-8") as file:
        items = [json.loads(line) for line in file]
    starts = range(0, len(items), args.shard_size)[: args.max_shards]
    for number, start in enumerate(starts):
        path = work.shard(number)
        if path.exists():
            continue
        began = time.time()
        shard = label(items[start : start + args.shard_size], teacher, tokenizer)
        shard.save(path)
        print(
            f"shard {number + 1}/{len(starts)}: {len(shard.embeddings)} texts, "
            f"{len(shard.ids)} tokens, {shard.aligned.mean():.1%} aligned, "
            f"{time.time() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()

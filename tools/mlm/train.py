"""Trains jinabert-mini-en as a masked language model on the manual pages of this machine.

The encoder starts from the shipped weights; the head is BERT's (Devlin et al. 2019,
arXiv:1810.04805): dense, GELU, LayerNorm, a decoder tied to the word embeddings, a bias.  Of each
window's tokens 15 % are predicted; 80 % of these are masked, 10 % replaced by a random token, 10 %
left.  Windows have --length tokens of one page, [CLS] and [SEP] included: nothing longer is seen.

Pages in --hold-out, and all whose names contain one of their words, are never trained on; their
texts are written to OUT/held-out.  The result has the layout of Hugging Face's JinaBertForMaskedLM.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "distil"))
from models import JinaBert, Student  # noqa: E402

SHIPPED = Path(__file__).resolve().parents[2] / "models" / "jinabert-mini-en"
HELD_OUT = ("bash.1", "libpng.3", "proc.5", "tmux.1", "XML::Twig.3pm")
CLS, SEP, MASK = "[CLS]", "[SEP]", "[MASK]"
PREDICTED, MASKED, REPLACED = 0.15, 0.8, 0.1
WARMUP_STEPS, LOG_STEPS, MAX_GRADIENT_NORM, MIN_WORDS = 60, 25, 1.0, 150


class MaskedLm(nn.Module):
    """The encoder and the head, whose decoder is the word embeddings."""

    def __init__(self, encoder: JinaBert) -> None:
        super().__init__()
        d, eps = encoder.config["hidden_size"], encoder.config["layer_norm_eps"]
        self.bert = encoder
        self.dense, self.norm = nn.Linear(d, d), nn.LayerNorm(d, eps)
        self.bias = nn.Parameter(torch.zeros(encoder.config["vocab_size"]))
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def hidden(self, ids: Tensor, bias: Tensor) -> Tensor:
        x = self.bert.embed(ids)
        for layer in self.bert.layers:
            x = layer(x, bias)
        return x

    def forward(self, ids: Tensor, bias: Tensor, rows: Tensor) -> Tensor:
        """Logits [n, V] of the tokens that `rows` picks from [B, T]."""
        x = self.norm(F.gelu(self.dense(self.hidden(ids, bias)[rows])))
        return F.linear(x, self.bert.embeddings["word_embeddings"].weight, self.bias)

    def tensors(self) -> dict[str, Tensor]:
        head = "cls.predictions."
        named = {"bert." + name: t for name, t in self.bert.state_dict().items()}
        named[head + "transform.dense.weight"] = self.dense.weight
        named[head + "transform.dense.bias"] = self.dense.bias
        named[head + "transform.LayerNorm.weight"] = self.norm.weight
        named[head + "transform.LayerNorm.bias"] = self.norm.bias
        named[head + "bias"] = self.bias
        return {name: t.detach().half().contiguous() for name, t in named.items()}


def plain(roff: str) -> str:
    """The words of a manual page without its markup."""
    lines = []
    for line in roff.splitlines():
        if line.startswith(("'\\\"", ".\\\"", ".de", ".ds", ".if", ".ie", ".el", ".nr", ".tr")):
            continue
        if match := re.match(r"[.'](\w\w?)\b ?(.*)", line):
            # Macros with words in them, and paragraphs; the others say how a page looks.
            word, rest = match.groups()
            if word in ("PP", "P", "LP", "Pp", "SH", "SS", "Sh", "Ss"):
                lines.append("")
            spaced = word in ("BR", "BI", "IR", "IB", "RB", "RI")
            words = re.findall(r'"[^"]*"|\S+', rest)
            keep = len(word) == 2 or word in ("B", "I", "P")
            no_words = word in ("TH", "PD", "RS", "RE", "nf", "fi", "ft", "sp", "in", "so", "Os")
            line = ("" if spaced else " ").join(words).replace('"', "") if keep else ""
            if no_words:
                continue
        line = re.sub(r"\\f(?:\[\w*\]|\(..|.)|\\s[+-]?\d|\\[&|^/,%:]", "", line)
        line = re.sub(r"\\\*\(..|\\\*\[\w+\]|\\\*.", "", line)
        line = re.sub(r"\\\((?:aq|cq)", "'", line)
        line = re.sub(r"\\\((?:dq|lq|rq)", '"', line)
        line = re.sub(r"\\\([a-z]{2}|\\\[[^]]*\]", " ", line)
        line = line.replace("\\-", "-").replace("\\e", "\\").replace("\\ ", " ")
        lines.append(line.strip())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def read(path: Path) -> str:
    return plain(gzip.decompress(path.read_bytes()).decode("utf-8", "replace"))


def pages(root: Path, words: list[str], skip: list[str]) -> list[str]:
    """Texts to train on: no links, none that is held out or skipped, none twice."""
    texts, seen = [], set()
    for path in sorted(root.glob("man[1-8]/*.gz")):
        name = path.name.lower()
        if path.is_symlink() or any(word in name for word in words + skip):
            continue
        text = read(path)
        if len(text.split()) >= MIN_WORDS and text[:2000] not in seen:
            seen.add(text[:2000])
            texts.append(text)
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--man", type=Path, default=Path("/usr/share/man"))
    parser.add_argument("--init", type=Path, default=SHIPPED)
    parser.add_argument("--hold-out", nargs="*", default=list(HELD_OUT))
    parser.add_argument("--skip", nargs="*", default=["gcloud", "gsutil", "bq_"])
    parser.add_argument("--minutes", type=float, default=18)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)

    held = args.out / "held-out"
    held.mkdir(parents=True, exist_ok=True)
    for name in args.hold_out:
        (held / f"{name}.txt").write_text(read(next(args.man.glob(f"man*/{name}.gz"))))
    words = [name.rsplit(".", 1)[0].rsplit("::", 1)[-1].lower() for name in args.hold_out]
    student = Student(args.init)
    tokenizer, model = student.tokenizer, MaskedLm(student.model).train()
    cls, sep, mask = (tokenizer.token_to_id(token) for token in (CLS, SEP, MASK))
    specials = sorted(tokenizer.get_added_tokens_decoder())
    vocabulary = model.bert.config["vocab_size"]

    texts = pages(args.man, words, [word.lower() for word in args.skip])
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    room = args.length - 2
    windows = []
    for page in (np.array(encoding.ids) for encoding in encoded):
        starts = range(0, max(1, len(page) - room // 2), room)
        windows += [page[start : start + room] for start in starts]
    whole = np.array([window for window in windows if len(window) == room])
    tokens = sum(len(encoding.ids) for encoding in encoded)
    print(f"{len(texts)} pages, {tokens:,} tokens, {len(whole)} windows of {args.length}", flush=True)

    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), eps=1e-6)
    bias = model.bert.alibi(args.length)
    start, step, order, recent = time.monotonic(), 0, np.empty(0, int), []
    while (elapsed := (time.monotonic() - start) / 60 / args.minutes) < 1:
        if len(order) < args.batch:
            order = rng.permutation(len(whole))
        chosen, order = whole[order[: args.batch]], order[args.batch :]
        ends = np.ones((len(chosen), 1), int)
        target = torch.from_numpy(np.concatenate([ends * cls, chosen, ends * sep], axis=1))
        ids, u, v = target.clone(), torch.rand(target.shape), torch.rand(target.shape)
        rows = (u < PREDICTED) & ~torch.isin(target, torch.tensor(specials))
        ids[rows & (v < MASKED)] = mask
        other = rows & (v >= MASKED) & (v < MASKED + REPLACED)
        ids[other] = torch.randint(len(specials), vocabulary, (int(other.sum()),))

        rate = args.lr * min(1.0, (step + 1) / WARMUP_STEPS) * (1 - elapsed)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids, bias, rows)
        loss = F.cross_entropy(logits.float(), target[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        recent.append(loss.item())
        step += 1
        if step % LOG_STEPS == 0:
            seconds = 60 * args.minutes * elapsed
            print(f"{seconds:6.0f} s  step {step}  loss {np.mean(recent):.3f}", flush=True)
            recent.clear()

    save_file(model.tensors(), args.out / "model.safetensors")
    config = {**model.bert.config, "architectures": ["JinaBertForMaskedLM"]}
    config["_name_or_path"] = args.out.name
    (args.out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    shutil.copy(args.init / "tokenizer.json", args.out / "tokenizer.json")
    print(f"{step} steps, {step * args.batch * args.length:,} tokens", flush=True)


if __name__ == "__main__":
    main()

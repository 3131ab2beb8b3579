"""Evaluates a student beside its teacher and lexical baselines; prints the table of its card.

Semantic similarity     Spearman's rho of the cosine with human scores (Cer et al. 2017,
                        arXiv:1708.00055; Marelli et al. 2014 for SICK)
Retrieval               share of queries with the right text first (acc@1) or among ten (acc@10),
                        and MRR@10; ties count with their mean rank
Answer selection        MAP and MRR on TREC-QA (Wang, Smith and Mitamura 2007)
Agreement               Spearman's rho of all pairwise cosines with the teacher's

Baselines: TF-IDF on words and on character 3- to 5-grams (sublinear tf, smoothed idf), and BM25
(Robertson and Zaragoza 2009) with k1 = 1.2 and b = 0.75.

The evaluation sets are public and have to be cloned by hand, see README.md; the held-out texts
come from prepare.py.  The teacher's vectors are kept in WORK/data/teacher_cache.npz.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from scipy.stats import spearmanr

from models import Student, Teacher
from workdir import SHIPPED_MODEL, WorkDir, add_threads, argument_parser, require

Vectors: TypeAlias = np.ndarray | sp.csr_matrix  # [N, ...], rows of unit length
Scores: TypeAlias = float | dict[str, float]
Row: TypeAlias = tuple[str, dict[str, Scores]]  # a task, and the scores of each model


class Encoder(Protocol):
    def encode(self, texts: Sequence[str]) -> Vectors: ...


# ---------------------------------------------------------------------------- encoders


class CachedTeacher:
    """The teacher, with its vectors kept on disk as f16."""

    def __init__(self, work: WorkDir) -> None:
        self.teacher, self.path = Teacher(work), work.teacher_cache
        self.vectors: dict[str, np.ndarray] = {}
        if self.path.exists():
            with np.load(self.path) as cache:
                self.vectors = dict(zip(cache["keys"].tolist(), cache["vectors"]))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        keys = [hashlib.md5(text.encode()).hexdigest() for text in texts]
        unknown = {k: t for k, t in zip(keys, texts) if k not in self.vectors}
        if unknown:
            vectors = self.teacher.encode(list(unknown.values())).astype(np.float16)
            self.vectors |= zip(unknown, vectors)
            self.save()
        return np.stack([self.vectors[key] for key in keys]).astype(np.float32)

    def save(self) -> None:
        partial = self.path.with_suffix(".partial.npz")
        np.savez(partial, keys=list(self.vectors), vectors=np.stack(list(self.vectors.values())))
        os.replace(partial, self.path)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def character_ngrams(text: str) -> list[str]:
    """3- to 5-grams within words, a space on either side."""
    padded = (f" {word} " for word in words(text))
    return [w[i : i + n] for w in padded for n in (3, 4, 5) for i in range(len(w) - n + 1)]


class TfIdf:
    """(1 + ln tf) (1 + ln((1 + N) / (1 + df))), rows of unit length; df from the texts given."""

    def __init__(self, terms: Callable[[str], list[str]]) -> None:
        self.terms = terms

    def encode(self, texts: Sequence[str]) -> sp.csr_matrix:
        counts = [Counter(self.terms(text)) for text in texts]
        frequency = Counter(term for count in counts for term in count)
        column = {term: i for i, term in enumerate(frequency)}
        rows, columns, values = [], [], []
        for row, count in enumerate(counts):
            for term, n in count.items():
                idf = math.log((1 + len(texts)) / (1 + frequency[term])) + 1
                rows.append(row)
                columns.append(column[term])
                values.append((1 + math.log(n)) * idf)
        shape = len(texts), len(column)
        matrix = sp.csr_matrix((values, (rows, columns)), shape, dtype=np.float32)
        norm = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
        norm[norm == 0] = 1
        return sp.csr_matrix(sp.diags(1 / norm) @ matrix)


def bm25(
    queries: Sequence[str], documents: Sequence[str], k1: float = 1.2, b: float = 0.75
) -> np.ndarray:
    """[queries, documents]."""
    counts = [Counter(words(document)) for document in documents]
    lengths = np.array([count.total() for count in counts])
    relative_lengths = lengths / lengths.mean()
    postings: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for document, count in enumerate(counts):
        for term, n in count.items():
            postings[term].append((document, n))
    scores = np.zeros((len(queries), len(documents)), np.float32)
    for row, query in zip(scores, queries):
        for term in set(words(query)):
            df = len(postings.get(term, ()))
            idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
            for document, n in postings.get(term, ()):
                saturation = n + k1 * (1 - b + b * relative_lengths[document])
                row[document] += idf * n * (k1 + 1) / saturation
    return scores


def pair_cosines(a: Vectors, b: Vectors) -> np.ndarray:
    """Of the rows of a with the same rows of b."""
    return np.asarray((a.multiply(b) if sp.issparse(a) else a * b).sum(1)).ravel()


def cosines(a: Vectors, b: Vectors) -> np.ndarray:
    """Of all rows of a with all rows of b."""
    return (a @ b.T).toarray() if sp.issparse(a) else a @ b.T


def rho(x: np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    return round(float(spearmanr(x, y)[0]), 4)


# ---------------------------------------------------------------------------- evaluation sets


class Pairs(NamedTuple):
    first: list[str]
    second: list[str]
    scores: list[float]

    @property
    def texts(self) -> list[str]:
        return self.first + self.second

    def cosines(self, vectors: Vectors) -> np.ndarray:
        """Of each pair, from the vectors of `texts`."""
        return pair_cosines(vectors[: len(self.first)], vectors[len(self.first) :])


def read_tsv(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8") as file:
        return [line.rstrip("\n").split("\t") for line in file]


def read_stsb(path: Path) -> Pairs:
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    return Pairs([r[0] for r in rows], [r[1] for r in rows], [float(r[2]) for r in rows])


def read_sick(path: Path) -> Pairs:
    rows = read_tsv(path)[1:2001]
    return Pairs([r[1] for r in rows], [r[2] for r in rows], [float(r[3]) for r in rows])


def read_semeval(path: Path) -> Pairs:
    rows = [row for row in read_tsv(path) if len(row) >= 3 and row[0].strip()]
    return Pairs([r[1] for r in rows], [r[2] for r in rows], [float(r[0]) for r in rows])


class EvaluationSets:
    """Where the files lie in the clones and in WORK/data."""

    def __init__(self, work: WorkDir) -> None:
        semeval = work.dataset_sts / "sts" / "semeval-sts"
        self.stsb = work.stsb / "stsb-en-test.csv"
        self.sick = work.dataset_sts / "sts" / "sick2014" / "SICK_test_annotated.txt"
        self.semeval = {
            "STS13 headlines": semeval / "2013" / "headlines.test.tsv",
            "STS15 forums": semeval / "2015" / "answers-forums.test.tsv",
            "STS15 images": semeval / "2015" / "images.test.tsv",
            "STS16 question-question": semeval / "2016" / "question-question.test.tsv",
            "STS16 plagiarism": semeval / "2016" / "plagiarism.test.tsv",
        }
        self.msr = work.dataset_sts / "para" / "msr" / "msr-para-test.tsv"
        self.trec_qa = work.dataset_sts / "anssel" / "wang" / "test.csv"
        self.debian = work.data / "heldout_debian.json"
        self.wordnet = work.data / "heldout_wordnet.json"
        self.texts = work.data / "heldout_text.json"

    def require(self) -> None:
        require(self.debian, self.wordnet, self.texts, source="run prepare.py first")
        require(
            self.stsb, self.sick, *self.semeval.values(), self.msr, self.trec_qa,
            source="clone the evaluation sets as README.md says",
        )  # fmt: skip


# ---------------------------------------------------------------------------- tasks


def similarity_tasks(models: dict[str, Encoder], sets: EvaluationSets) -> Iterator[Row]:
    tasks = {"STS-B test": read_stsb(sets.stsb), "SICK-R test (first 2000)": read_sick(sets.sick)}
    tasks |= {name: read_semeval(path) for name, path in sets.semeval.items()}
    for name, pairs in tasks.items():
        row: dict[str, Scores] = {}
        for label, model in models.items():
            row[label] = rho(pairs.cosines(model.encode(pairs.texts)), pairs.scores)
        yield name, row


def rank_metrics(scores: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """`gold` is the right column of each row."""
    right = scores[np.arange(len(scores)), gold][:, None]
    ties = (scores == right).sum(1) - 1
    rank = (scores > right).sum(1) + ties / 2
    return {
        "acc@1": round(float((rank < 1).mean()), 4),
        "acc@10": round(float((rank < 10).mean()), 4),
        "MRR@10": round(float(np.where(rank < 10, 1 / (rank + 1), 0).mean()), 4),
    }


def retrieve_within(
    models: dict[str, Encoder], texts: list[str], pairs: list[tuple[str, str]]
) -> dict[str, Scores]:
    """For the first text of each pair the second, among all `texts` but the first itself."""
    index = {text: i for i, text in enumerate(texts)}
    query = np.array([index[first] for first, _ in pairs])
    gold = np.array([index[second] for _, second in pairs])

    def metrics(scores: np.ndarray) -> dict[str, float]:
        scores[np.arange(len(query)), query] = -1e9
        return rank_metrics(scores, gold)

    row: dict[str, Scores] = {}
    for label, model in models.items():
        vectors = model.encode(texts)
        row[label] = metrics(cosines(vectors[query], vectors))
    row["BM25"] = metrics(bm25([first for first, _ in pairs], texts))
    return row


def retrieve_across(
    models: dict[str, Encoder], queries: list[str], documents: list[str]
) -> dict[str, Scores]:
    """For each query the document of the same number."""
    n, gold = len(queries), np.arange(len(queries))
    row: dict[str, Scores] = {}
    for label, model in models.items():
        vectors = model.encode(queries + documents)
        row[label] = rank_metrics(cosines(vectors[:n], vectors[n:]), gold)
    row["BM25"] = rank_metrics(bm25(queries, documents), gold)
    return row


def retrieval_tasks(models: dict[str, Encoder], sets: EvaluationSets) -> Iterator[Row]:
    stsb = read_stsb(sets.stsb)
    texts = list(dict.fromkeys(stsb.texts))
    pairs = [(a, b) for a, b, score in zip(*stsb) if score >= 4.5 and a != b]
    name = f"paraphrase retrieval STS-B>=4.5 ({len(pairs)} q, {len(texts)} cand)"
    yield name, retrieve_within(models, texts, pairs)

    pairs = [(row[3], row[4]) for row in read_tsv(sets.msr)[1:] if row[0] == "1"][:600]
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    name = f"paraphrase retrieval MSR news ({len(pairs)} q, {len(texts)} cand)"
    yield name, retrieve_within(models, texts, pairs)

    for name, path, query, document in (
        ("Debian short -> long description", sets.debian, "short", "long"),
        ("WordNet word -> definition", sets.wordnet, "lemma", "definition"),
    ):
        entries = json.loads(path.read_text())
        queries = [entry[query] for entry in entries]
        documents = [entry[document][:400] for entry in entries]
        yield f"{name} ({len(entries)})", retrieve_across(models, queries, documents)


def answer_selection(models: dict[str, Encoder], sets: EvaluationSets) -> Iterator[Row]:
    """TREC-QA test, questions that have right and wrong answers."""
    answers: defaultdict[str, list[str]] = defaultdict(list)
    labels: defaultdict[str, list[int]] = defaultdict(list)
    with open(sets.trec_qa, encoding="utf-8", newline="") as file:
        for entry in csv.DictReader(file):
            answers[entry["qtext"]].append(entry["atext"])
            labels[entry["qtext"]].append(int(entry["label"]))
    questions = [q for q in answers if 0 < sum(labels[q]) < len(labels[q])]
    candidates = [answer for q in questions for answer in answers[q]]
    bounds = np.cumsum([0] + [len(answers[q]) for q in questions])

    def metrics(scores: np.ndarray) -> dict[str, float]:
        """`scores` is [questions, candidates], of which each question has its own part."""
        precision, reciprocal_rank = [], []
        for i, question in enumerate(questions):
            order = np.argsort(-scores[i, bounds[i] : bounds[i + 1]], kind="stable")
            right = np.array(labels[question])[order]
            at = np.cumsum(right) / (np.arange(len(right)) + 1)
            precision.append(at[right == 1].mean())
            reciprocal_rank.append(1 / (np.argmax(right) + 1))
        return {
            "MAP": round(float(np.mean(precision)), 4),
            "MRR": round(float(np.mean(reciprocal_rank)), 4),
        }

    row: dict[str, Scores] = {}
    n = len(questions)
    for label, model in models.items():
        vectors = model.encode(questions + candidates)
        row[label] = metrics(cosines(vectors[:n], vectors[n:]))
    row["BM25"] = metrics(bm25(questions, candidates))
    yield f"TREC-QA answer selection ({n} q)", row


def teacher_agreement(models: dict[str, Encoder], sets: EvaluationSets) -> Iterator[Row]:
    held = json.loads(sets.texts.read_text())
    sources, texts = np.array([s for s, _ in held]), [text for _, text in held]
    members = [np.flatnonzero(sources == source) for source in dict.fromkeys(sources.tolist())]
    members = [rows for rows in members if len(rows) > 20]
    teacher = models["teacher"].encode(texts)
    others = {label: model for label, model in models.items() if label != "teacher"}

    wanted = cosines(teacher, teacher)

    def agreement(similarity: np.ndarray, rows: np.ndarray) -> float:
        upper, part = np.triu_indices(len(rows), 1), np.ix_(rows, rows)
        return float(spearmanr(similarity[part][upper], wanted[part][upper])[0])

    overall: dict[str, Scores] = {}
    within: dict[str, Scores] = {}
    cosine: dict[str, Scores] = {}
    for label, model in others.items():
        vectors = model.encode(texts)
        similarity = cosines(vectors, vectors)
        overall[label] = round(agreement(similarity, np.arange(len(texts))), 4)
        within[label] = round(float(np.mean([agreement(similarity, m) for m in members])), 4)
        if not sp.issparse(vectors):
            cosine[label] = round(float(pair_cosines(vectors, teacher).mean()), 4)
    yield f"Spearman to teacher, held-out text ({len(texts)} texts, all pairs)", overall
    yield "  same, within one source (mean)", within
    yield "  mean cosine to teacher embedding", cosine

    pairs = read_stsb(sets.stsb)
    teacher_cosines = pairs.cosines(models["teacher"].encode(pairs.texts))
    on_pairs: dict[str, Scores] = {}
    for label, model in others.items():
        on_pairs[label] = rho(pairs.cosines(model.encode(pairs.texts)), teacher_cosines)
    yield "Spearman to teacher, STS-B test pairs", on_pairs


TASKS = (similarity_tasks, retrieval_tasks, answer_selection, teacher_agreement)
COLUMNS = ("student", "teacher", "TF-IDF", "TF-IDF char", "BM25")


def table_row(name: str, scores: dict[str, Scores]) -> str:
    """One line of Markdown; of several metrics, all but acc@10."""

    def cell(value: Scores | None) -> str:
        if value is None:
            return "-"
        values = value if isinstance(value, dict) else {"": value}
        return " / ".join(f"{v:.3f}" for metric, v in values.items() if metric != "acc@10")

    return " | ".join(["", name.strip(), *(cell(scores.get(c)) for c in COLUMNS), ""]).strip()


def main() -> None:
    parser = argument_parser(__doc__)
    add_threads(parser)
    parser.add_argument(
        "model", type=Path, nargs="?", default=SHIPPED_MODEL,
        help="model directory (default: the shipped models/jinabert-mini-en)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the scores as JSON")
    args = parser.parse_args()
    sets = EvaluationSets(args.work)
    sets.require()
    torch.set_num_threads(args.threads)

    models: dict[str, Encoder] = {
        "student": Student(args.model),
        "teacher": CachedTeacher(args.work),
        "TF-IDF": TfIdf(words),
        "TF-IDF char": TfIdf(character_ngrams),
    }
    print(" | ".join(["", "task", *COLUMNS, ""]).strip())
    print("|" + "---|" * (len(COLUMNS) + 1))
    results = {}
    for task in TASKS:
        for name, scores in task(models, sets):
            results[name] = scores
            print(table_row(name, scores), flush=True)
    if args.out:
        args.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

"""What answers must be: from the command line of the same binary and from the fixtures' numbers."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
from pathlib import Path
from typing import Any

TEXTS = [
    "The ferry to the island leaves from the northern pier at seven.",
    "On Sundays there is no ferry after six in the evening.",
    "Binary search needs a sorted list and halves it in every step.",
    "A hash table finds a key in constant time on average.",
    "Bread dough rises faster in a warm kitchen.",
    "Knead the dough for ten minutes, then let it rest under a cloth.",
    "The parliament passed the budget with a narrow majority.",
    "Voters will choose a new mayor in the second week of May.",
    "Über die Brücke, Café naïve: 東京の夜 🚀 and an e\u0301 of two characters",
    "The kernel schedules threads; a process owns their memory.",
]

# Clients drop or change some of these, so that not all of them see all.
ODD = ["", "a", "  two\nlines \t and blanks  ", "🚀", "word " * 300]

QUERY = "Which boat goes to the island in the morning?"

CHUNKS = [
    "Berlin is the capital and largest city of Germany.",
    "Its 3.8 million inhabitants make it the most populous city of the European Union.",
    "The city is also one of the states of Germany.",
]

# The narrow server's limit, and a text beyond it.
NARROW = 32
LONG = "the harbour master wrote down the name of every boat " * 8

MESSAGES = {
    "ids": "send texts (LangChain: `check_embedding_ctx_length=False`)",
    "ids_code": "foreign_token_ids",
    "dimensions": "`dimensions` 385: the model has 1 to 384",
    "dimensions_param": "dimensions",
    "empty": "`input` is empty",
    "empty_documents": "`documents` is empty",
    "empty_tei": "`inputs` is empty",
    "empty_kind": "Empty",
    "bad_request": "invalid_request_error",
    "key": "no valid API key: send `Authorization: Bearer KEY`",
    "key_code": "invalid_api_key",
    "key_kind": "authentication_error",
    "encoding": "encoding: expected one of float, base64, binary and ubinary, got `int4`",
    "no_model_code": "model_not_found",
    "no_reranker": "no reranker is served here",
    "busy": "expected at most 1 requests in progress",
    "busy_code": "overloaded",
    "busy_kind": "rate_limit_error",
    "busy_kind_tei": "Overloaded",
    "retry_after": [1, 60],
    "too_long_code": "context_length_exceeded",
    "too_long_kind": "Validation",
    "batch": "over the limit of 20 a request",
    "payload": "the body is over the limit of 1000000 bytes (--payload-limit)",
    "no_chunk": "input 1",
    "origin": "http://page.example",
    "validation": "Validation",
    "prompt": "`prompt_name` `query`: this model has no prompts",
    "metric": "te_request_count",
    "route": "/v1/embeddings",
    "source": "source.md:5-7",
    "embedded_again": "1 of 5 files",
    "embedded_none": "0 of 5 files",
    "not_utf8": "latin.txt: passed over, for it is not UTF-8",
    "no_server": "no embedding server at",
    "no_documents": "no text or markdown files in",
    "no_milvus": "no Milvus at http://127.0.0.1:9",
    "wrong_collection": "has no chunk, chunks, digest, file, first, last, text: take another",
    "wrong_dimension": "has vectors of 8 components",
    "model": "jinabert-mini-en",
    "reranker": "tiny-reranker-bpe",
    "owner": "jinabert",
    "device": "cpu",
}


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


class CommandLine:
    """The binary, as one would call it in a shell."""

    def __init__(self, binary: Path, model: Path, reranker: Path) -> None:
        self.binary, self.model, self.reranker = binary, model, reranker

    def _run(self, command: list[str], lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        run = [str(self.binary), *command, "--device", "cpu", "--quiet", "--input", "-"]
        done = subprocess.run(run, input=text.encode(), capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(run)}: {done.stderr.decode()}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def embed(self, lines: list[dict[str, Any]], *options: str) -> dict[str, Any]:
        command = ["embed", "--model", str(self.model), "--input-format", "jsonl", *options]
        rows = self._run(command, lines)
        return {
            "vectors": [row["embedding"] for row in rows],
            "tokens": [row["tokens"] for row in rows],
        }

    def rerank(self, query: str, documents: list[str]) -> list[dict[str, Any]]:
        # Documents are lines here, so none of them may have a line break.
        run = [str(self.binary), "rerank", "--model", str(self.reranker), "--device", "cpu"]
        text = "".join(document + "\n" for document in documents)
        done = subprocess.run(
            [*run, "--quiet", "--input", "-", query],
            input=text.encode(),
            capture_output=True,
            check=True,
        )
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        return sorted(rows, key=lambda row: row["index"])


def rerank(cli: CommandLine) -> dict[str, Any]:
    """A query with documents: two scored by the fixture, others by the command line."""
    fixture = json.loads((cli.reranker / "cases.json").read_text())
    cases = [case for case in fixture["cases"] if case["name"] in ("pair-1", "pair-2")]
    query = cases[0]["pair"][0]
    known = {case["pair"][1]: case["expect"] for case in cases}
    documents = [cases[1]["pair"][1], *TEXTS[:4], cases[0]["pair"][1]]
    rows = cli.rerank(query, documents)
    logits = []
    for document, row in zip(documents, rows, strict=True):
        if document not in known:
            logits.append(row["logit"])
            continue
        [logit] = known[document]["classifier"]["logits"]
        if abs(logit - row["logit"]) > fixture["tolerance"]["classifier_logits_max_abs"] / 10:
            raise RuntimeError(f"rerank: {row['logit']} is not the fixture's {logit}")
        logits.append(logit)
    order = sorted(range(len(documents)), key=lambda index: -logits[index])
    gaps = [logits[a] - logits[b] for a, b in itertools.pairwise(order)]
    if min(gaps) < 1e-3:
        raise RuntimeError(f"two documents score the same: {logits}")
    return {
        "query": query,
        "documents": documents,
        "logits": logits,
        "scores": [sigmoid(logit) for logit in logits],
        "order": order,
        "tokens": sum(row["tokens"] for row in rows),
    }


def expectations(cli: CommandLine) -> dict[str, Any]:
    """All numbers that clients are to get."""
    lines = [{"text": text} for text in TEXTS]
    document = " ".join(CHUNKS)
    spans, start = [], 0
    for chunk in CHUNKS:
        spans.append([start, start + len(chunk)])
        start += len(chunk) + 1
    late = cli.embed([{"text": document, "spans": spans}], "--late-chunking")
    [whole] = cli.embed([{"text": document}])["tokens"]
    own = {"dimensions": 64}
    return {
        "texts": TEXTS,
        "plain": cli.embed(lines),
        "short": own | cli.embed(lines, "--dimensions", "64"),
        "raw": cli.embed(lines, "--no-normalize"),
        "binary": cli.embed(lines, "--precision", "binary"),
        "ubinary": cli.embed(lines, "--precision", "ubinary"),
        "odd": {"texts": ODD} | cli.embed([{"text": text} for text in ODD]),
        "query": {"text": QUERY} | cli.embed([{"text": QUERY}]),
        "late": {"chunks": CHUNKS, "total": whole} | late,
        "narrow": {"text": LONG, "limit": NARROW}
        | cli.embed([{"text": LONG}], "--max-length", str(NARROW), "--on-long", "truncate"),
        "width": 384,
        "rerank": rerank(cli),
        "messages": MESSAGES,
    }


def falsified(expected: dict[str, Any]) -> dict[str, Any]:
    """The same with every number a little wrong, and every message: no check may pass."""

    def wrong(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            inputs = ("texts", "text", "chunks", "query", "documents")
            return {
                k: v if k in inputs and not isinstance(v, dict) else wrong(v, k)
                for k, v in value.items()
            }
        if isinstance(value, list):
            items = [wrong(item) for item in value]
            return items[1:] + items[:1] if key == "order" else items
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, str):
            return f"not {value}"
        return value + (2e-5 if isinstance(value, float) else 1)

    return wrong(expected)

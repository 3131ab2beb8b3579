"""examples/rag_milvus.py, as one calls it."""

import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient

from .checks import BASE, CONTEXT, KEY, KEYED, M, close, contains, equal
from .expected import CommandLine

SOURCE = """# Boats

The harbour has a pier for fishing boats and a pier for ferries.

## Timetable

The ferry to the island leaves at seven in the morning and at two in the afternoon.

## Food

There is a bakery beside the pier. It opens when the first ferry arrives.
"""

OTHER = """A hash table finds a key in constant time on average.

Binary search needs a sorted list and halves it in every step.
"""

QUESTION = "When does the ferry to the island leave in the morning?"


def call(*options: str, server: str = BASE, code: int = 0, key: str = "") -> tuple[str, str]:
    """What the example prints, and what it says on stderr."""
    script = Path(CONTEXT["root"]) / "examples" / "rag_milvus.py"
    command = [sys.executable, str(script), "--server", server, *options]
    variables = {name: value for name, value in os.environ.items() if name != "JINABERT_API_KEY"}
    variables |= {"JINABERT_API_KEY": key} if key else {}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    equal(done.returncode, code, f"exit code ({done.stderr[-600:]})")
    return done.stdout, done.stderr


def expected(rows: list[dict[str, Any]]) -> dict[tuple[str, int], float]:
    """The cosine of each chunk with the question, by the command line."""
    cli = CommandLine(*(Path(CONTEXT[name]) for name in ("binary", "model", "reranker")))
    [query] = cli.embed([{"text": QUESTION}])["vectors"]
    rows = sorted(rows, key=lambda row: (row["file"], row["first"]))
    cosines = {}
    for file, group in itertools.groupby(rows, key=lambda row: row["file"]):
        chunks = list(group)
        document = "".join(chunk["text"] for chunk in chunks)
        equal(document, Path(file).read_text(encoding="utf-8"), "all chunks together")
        ends = list(itertools.accumulate(len(chunk["text"]) for chunk in chunks))
        spans = [[end - len(chunk["text"]), end] for chunk, end in zip(chunks, ends, strict=True)]
        vectors = cli.embed([{"text": document, "spans": spans}], "--late-chunking")["vectors"]
        for chunk, vector in zip(chunks, vectors, strict=True):
            cosines[file, chunk["first"]] = float(np.dot(vector, query))
    return cosines


def through(uri: str) -> None:
    """Indexes, asks, changes files, and asks again."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name).resolve()
        (directory / "sub").mkdir()
        (directory / "source.md").write_text(SOURCE, encoding="utf-8")
        (directory / "sub" / "other.txt").write_text(OTHER, encoding="utf-8")
        (directory / "third.rst").write_text("Bread dough rises faster in a warm kitchen.\n")
        # Neither UTF-8 nor visible nor a document.
        (directory / "latin.txt").write_bytes("Käse".encode("latin-1"))
        (directory / "nothing.txt").write_text(" \n\u200b\n", encoding="utf-8")
        (directory / "picture.png").write_bytes(b"\x89PNG")
        where = ["--milvus", uri, "--documents", name, "--chunk-size", "60"]
        _, said = call(*where, "--fresh")
        contains(said, "3 of 5 files")
        contains(said, M["not_utf8"])

        shown, said = call(*where, QUESTION)
        contains(said, M["embedded_none"])
        contains(shown.splitlines()[0], M["source"])

        shown, _ = call(*where, "--json", "--top", "100", QUESTION)
        rows = [json.loads(line) for line in shown.splitlines()]
        cosines = expected(rows)
        got = [(row["file"], row["first"]) for row in rows]
        equal(got, sorted(cosines, key=lambda chunk: -cosines[chunk]), "order")
        close([row["score"] for row in rows], [cosines[chunk] for chunk in got], 1e-5)
        for row in rows:
            lines = Path(row["file"]).read_text(encoding="utf-8").splitlines()
            text = "\n".join(lines[row["first"] - 1 : row["last"]])
            equal(row["text"].strip("\n"), text, "lines of a source")

        # A shorter file: the chunks that it had more before must go; a file that is gone, too.
        (directory / "source.md").write_text(SOURCE.split("## Food")[0], encoding="utf-8")
        _, said = call(*where)
        contains(said, M["embedded_again"])
        (directory / "sub" / "other.txt").unlink()
        shown, said = call(*where, "--json", "--top", "100", QUESTION)
        contains(said, "0 of 4 files")
        rows = [json.loads(line) for line in shown.splitlines()]
        equal({Path(row["file"]).name for row in rows}, {"source.md", "third.rst"}, "files")
        equal(any("bakery" in row["text"] for row in rows), False, "what was cut")
        close([row["score"] for row in rows], sorted(expected(rows).values(), reverse=True), 1e-5)

        # Another chunk size is other vectors, also through a server with a key.
        _, said = call(*where[:-1], "500", server=KEYED, key=KEY)
        contains(said, "2 of 4 files")
        _, said = call(*where, server=KEYED, key="wrong", code=1)
        contains(said, M["key"])


def failures(uri: str) -> None:
    """What cannot be done is said in a line."""
    with tempfile.TemporaryDirectory() as name:
        where = ["--milvus", uri, "--documents", name]
        _, said = call(*where, "a", server="http://127.0.0.1:9", code=1)
        contains(said, M["no_server"])
        _, said = call(*where, "a", code=1)
        contains(said, M["no_documents"])
        apart(quick, uri)
        Path(name, "a.md").write_text("A text.\n")
        _, said = call(*where, "--collection", "other", "a", code=1)
        contains(said, M["wrong_collection"])
        apart(narrow, uri)
        _, said = call(*where, "--collection", "narrow", "a", code=1)
        contains(said, M["wrong_dimension"])
        equal(len(said.splitlines()), 1, f"lines of {said}")
        _, said = call("--milvus", "http://127.0.0.1:9", "a", code=1)
        contains(said, M["no_milvus"])
        _, said = call(*where, "--collection", "narrow", "--fresh", "a")
        contains(said, "1 of 1 files")


def apart(run: Callable[[str], None], uri: str) -> None:
    """Runs it in a process of its own: Milvus Lite has a file open until the process ends."""
    process = multiprocessing.get_context("spawn").Process(target=run, args=(uri,))
    process.start()
    process.join()
    equal(process.exitcode, 0, "exit code")


def quick(uri: str) -> None:
    """A collection of another program."""
    MilvusClient(uri).create_collection("other", dimension=8)


def narrow(uri: str) -> None:
    """A collection of the example's, for vectors of eight components."""
    client = MilvusClient(uri)
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
    for name in ("file", "digest", "text"):
        schema.add_field(name, DataType.VARCHAR, max_length=4096)
    for name in ("chunk", "chunks", "first", "last"):
        schema.add_field(name, DataType.INT64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=8)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
    client.create_collection("narrow", schema=schema, index_params=index)

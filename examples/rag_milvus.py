#!/usr/bin/env python3
"""Finds the passages of a folder's documents that answer a question, with jinabert and Milvus.

    jinabert serve &
    pip install 'pymilvus[milvus_lite]'
    python examples/rag_milvus.py "How are long documents handled?"
    python examples/rag_milvus.py --documents ~/notes --milvus http://localhost:19530 "Who called?"

Documents are split into chunks at blank lines and headings. All chunks of a document go to the
server in one request with `late_chunking: true`: the model reads the document as a whole, and each
chunk's vector knows what stands around it. Vectors, texts and line numbers are kept in Milvus, by
default Milvus Lite in ./rag.db. The next time, only documents that changed are embedded again.

What a language model would be given beside the question is what this prints: texts and sources.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    from pymilvus import DataType, MilvusClient, MilvusException
except ImportError as missing:
    sys.exit(f"rag_milvus.py: {missing}: pip install 'pymilvus[milvus_lite]'")

# They log what they raise as well, with its traceback.
for name in ("pymilvus", "milvus_lite"):
    logging.getLogger(name).setLevel(logging.CRITICAL)

ROOT = Path(__file__).resolve().parents[1]

# What is read; a document of megabytes is hardly one that people wrote.
ENDINGS = {".md", ".markdown", ".rst", ".txt"}
LARGEST = 2 << 20

# The server takes 2,048 texts a request; a document of more chunks is sent in parts.
MOST_CHUNKS = 512


class Failure(Exception):
    """What is printed instead of a traceback."""


class Refused(Failure):
    """The server is there, but does not take what was sent."""


@dataclass
class Chunk:
    """Lines of a document, the first and the last of them counted from 1."""

    first: int
    last: int
    text: str


def split(text: str, size: int) -> list[Chunk]:
    """Chunks of about so many characters, cut at headings and blank lines where there are any.

    Chunks keep their line breaks, so that all of them together are the document again.
    """
    chunks: list[Chunk] = []
    lines: list[str] = []
    start, length, code = 1, 0, False

    def close(after: int) -> None:
        nonlocal start, length
        # Blank lines alone are no chunk, nor are those around one counted.
        text = "".join(lines)
        if visible(text):
            before = next(n for n, line in enumerate(lines) if visible(line))
            behind = next(n for n, line in enumerate(reversed(lines)) if visible(line))
            chunks.append(Chunk(start + before, after - behind, text))
        lines.clear()
        start, length = after + 1, 0

    # Lines as editors count them.
    number = 0
    for number, line in enumerate(io.StringIO(text, newline="\n"), 1):
        fence = line.lstrip().startswith("```")
        heading = line.startswith("#") and not code
        # A heading belongs to what follows it, and begins a chunk unless the last is still short.
        if lines and ((heading and length > size // 4) or length + len(line) > 2 * size):
            close(number - 1)
        lines.append(line)
        length += len(line)
        code ^= fence
        if not line.strip() and not code and length >= size:
            close(number)
    close(number)
    return chunks


def visible(text: str) -> bool:
    """Whether a reader would see anything: no blanks, zero-width spaces or control characters."""
    return any(character.isprintable() and not character.isspace() for character in text)


def documents(paths: list[Path]) -> Iterator[Path]:
    """Files that look like documents: those named, and those in folders."""
    for path in paths:
        if path.is_file():
            yield path.resolve()
            continue
        if not path.is_dir():
            raise Failure(f"there is no {path}")
        for folder, folders, names in os.walk(path):
            # Neither hidden folders nor what was installed or built.
            folders[:] = sorted(
                name
                for name in folders
                if not name.startswith(".") and name not in ("node_modules", "target")
            )
            for name in sorted(names):
                file = Path(folder, name)
                if file.suffix.lower() in ENDINGS and file.stat().st_size <= LARGEST:
                    yield file.resolve()


class Embedder:
    """A server that answers POST /v1/embeddings."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url, self.key = url.rstrip("/"), key
        # What the model is called and how long its vectors are, it says itself.
        answer = self.ask(["What is it?"], late_chunking=False)
        self.model: str = answer["model"]
        self.width = len(answer["data"][0]["embedding"])

    def ask(self, texts: list[str], late_chunking: bool) -> dict[str, Any]:
        body = {"input": texts, "late_chunking": late_chunking}
        headers = {"content-type": "application/json"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/v1/embeddings", data, headers)
        for attempt in range(10):
            try:
                with urllib.request.urlopen(request, timeout=600) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as e:
                # Too much to do, or still loading: it says when to come again.
                if e.code in (429, 503) and attempt < 9:
                    time.sleep(float(e.headers.get("retry-after") or 1))
                    continue
                kind = Refused if e.code in (400, 413, 422) else Failure
                raise kind(f"{self.url} answers {e.code}: {message(e.read())}") from e
            except (urllib.error.URLError, ConnectionError) as e:
                reason = getattr(e, "reason", e)
                hint = "start one with `jinabert serve`"
                raise Failure(f"no embedding server at {self.url} ({reason}): {hint}") from e
        raise AssertionError

    def question(self, text: str) -> list[float]:
        return self.ask([text], late_chunking=False)["data"][0]["embedding"]

    def document(self, chunks: list[Chunk]) -> list[list[float]]:
        """A vector for each chunk, in the light of the whole document."""
        vectors: list[list[float]] = []
        for start in range(0, len(chunks), MOST_CHUNKS):
            texts = [chunk.text for chunk in chunks[start : start + MOST_CHUNKS]]
            data = self.ask(texts, late_chunking=True)["data"]
            vectors += [item["embedding"] for item in data]
        return vectors


def message(body: bytes) -> str:
    """What a server says is wrong."""
    try:
        return json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace") or "nothing else"


class Store:
    """A Milvus collection of chunks. Its rows are the same in Milvus Lite and in a server."""

    def __init__(self, uri: str, collection: str, width: int, fresh: bool) -> None:
        self.name = collection
        try:
            self.client = MilvusClient(uri)
        except MilvusException as e:
            hint = "" if "://" in uri else " (does another program have it open?)"
            raise Failure(f"no Milvus at {uri}: {e.message}{hint}") from e
        if fresh and self.client.has_collection(collection):
            self.client.drop_collection(collection)
        if self.client.has_collection(collection):
            self.check(uri, width)
            self.client.load_collection(collection)
            return
        schema = self.client.create_schema(auto_id=False)
        # Of the file's name and the chunk's number, so that rows of a file can be named.
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
        schema.add_field("file", DataType.VARCHAR, max_length=4096)
        schema.add_field("chunk", DataType.INT64)
        # How many chunks the file has, and what they were made of.
        schema.add_field("chunks", DataType.INT64)
        schema.add_field("digest", DataType.VARCHAR, max_length=64)
        schema.add_field("first", DataType.INT64)
        schema.add_field("last", DataType.INT64)
        schema.add_field("text", DataType.VARCHAR, max_length=65535)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=width)
        index = self.client.prepare_index_params()
        index.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
        self.client.create_collection(
            collection, schema=schema, index_params=index, consistency_level="Strong"
        )

    def check(self, uri: str, width: int) -> None:
        """The collection must be one of these, for vectors of this model."""
        fields = {
            field["name"]: field for field in self.client.describe_collection(self.name)["fields"]
        }
        remedy = "take another --collection, or --fresh to begin it anew"
        missing = {"id", "file", "chunk", "chunks", "digest", "first", "last", "text", "vector"}
        if missing := missing - set(fields):
            names = ", ".join(sorted(missing))
            raise Failure(f"collection `{self.name}` of {uri} has no {names}: {remedy}")
        there = int(fields["vector"]["params"]["dim"])
        if there != width:
            raise Failure(
                f"collection `{self.name}` of {uri} has vectors of {there} components, "
                f"the model makes {width}: {remedy}"
            )

    def known(self) -> dict[str, tuple[str, int]]:
        """Files that are there: what they were made of, and their number of chunks."""
        known: dict[str, tuple[str, int]] = {}
        rows = self.client.query_iterator(
            self.name,
            batch_size=1000,
            filter="chunk == 0",
            output_fields=["file", "digest", "chunks"],
        )
        while batch := rows.next():
            known |= {row["file"]: (row["digest"], row["chunks"]) for row in batch}
        rows.close()
        return known

    @staticmethod
    def key(file: str, chunk: int) -> str:
        return f"{hashlib.sha256(file.encode()).hexdigest()[:40]}-{chunk}"

    def remove(self, file: str, chunks: int) -> None:
        self.client.delete(self.name, ids=[self.key(file, chunk) for chunk in range(chunks)])

    def add(self, file: str, digest: str, chunks: list[Chunk], vectors: list[list[float]]) -> None:
        rows = [
            {
                "id": self.key(file, number),
                "file": file,
                "chunk": number,
                "chunks": len(chunks),
                "digest": digest,
                "first": chunk.first,
                "last": chunk.last,
                # Bytes count, not characters.
                "text": chunk.text.encode()[:65535].decode(errors="ignore"),
                "vector": vector,
            }
            for number, (chunk, vector) in enumerate(zip(chunks, vectors, strict=True))
        ]
        # The first chunk says that a file is there, so it comes last.
        for start in range(1, len(rows), 500):
            self.client.insert(self.name, rows[start : start + 500])
        self.client.insert(self.name, rows[:1])

    def nearest(self, vector: list[float], count: int) -> list[dict[str, Any]]:
        fields = ["file", "first", "last", "text"]
        [hits] = self.client.search(self.name, [vector], limit=count, output_fields=fields)
        return [{"score": hit["distance"], **{f: hit["entity"][f] for f in fields}} for hit in hits]


def index(paths: list[Path], size: int, embedder: Embedder, store: Store) -> str:
    """Brings the store up to date, and says what there was to do."""
    files = list(dict.fromkeys(documents(paths)))
    if not files:
        names = ", ".join(str(path) for path in paths)
        raise Failure(f"no text or markdown files in {names} ({', '.join(sorted(ENDINGS))})")
    known, embedded, added, found = store.known(), 0, 0, set()
    for number, file in enumerate(files, 1):
        name, content = str(file), file.read_bytes()
        # Another model or other chunks make other vectors.
        made_of = hashlib.sha256(f"{embedder.model} {embedder.width} {size} ".encode() + content)
        digest = made_of.hexdigest()
        try:
            chunks = split(content.decode("utf-8-sig"), size)
        except UnicodeDecodeError:
            print(f"{show(name)}: passed over, for it is not UTF-8", file=sys.stderr)
            continue
        if not chunks:
            continue
        found.add(name)
        if known.get(name, ("", 0))[0] == digest:
            continue
        progress(f"{number} of {len(files)}: {show(name)}")
        try:
            vectors = embedder.document(chunks)
        except Refused as e:
            print(f"{show(name)}: passed over: {e}", file=sys.stderr)
            continue
        if name in known:
            store.remove(name, known[name][1])
        store.add(name, digest, chunks, vectors)
        embedded, added = embedded + 1, added + len(chunks)
    progress("")
    # Files that were deleted since, where we looked; other folders may be in the collection too.
    roots = [path.resolve() for path in paths]
    for name in sorted(set(known) - found):
        if any(root in (Path(name), *Path(name).parents) for root in roots):
            store.remove(name, known[name][1])
    return f"embedded {embedded} of {len(files)} files ({added} chunks)"


def progress(text: str) -> None:
    """A line that the next one replaces, if someone looks."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text[:100]}", end="", file=sys.stderr, flush=True)


def show(file: str) -> str:
    """A path from here, if that is shorter."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    default = " [default: %(default)s]"
    add("question", nargs="?", help="without one, documents are only indexed")
    folders = "a folder or file, again for more [default: the repository's docs, or /usr/share/doc]"
    add("--documents", action="append", type=Path, metavar="PATH", help=folders)
    server = "the embedding server; its key is taken from $JINABERT_API_KEY" + default
    add("--server", default="http://127.0.0.1:8080", metavar="URL", help=server)
    milvus = "a path for Milvus Lite, or http://HOST:19530" + default
    add("--milvus", default="./rag.db", metavar="URI", help=milvus)
    add("--collection", default="jinabert_rag", metavar="NAME", help=default.strip())
    add("--fresh", action="store_true", help="drop the collection first")
    add("--top", type=int, default=5, metavar="N", help="passages to show" + default)
    size = "about so long is a chunk" + default
    add("--chunk-size", type=int, default=800, metavar="CHARACTERS", help=size)
    add("--json", action="store_true", help="passages as lines of JSON, whole")
    options = parser.parse_args()
    if options.top < 1 or options.chunk_size < 1:
        parser.error("--top and --chunk-size are at least 1")
    own = ROOT / "docs"
    paths = options.documents or [own if own.is_dir() else Path("/usr/share/doc")]

    embedder = Embedder(options.server, os.environ.get("JINABERT_API_KEY"))
    store = Store(options.milvus, options.collection, embedder.width, options.fresh)
    print(index(paths, options.chunk_size, embedder, store), file=sys.stderr)
    if not options.question:
        return
    for rank, hit in enumerate(store.nearest(embedder.question(options.question), options.top), 1):
        if options.json:
            print(json.dumps(hit, ensure_ascii=False))
            continue
        print(f"{rank}. {hit['score']:.3f}  {show(hit['file'])}:{hit['first']}-{hit['last']}")
        lines = [line for line in hit["text"].splitlines() if line.strip()]
        print("".join(f"   {line[:96]}\n" for line in lines[:4]))


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"rag_milvus.py: {failure}")
    except MilvusException as failure:
        sys.exit(f"rag_milvus.py: Milvus: {failure.message}")
    except KeyboardInterrupt:
        sys.exit(130)

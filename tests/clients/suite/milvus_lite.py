"""Milvus Lite inside the process."""

import tempfile
from pathlib import Path

from pymilvus import MilvusClient

from . import checks, neighbours, rag
from .checks import check


@check("milvus-lite", "MilvusClient(file): create, insert, search; nearest as by NumPy")
def embedded() -> None:
    with tempfile.TemporaryDirectory() as directory:
        client = MilvusClient(str(Path(directory) / "vectors.db"))
        neighbours.nearest(client, ["FLAT", "HNSW"])
        client.close()


@check("milvus-lite", "examples/rag_milvus.py: index, ask, only what changed again")
def example() -> None:
    with tempfile.TemporaryDirectory() as directory:
        rag.through(str(Path(directory) / "rag.db"))


@check("milvus-lite", "examples/rag_milvus.py: no server, no documents, another's collection")
def failures() -> None:
    with tempfile.TemporaryDirectory() as directory:
        rag.failures(str(Path(directory) / "rag.db"))


if __name__ == "__main__":
    checks.run()

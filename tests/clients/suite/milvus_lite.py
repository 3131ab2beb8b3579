"""Milvus Lite inside the process."""

import tempfile
from pathlib import Path

from pymilvus import MilvusClient

from . import checks, milvus
from .checks import check


@check("milvus-lite", "MilvusClient(file): create, insert, search; nearest as by NumPy")
def embedded() -> None:
    with tempfile.TemporaryDirectory() as directory:
        client = MilvusClient(str(Path(directory) / "vectors.db"))
        milvus.nearest(client, ["FLAT", "HNSW"])
        client.close()


if __name__ == "__main__":
    checks.run()

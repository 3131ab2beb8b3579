"""Milvus reached over gRPC: Milvus Lite's own server, and a standalone server."""

import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pymilvus import MilvusClient

from . import checks, neighbours, rag
from .checks import CONTEXT, check
from .server import Server

TARGET = Path(CONTEXT["target"])
STANDALONE: list[Server] = []


def standalone() -> str:
    """Its address; started by whoever needs it first."""
    if not STANDALONE:
        python = TARGET / "env-milvus" / "bin" / "python"
        script = Path(__file__).with_name("milvus_standalone_server.py")
        command = [str(python), str(script), str(TARGET / "milvus")]
        log = TARGET / "log" / "milvus-standalone.log"
        STANDALONE.append(Server(command, log, r"listening on (http://\S+)", patience=240))
    return STANDALONE[0].url


@contextmanager
def lite() -> Iterator[str]:
    """The address of a Milvus Lite server, while it is needed."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        program = Path(sys.executable).with_name("milvus-lite")
        where = ["--data-dir", directory, "--host", "127.0.0.1", "--port", str(port)]
        log = TARGET / "log" / "milvus-lite.log"
        server = Server([str(program), "server", *where], log, r"()", patience=60)
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.stop()


@check("milvus-lite", "milvus-lite server: create, insert, search; nearest as by NumPy")
def lite_server() -> None:
    with lite() as url:
        client = MilvusClient(url)
        neighbours.nearest(client, ["FLAT", "HNSW"])
        client.close()


@check("milvus 2.3.5", "standalone server: create, insert, search; nearest as by NumPy")
def standalone_server() -> None:
    client = MilvusClient(standalone())
    neighbours.nearest(client, ["FLAT", "IVF_FLAT", "HNSW", "AUTOINDEX"])
    client.close()


@check("milvus 2.3.5", "examples/rag_milvus.py --milvus URL: index, ask, only what changed again")
def example() -> None:
    rag.through(standalone())


if __name__ == "__main__":
    checks.AT_END.append(lambda: [server.stop() for server in STANDALONE])
    checks.run()

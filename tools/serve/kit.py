"""What the tools of this folder share: a server, a client, sentences and their vectors."""

import argparse
import asyncio
import base64
import json
import math
import os
import re
import resource
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Iterable, Sequence
from operator import sub
from pathlib import Path

import serving

ROOT = Path(__file__).resolve().parents[2]
SENTENCES = (Path(__file__).parent / "sentences.txt").read_text().splitlines()

# What a vector may differ by from the one that the command line gives.
BOUND = 1e-5


def parser(about: str | None) -> argparse.ArgumentParser:
    """The options that every tool has; what follows `--` goes to the server."""
    parser = argparse.ArgumentParser(
        description=about,
        epilog="What follows -- goes to `jinabert serve`.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    program = ROOT / "target/release/jinabert"
    parser.add_argument("--program", type=Path, default=program, help="jinabert")
    parser.add_argument("--model", default=str(ROOT / "models/jinabert-mini-en"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("server", nargs="*", help=argparse.SUPPRESS)
    return parser


def verdict(faults: Sequence[str]) -> None:
    """Says what was wrong, and ends with exit code 1 if anything was."""
    for fault in faults:
        print(f"FAULT: {fault}")
    print("no fault" if not faults else f"{len(faults)} faults")
    sys.exit(bool(faults))


class Server(serving.Server):
    """A server of the tool's own, until the block ends."""

    def __init__(self, options: argparse.Namespace) -> None:
        files()
        given = ["--model", options.model, *options.server]
        command = serving.command(options.program, *given, device=options.device)
        self.file = tempfile.NamedTemporaryFile(suffix=".log")
        try:
            super().__init__(command, Path(self.file.name), serving.READY, patience=120)
        except RuntimeError as e:
            sys.exit(str(e))
        self.pid = self.process.pid
        host, port = self.url.removeprefix("http://").split(":")
        self.host, self.port = host, int(port)

    def __exit__(self, *_: object) -> None:
        if self.stop() < 0:
            print("the server did not end within 40 s of SIGTERM", file=sys.stderr)

    def alive(self) -> bool:
        return self.process.poll() is None

    def rss(self) -> int:
        """Bytes in memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def processor(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def files(self) -> int:
        """Open file descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def client(self) -> "Client":
        return Client(self.host, self.port)


def files() -> None:
    """Lets this process, and the server after it, open as many files as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def request(path: str, body: object = None, headers: Iterable[str] = ()) -> bytes:
    """A request of HTTP/1.1: GET without a body, POST with one."""
    data = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "host: tools", *headers]
    if body is not None:
        lines += ["content-type: application/json", f"content-length: {len(data)}"]
    return "\r\n".join([*lines, "", ""]).encode() + data


def embeddings(texts: str | Sequence[str]) -> bytes:
    """A request for vectors in base64."""
    return request("/v1/embeddings", {"input": texts, "encoding_format": "base64"})


class Answer:
    """What a server said."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self.status = int(head[9:12])
        self.head = head
        self.body = body

    def headers(self) -> dict[str, str]:
        """By their names in lower case."""
        lines = self.head.decode("latin-1").lower().split("\r\n")
        return dict(line.split(": ", 1) for line in lines if ": " in line)

    def json(self) -> dict:
        return json.loads(self.body)

    def encoded(self) -> list[str]:
        """The vectors of an answer in base64, in order."""
        return [item["embedding"] for item in self.json()["data"]]


class Client:
    """A connection that is kept, and opened anew after it was closed."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.reader is None or self.writer is None or self.reader.at_eof():
            self.close()
            opened = await asyncio.open_connection(self.host, self.port, limit=1 << 20)
            self.reader, self.writer = opened
        return self.reader, self.writer

    async def ask(self, request: bytes) -> Answer:
        """Raises `OSError` or `asyncio.IncompleteReadError` if the connection breaks off."""
        reader, writer = await self.open()
        try:
            writer.write(request)
            await writer.drain()
            return await answer(reader)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self.writer:
            self.writer.close()
        self.reader = self.writer = None


LENGTH = re.compile(rb"(?i)\ncontent-length: *(\d+)")
CHUNKED = re.compile(rb"(?i)\ntransfer-encoding: *chunked")


async def answer(reader: asyncio.StreamReader) -> Answer:
    """Reads the next one."""
    head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
    if length := LENGTH.search(head):
        return Answer(head, await reader.readexactly(int(length[1])))
    body = b""
    if CHUNKED.search(head):
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readline()
    return Answer(head, body)


class Truth:
    """The vectors that `jinabert embed` gives."""

    def __init__(self, options: argparse.Namespace, texts: Sequence[str]) -> None:
        command = [options.program, "-q", "embed", "--model", options.model]
        command += ["--device", options.device, "--input-format", "jsonl"]
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        done = subprocess.run(command, input=lines, text=True, capture_output=True)
        if done.returncode:
            sys.exit(f"jinabert embed: {done.stderr}")
        rows = [json.loads(line)["embedding"] for line in done.stdout.splitlines()]
        self.vectors = {text: array("f", row) for text, row in zip(texts, rows, strict=True)}
        self.seen: dict[tuple[str, bytes], float] = {}
        self.worst = 0.0
        self.compared = 0

    def check(self, text: str, body: bytes) -> bool:
        """Whether an answer to `embeddings` of one text has its vector."""
        self.compared += 1
        difference = self.seen.get((text, body))
        if difference is None:
            [encoded] = Answer(b"HTTP/1.1 200", body).encoded()
            difference = self.difference(text, encoded)
            # The same bytes are as right the next time.
            if len(self.seen) < 1 << 14:
                self.seen[text, body] = difference
            self.worst = max(self.worst, difference)
        return difference <= BOUND

    def difference(self, text: str, encoded: str) -> float:
        vector = array("f", base64.b64decode(encoded))
        true = self.vectors[text]
        if len(vector) != len(true) or not all(map(math.isfinite, vector)):
            return math.inf
        return max(map(abs, map(sub, vector, true)))


def quantile(values: Iterable[float], share: float) -> float:
    """The least of `values` that so great a share of them does not exceed."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(seconds: Sequence[float]) -> str:
    """Quantiles in milliseconds."""
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    found = (f"{name} {1000 * quantile(seconds, share):.1f}" for name, share in shares.items())
    return ", ".join(found) + " ms"

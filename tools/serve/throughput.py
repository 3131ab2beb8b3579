#!/usr/bin/env python3
"""Texts a second over HTTP against the same texts through `jinabert embed`.

The server is asked over loopback in base64 on several kept connections; the command line reads a
file.  The command line's own start is taken out by running it on all texts and on a quarter of
them.  The two take turns, and the medians are compared.  Clients read the answers and count their
vectors; the first answer of each turn is compared with the command line's vectors in full.
"""

import argparse
import asyncio
import base64
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path

import kit


def texts(count: int) -> list[str]:
    """Pairs of sentences, so that hardly one comes twice."""
    own = kit.SENTENCES
    pairs = ((n % len(own), (n // len(own) * 7 + n) % len(own)) for n in range(count))
    return [own[a] if a == b else f"{own[a]} {own[b]}" for a, b in pairs]


def npy(path: Path) -> list[array]:
    """Rows of a file of 32-bit floats."""
    data = path.read_bytes()
    (length,) = struct.unpack("<H", data[8:10])
    shape = data[10 : 10 + length].split(b"(")[1].split(b")")[0].split(b",")
    width = int(shape[1])
    numbers = array("f", data[10 + length :])
    return [numbers[n : n + width] for n in range(0, len(numbers), width)]


class Library:
    """`jinabert embed` on all texts and on a quarter of them."""

    def __init__(self, options: argparse.Namespace, folder: Path, texts: list[str]) -> None:
        self.options, self.folder, self.texts = options, folder, texts
        self.part = len(texts) // 4
        for name, some in (("all", texts), ("part", texts[: self.part])):
            (folder / f"{name}.txt").write_text("".join(f"{text}\n" for text in some))

    def run(self, name: str) -> float:
        start = time.monotonic()
        command = [self.options.program, "-q", "embed", "--model", self.options.model]
        command += ["--device", self.options.device, "--input", self.folder / f"{name}.txt"]
        subprocess.run([*command, "--output", self.folder / f"{name}.npy"], check=True)
        return time.monotonic() - start

    def rate(self) -> float:
        part = self.run("part")
        return (len(self.texts) - self.part) / (self.run("all") - part)


class Http:
    """The server, asked over several connections."""

    def __init__(self, options: argparse.Namespace, server: kit.Server, texts: list[str]) -> None:
        self.server, self.connections, self.texts = server, options.connections, texts
        starts = range(0, len(texts), options.each)
        self.lists = [texts[n : n + options.each] for n in starts]
        self.requests = [kit.embeddings(some) for some in self.lists]
        self.first: list[array] = []

    def rate(self) -> float:
        start = time.monotonic()
        asyncio.run(self.ask())
        return len(self.texts) / (time.monotonic() - start)

    async def ask(self) -> None:
        queue = list(reversed(list(enumerate(self.requests))))
        await asyncio.gather(*(self.client(queue) for _ in range(self.connections)))

    async def client(self, queue: list[tuple[int, bytes]]) -> None:
        client = self.server.client()
        while queue:
            n, request = queue.pop()
            answer = await client.ask(request)
            if answer.status != 200:
                sys.exit(f"answered {answer.status}: {answer.body[:200]!r}")
            if answer.body.count(b'"embedding":"') != len(self.lists[n]):
                sys.exit(f"request {n} has another number of vectors")
            if n == 0:
                found = answer.encoded()
                self.first = [array("f", base64.b64decode(vector)) for vector in found]
        client.close()


def main() -> None:
    parser = kit.parser(__doc__)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--each", type=int, default=256, help="texts of a request")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    given = texts(options.texts)
    rates: dict[str, list[float]] = {"library": [], "server": []}
    with tempfile.TemporaryDirectory() as folder, kit.Server(options) as server:
        library = Library(options, Path(folder), given)
        http = Http(options, server, given)
        http.rate()
        worst = 0.0
        for turn in range(options.turns):
            rates["library"].append(library.rate())
            spent, own = server.processor(), time.process_time()
            rates["server"].append(http.rate())
            spent, own = server.processor() - spent, time.process_time() - own
            pairs = zip(http.first, npy(Path(folder) / "all.npy"))
            worst = max([worst, *(abs(a - b) for x, y in pairs for a, b in zip(x, y))])
            last = {name: f"{values[-1]:.0f}" for name, values in rates.items()}
            print(
                f"turn {turn + 1}: library {last['library']}, server {last['server']} texts/s "
                f"(processor: {spent:.1f} s of the server, {own:.1f} s of its clients)",
                flush=True,
            )
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"medians: library {medians['library']:.0f}, server {medians['server']:.0f} texts/s")
    print(f"ratio:   {medians['server'] / medians['library']:.3f}, max |Δ| {worst:.1e}")
    sys.exit(worst > kit.BOUND)


if __name__ == "__main__":
    main()

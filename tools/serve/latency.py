#!/usr/bin/env python3
"""How long one short query takes while a bulk job runs on the same server.

The query is asked again and again, with pauses of random length, (a) of an idle server and
(b) while another process has it embed many texts, 2,048 a request over 4 connections.  Between
the two, how long one full batch takes: a request of exactly as many tokens as fit in one, checked
by the server's own count of batches.  Exit code 1 unless p99 under load is at most 5 times p99
idle and one batch more.
"""

import argparse
import asyncio
import multiprocessing
import random
import re
import socket
import sys
import time
from multiprocessing.synchronize import Event

import kit

QUERY = "How do I reset my password?"


async def metric(client: kit.Client, name: str) -> float:
    text = (await client.ask(kit.request("/metrics"))).body.decode()
    found = re.search(rf"^{name} ([\d.e+]+)$", text, re.M)
    return float(found[1]) if found else 0.0


async def query(client: kit.Client) -> float:
    start = time.monotonic()
    answer = await client.ask(kit.embeddings(QUERY))
    if answer.status != 200:
        sys.exit(f"the query is answered {answer.status}: {answer.body[:200]!r}")
    return time.monotonic() - start


async def tokens(client: kit.Client, texts: list[str]) -> int:
    answer = await client.ask(kit.embeddings(texts))
    if answer.status != 200:
        sys.exit(f"a batch is answered {answer.status}: {answer.body[:200]!r}")
    return answer.json()["usage"]["total_tokens"]


async def full_batch(client: kit.Client) -> tuple[list[str], int]:
    """Short texts that fill one batch to the last token."""
    info = (await client.ask(kit.request("/info"))).json()
    room = info["max_batch_tokens"]
    sizes = [await tokens(client, [sentence]) for sentence in kit.SENTENCES]
    special = await tokens(client, ["the"]) - 1
    if special != await tokens(client, ["the the"]) - 2:
        sys.exit("`the` is not one token of this model")
    texts: list[str] = []
    while room > 3 * max(sizes):
        n = len(texts) % len(sizes)
        texts.append(kit.SENTENCES[n])
        room -= sizes[n]
    texts.append(" ".join(["the"] * (room - special)))
    if await tokens(client, texts) != info["max_batch_tokens"]:
        sys.exit("the texts do not fill a batch")
    return texts, info["max_batch_tokens"]


async def batch(client: kit.Client, count: int) -> tuple[list[float], int, int]:
    """Seconds of requests that are one full batch each, its texts and tokens."""
    texts, size = await full_batch(client)
    request, seconds = kit.embeddings(texts), []
    before = await metric(client, "te_batch_next_tokens_count")
    for _ in range(count):
        start = time.monotonic()
        await client.ask(request)
        seconds.append(time.monotonic() - start)
    run = await metric(client, "te_batch_next_tokens_count") - before
    if run != count:
        print(f"note: {count} requests of {size} tokens were {run:g} batches")
    return seconds, len(texts), size


def bulk(host: str, port: int, texts: int, connections: int, each: int, began: Event) -> None:
    """The bulk job, in a process of its own; answers are read and dropped."""

    async def one(queue: list[bytes]) -> None:
        reader, writer = await asyncio.open_connection(host, port, limit=1 << 20)
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        while queue:
            writer.write(queue.pop())
            await writer.drain()
            began.set()
            answer = await kit.answer(reader)
            if answer.status != 200:
                print(f"the bulk job is answered {answer.status}: {answer.body[:200]!r}")
        writer.close()

    async def all_() -> None:
        sentences = kit.SENTENCES
        lists = [
            [sentences[n % len(sentences)] for n in range(first, min(first + each, texts))]
            for first in range(0, texts, each)
        ]
        queue = [kit.embeddings(texts) for texts in lists]
        await asyncio.gather(*(one(queue) for _ in range(connections)))

    asyncio.run(all_())


async def measure(server: kit.Server, options: argparse.Namespace) -> bool:
    client = server.client()
    for _ in range(50):
        await query(client)
    idle = []
    for _ in range(options.queries):
        idle.append(await query(client))
        await asyncio.sleep(random.uniform(0, 2 * options.pause))
    batches, count, size = await batch(client, options.batches)

    began = multiprocessing.Event()
    shape = (options.texts, options.connections, options.each)
    job = multiprocessing.Process(target=bulk, args=(server.host, server.port, *shape, began))
    job.start()
    while not began.is_set():
        await asyncio.sleep(0.01)
    start = time.monotonic()
    # The first requests of the job are read and tokenised: that is part of the load.
    loaded = []
    while job.is_alive():
        loaded.append(await query(client))
        await asyncio.sleep(random.uniform(0, 2 * options.pause))
    took = time.monotonic() - start
    job.join()

    one = kit.quantile(batches, 0.5)
    print(
        f"one batch: {kit.spread(batches)} ({count} texts, {size} tokens, {options.batches} runs)"
    )
    print(f"idle:      {kit.spread(idle)} ({len(idle)} queries)")
    print(f"loaded:    {kit.spread(loaded)} ({len(loaded)} queries)")
    print(f"bulk job:  {options.texts} texts in {took:.1f} s, {options.texts / took:.0f} texts/s")
    limit = 5 * kit.quantile(idle, 0.99) + one
    worst = kit.quantile(loaded, 0.99)
    holds = worst <= limit
    print(
        f"p99 loaded {1000 * worst:.1f} ms {'<=' if holds else '>'} "
        f"5 × p99 idle + one batch = {1000 * limit:.1f} ms"
    )
    return holds


def main() -> None:
    parser = kit.parser(__doc__)
    parser.add_argument("--texts", type=int, default=100_000, help="of the bulk job")
    parser.add_argument("--each", type=int, default=2048, help="texts of one of its requests")
    parser.add_argument("--connections", type=int, default=4, help="of the bulk job")
    parser.add_argument("--queries", type=int, default=1000, help="of the idle server")
    parser.add_argument("--batches", type=int, default=30, help="full batches that are timed")
    parser.add_argument("--pause", type=float, default=0.04, help="seconds between queries, mean")
    options = parser.parse_args()
    with kit.Server(options) as server:
        holds = asyncio.run(measure(server, options))
    sys.exit(not holds)


if __name__ == "__main__":
    main()

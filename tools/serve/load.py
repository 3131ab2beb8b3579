#!/usr/bin/env python3
"""Many connections, each asking for the vector of one short text after the other.

Every vector is compared with the one that `jinabert embed` gives for the same text.  Exit code 1
if one differs by more than 1e-5, if a connection breaks off, or if an answer is neither 200 nor
429.  A client that is told 429 waits as long as `Retry-After` says.
"""

import asyncio
import random
import sys
import time
from collections import Counter

import kit


class Load:
    """What happened on all connections."""

    def __init__(self, server: kit.Server, truth: kit.Truth, end: float) -> None:
        self.server, self.truth, self.end = server, truth, end
        self.requests = {text: kit.embeddings(text) for text in kit.SENTENCES}
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.wrong = 0
        self.served = 0
        self.ready = asyncio.Event()

    async def client(self, number: int, opening: asyncio.Semaphore) -> None:
        random_ = random.Random(number)
        client = self.server.client()
        async with opening:
            await client.open()
        await self.ready.wait()
        answered = False
        while time.monotonic() < self.end:
            text = random_.choice(kit.SENTENCES)
            start = time.monotonic()
            try:
                answer = await client.ask(self.requests[text])
            except (OSError, asyncio.IncompleteReadError) as error:
                self.statuses[type(error).__name__] += 1
                await asyncio.sleep(0.1)
                continue
            took = time.monotonic() - start
            self.statuses[str(answer.status)] += 1
            if answer.status == 429:
                await asyncio.sleep(
                    float(answer.headers()["retry-after"]) * random_.uniform(0.5, 1)
                )
            elif answer.status == 200:
                self.seconds.append(took)
                self.wrong += not self.truth.check(text, answer.body)
                answered = True
        self.served += answered
        client.close()


async def measure(server: kit.Server, truth: kit.Truth, count: int, seconds: float) -> Load:
    load = Load(server, truth, 0.0)
    # Fewer than a listener's queue holds.
    opening = asyncio.Semaphore(100)
    clients = [asyncio.create_task(load.client(n, opening)) for n in range(count)]
    await asyncio.sleep(0)
    while server.files() < count and not any(client.done() for client in clients):
        await asyncio.sleep(0.1)
    load.end = time.monotonic() + seconds
    load.ready.set()
    await asyncio.gather(*clients)
    return load


def main() -> None:
    parser = kit.parser(__doc__)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    truth = kit.Truth(options, kit.SENTENCES)
    with kit.Server(options) as server:
        start, spent, own = server.rss(), server.processor(), time.process_time()
        load = asyncio.run(measure(server, truth, options.connections, options.seconds))
        memory = f"{start >> 20} MiB at the start, {server.rss() >> 20} at the end"
        spent, own = server.processor() - spent, time.process_time() - own
        alive = server.alive()
    good = load.statuses["200"]
    print(f"{options.connections} connections, {options.seconds:g} s, one text a request")
    print("answers:  ", ", ".join(f"{n} × {what}" for what, n in load.statuses.most_common()))
    print(f"rate:      {good / options.seconds:.0f} texts/s; {load.served} connections had vectors")
    print(f"latency:   {kit.spread(load.seconds)}")
    print(f"vectors:   {truth.compared} compared, max |Δ| {truth.worst:.1e}, {load.wrong} wrong")
    print(f"memory:    {memory}")
    print(f"processor: {spent:.1f} s of the server, {own:.1f} s of its clients")
    bad = sum(load.statuses.values()) - good - load.statuses["429"]
    sys.exit(bool(load.wrong or bad or not good or not alive))


if __name__ == "__main__":
    main()

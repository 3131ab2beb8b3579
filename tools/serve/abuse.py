#!/usr/bin/env python3
"""Minutes of misbehaviour against one server, with a well-behaved client beside it.

What `misbehaviour.py` lists is done at random by many clients at once: connections killed at any
moment, half-open and slow ones, bodies of 100 MB, broken HTTP, broken JSON, wrong types.  All the
time two clients that do nothing wrong compare every vector with the one that `jinabert embed`
gives.  The server's memory, files and threads are sampled each second, and written as CSV and as
an SVG plot.  Exit code 1 if the server died, gave a wrong vector, answered what should not be
(5xx, or not what the kind expects), or if afterwards it holds more files or threads than before,
or its memory still grew in the second half.
"""

import argparse
import asyncio
import re
import time
from collections import Counter
from pathlib import Path

import kit
import plot
from misbehaviour import KINDS, World

# Growth of memory in the second half, as a share of its median, that counts as flat.
FLAT = 0.1

# Seconds without a sample that are told: timeouts expire in them that are nobody's fault.
STALL = 5


class Good:
    """Clients that do nothing wrong."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.seconds: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.wrong = 0

    async def one(self) -> None:
        client = self.world.server.client()
        try:
            while True:
                await self.ask(client)
                await asyncio.sleep(0.02)
        finally:
            client.close()

    async def ask(self, client: kit.Client) -> None:
        [text] = self.world.texts(1)
        start = time.monotonic()
        try:
            answer = await client.ask(kit.embeddings(text))
        except (OSError, asyncio.IncompleteReadError) as error:
            self.statuses[type(error).__name__] += 1
            return
        self.statuses[str(answer.status)] += 1
        if answer.status == 200:
            self.seconds.append(time.monotonic() - start)
            self.wrong += not self.world.truth.check(text, answer.body)


class Samples:
    """Memory, files and threads of the server by the second."""

    def __init__(self, server: kit.Server) -> None:
        self.server = server
        self.start = time.monotonic()
        self.rows: list[tuple[float, int, int, int]] = []
        self.stalls: list[str] = []

    async def take(self) -> None:
        last, spent = 0.0, self.server.processor()
        while self.server.alive():
            now, busy = time.monotonic() - self.start, self.server.processor()
            if now - last > STALL:
                self.stalls.append(
                    f"the tool did not run for {now - last:.0f} s before second {now:.0f}, in "
                    f"which the server used {busy - spent:.1f} s of processor time"
                )
            last, spent = now, busy
            sample = (self.server.rss(), self.server.files(), self.server.threads())
            self.rows.append((now, *sample))
            await asyncio.sleep(1)

    def half(self) -> list[tuple[float, int]]:
        """Seconds and bytes of the second half."""
        return [(row[0], row[1]) for row in self.rows[len(self.rows) // 2 :]]

    def slope(self) -> float:
        """Bytes a second in the second half, by least squares."""
        points = self.half()
        x = sum(point[0] for point in points) / len(points)
        y = sum(point[1] for point in points) / len(points)
        above = sum((point[0] - x) * (point[1] - y) for point in points)
        return above / (sum((point[0] - x) ** 2 for point in points) or 1.0)

    def write(self, path: Path) -> None:
        lines = [f"{row[0]:.1f},{row[1]},{row[2]},{row[3]}\n" for row in self.rows]
        path.write_text("seconds,rss_bytes,files,threads\n" + "".join(lines))


async def scrape(server: kit.Server, pause: float) -> None:
    """Reads `/metrics` as Prometheus does."""
    client = server.client()
    try:
        while pause:
            await asyncio.sleep(pause)
            await client.ask(kit.request("/metrics"))
    finally:
        client.close()


async def worker(world: World) -> None:
    """Does one thing after the other."""
    names = [name for name, kind in KINDS.items() if not kind.slow]
    if not names:
        return
    weights = [KINDS[name].weight for name in names]
    while True:
        [name] = world.random.choices(names, weights)
        await once(world, name)
        await asyncio.sleep(world.random.uniform(0, 0.05))


async def patient(world: World, name: str) -> None:
    """Does one thing that takes long again and again."""
    await asyncio.sleep(world.random.uniform(0, 5))
    while True:
        await once(world, name)
        await asyncio.sleep(world.random.uniform(0, 1))


async def once(world: World, name: str) -> None:
    try:
        outcome = await KINDS[name].run(world)
    except asyncio.CancelledError:
        world.outcomes[name]["cut at the end"] += 1
        raise
    except ConnectionRefusedError:
        outcome = "REFUSED"
    except OSError as error:
        outcome = "reset" if isinstance(error, ConnectionError) else type(error).__name__
    world.outcomes[name][outcome] += 1


async def settle(server: kit.Server, files: int, threads: int, seconds: float) -> tuple[int, int]:
    """Files and threads, once they are what they were, or after so many seconds."""
    end = time.monotonic() + seconds
    while (now := (server.files(), server.threads())) and time.monotonic() < end:
        if now[0] <= files and now[1] <= threads:
            break
        await asyncio.sleep(0.5)
    return now


async def warm(world: World) -> None:
    """Everything that is allocated once is, and helper threads have ended again."""
    client = world.server.client()
    for count in (1, 256, 2048):
        await client.ask(kit.embeddings(world.texts(count)))
    client.close()
    await asyncio.sleep(12)


async def abuse(server: kit.Server, truth: kit.Truth, options: argparse.Namespace) -> list[str]:
    """Does it all; what was found wrong."""
    world = World(server, truth, options.seed)
    await warm(world)
    files, threads, memory = server.files(), server.threads(), server.rss()
    good, samples = Good(world), Samples(server)
    tasks = [asyncio.create_task(samples.take())]
    tasks += [asyncio.create_task(good.one()) for _ in range(2)]
    tasks.append(asyncio.create_task(scrape(server, options.scrape)))
    tasks += [asyncio.create_task(worker(world)) for _ in range(options.workers)]
    for name, kind in KINDS.items():
        tasks += [asyncio.create_task(patient(world, name)) for _ in range(kind.slow)]
    end = time.monotonic() + 60 * options.minutes
    while time.monotonic() < end and server.alive():
        await asyncio.sleep(0.2)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    world.end()
    faults = show(world, good)
    for stall in samples.stalls:
        print(f"note:    {stall}")
    if not server.alive():
        return [*faults, f"the server died: {server.said()[-2000:]}"]
    after = await settle(server, files, threads, 60)
    median = kit.quantile((row[1] for row in samples.rows), 0.5)
    peak = max(row[1] for row in samples.rows)
    slope = samples.slope()
    grown = slope * 30 * options.minutes / kit.quantile((y for _, y in samples.half()), 0.5)
    print(f"files:   {files} before, {after[0]} after; threads: {threads} before, {after[1]} after")
    print(
        f"memory:  {memory / 2**20:.0f} MiB before, median {median / 2**20:.0f}, peak "
        f"{peak / 2**20:.0f}, {server.rss() / 2**20:.0f} after; slope of the second half "
        f"{slope * 60 / 2**20:+.2f} MiB a minute, {100 * grown:+.1f} % in all"
    )
    samples.write(options.out.with_suffix(".csv"))
    title = f"Memory of the server, {options.minutes:g} minutes of misbehaviour"
    rows = [(row[0] / 60, row[1] / 2**20) for row in samples.rows]
    options.out.with_suffix(".svg").write_text(plot.plot(title, "minutes", "MiB", rows))
    panics = [line for line in server.said().splitlines() if "panicked" in line]
    faults += [f"the server says: {line}" for line in panics[:3]]
    if after[0] > files or after[1] > threads:
        faults.append("the server holds more files or threads than before")
    if grown > FLAT and options.minutes >= 5:
        faults.append("memory still grows in the second half")
    client = server.client()
    for text in kit.SENTENCES[:20]:
        answer = await client.ask(kit.embeddings(text))
        if answer.status != 200 or not truth.check(text, answer.body):
            faults.append(f"afterwards: {answer.status} for {text!r}, or another vector")
    client.close()
    return faults


def show(world: World, good: Good) -> list[str]:
    """The table; what in it should not be."""
    faults = []
    width = max(map(len, KINDS))
    for name, kind in KINDS.items():
        outcomes = world.outcomes[name]
        told = ", ".join(f"{what} × {n}" for what, n in sorted(outcomes.items()))
        print(f"{name:{width}} {outcomes.total():7}  {told}")
        allowed = kind.expected | {"429", "cut at the end"}
        bad = {what: n for what, n in outcomes.items() if what not in allowed}
        if bad:
            faults.append(f"{name}: {bad}, where {sorted(kind.expected)} are expected")
    told = ", ".join(f"{what} × {n}" for what, n in sorted(good.statuses.items()))
    print(
        f"\ngood clients: {told}; {kit.spread(good.seconds)}; {good.wrong} wrong vectors, ", end=""
    )
    print(f"max |Δ| {world.truth.worst:.1e}")
    if good.wrong or not good.statuses["200"]:
        faults.append(f"{good.wrong} wrong vectors of {good.statuses['200']}")
    if strange := set(good.statuses) - {"200", "429"}:
        faults.append(f"good clients saw {sorted(strange)}")
    return faults


def main() -> None:
    parser = kit.parser(__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--workers", type=int, default=24, help="clients that do one thing at once")
    parser.add_argument("--only", default="", help="kinds whose names this expression finds")
    parser.add_argument("--scrape", type=float, default=0, help="seconds between looks at /metrics")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("abuse"), help="name of .csv and .svg")
    options = parser.parse_args()
    for name in [name for name in KINDS if not re.search(options.only, name)]:
        del KINDS[name]
    truth = kit.Truth(options, kit.SENTENCES)
    with kit.Server(options) as server:
        faults = asyncio.run(abuse(server, truth, options))
    kit.verdict(faults)


if __name__ == "__main__":
    main()

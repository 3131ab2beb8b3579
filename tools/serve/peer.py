#!/usr/bin/env python3
"""Texts a second, and the latency of a single query, side by side with another server.

    python3 tools/serve/fastembed_server.py DIR --port 8090 &
    python3 tools/serve/peer.py 127.0.0.1:8090

The other server must answer POST /v1/embeddings in base64 with the same model.  The two take
turns; vectors of the first request are compared with each other.
"""

import asyncio
import base64
import statistics
import sys
import time
from array import array
from operator import mul

import kit
from throughput import Http, texts


class Other:
    """A server that runs already."""

    def __init__(self, address: str) -> None:
        self.host, _, port = address.rpartition(":")
        self.port = int(port)

    def client(self) -> kit.Client:
        return kit.Client(self.host, self.port)


async def latencies(server: kit.Server | Other, queries: int) -> list[float]:
    """Of queries one after the other."""
    client, seconds = server.client(), []
    for n in range(queries):
        request = kit.embeddings(kit.SENTENCES[n % len(kit.SENTENCES)])
        start = time.monotonic()
        answer = await client.ask(request)
        seconds.append(time.monotonic() - start)
        if answer.status != 200:
            sys.exit(f"answered {answer.status}: {answer.body[:200]!r}")
    client.close()
    return seconds


def cosine(a: array, b: array) -> float:
    return sum(map(mul, a, b)) / (sum(map(mul, a, a)) * sum(map(mul, b, b))) ** 0.5


def main() -> None:
    parser = kit.parser(__doc__)
    parser.add_argument("peer", help="host:port")
    parser.add_argument("--texts", type=int, default=4_000)
    parser.add_argument("--each", type=int, default=64, help="texts of a request")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    given = texts(options.texts)
    rates: dict[str, list[float]] = {"this": [], "peer": []}
    seconds: dict[str, list[float]] = {"this": [], "peer": []}
    with kit.Server(options) as server:
        other = Other(options.peer)
        sides = {"this": Http(options, server, given), "peer": Http(options, other, given)}
        client = server.client()
        counted = asyncio.run(client.ask(sides["this"].requests[0])).json()["usage"]
        tokens = counted["total_tokens"] / len(sides["this"].lists[0])
        for turn in range(options.turns + 1):
            for name, target in (("this", server), ("peer", other)):
                rate = sides[name].rate()
                waits = asyncio.run(latencies(target, options.queries))
                if turn:  # the first is for warming up
                    rates[name].append(rate)
                    seconds[name] += waits
                    print(f"turn {turn}: {name} {rate:.0f} texts/s", flush=True)
        least = min(map(cosine, sides["this"].first, sides["peer"].first))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in medians.items():
        print(f"{name}: {rate:.0f} texts/s, about {rate * tokens:.0f} tokens/s;", end=" ")
        print(f"a query {kit.spread(seconds[name])}")
    print(f"ratio of texts/s: {medians['this'] / medians['peer']:.2f}, least cosine {least:.7f}")
    sys.exit(least < 0.9999)


if __name__ == "__main__":
    main()

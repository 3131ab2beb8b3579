"""What a client can do to a server that it should not: each a function, by name in `KINDS`."""

import asyncio
import json
import random
import socket
import struct
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from weakref import WeakSet

import kit

# The longest that an answer may take; longer is a fault of the server.
PATIENCE = 90.0

JSON = "content-type: application/json"
REFUSED = {"400", "413", "422"}
GONE = {"closed", "reset"}


class World:
    """The server, and what came of everything that was done to it."""

    def __init__(self, server: kit.Server, truth: kit.Truth, seed: int) -> None:
        self.server, self.truth = server, truth
        self.random = random.Random(seed)
        self.writers: WeakSet[asyncio.StreamWriter] = WeakSet()
        self.outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self.server.host, self.server.port
        reader, writer = await asyncio.open_connection(host, port, limit=1 << 20)
        self.writers.add(writer)
        return reader, writer

    def end(self) -> None:
        """Closes what was left open when something was cut at the end."""
        for writer in self.writers:
            writer.transport.abort()

    async def exchange(self, pieces: Iterable[bytes]) -> str:
        """Sends as long as is read; the status of the first answer, or what happened instead."""
        reader, writer = await self.open()

        async def push() -> None:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()

        pushing = asyncio.create_task(push())
        try:
            answer = await asyncio.wait_for(kit.answer(reader), PATIENCE)
            return str(answer.status)
        except asyncio.IncompleteReadError:
            return "closed"
        except OSError:
            return "reset"
        except asyncio.TimeoutError:
            return "silent"
        finally:
            pushing.cancel()
            await asyncio.gather(pushing, return_exceptions=True)
            writer.transport.abort()

    async def post(self, body: bytes, path: str = "/v1/embeddings", *headers: str) -> str:
        return await self.exchange([post(path, body, *(headers or (JSON,)))])

    def leave(self, writer: asyncio.StreamWriter) -> str:
        """Goes away in the middle: with a reset, or in order."""
        if self.random.random() < 0.5:
            raw: socket.socket = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return "left (RST)"
        writer.transport.abort()
        return "left (FIN)"

    def texts(self, count: int) -> list[str]:
        return self.random.choices(kit.SENTENCES, k=count)


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: tools", *headers, f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Kind:
    """A kind of misbehaviour."""

    run: Callable[[World], Awaitable[str]]
    # How often, next to others.
    weight: float
    # What may come of it; 429 may always.
    expected: set[str]
    # How many do it all the time, of those that take long.
    slow: int


KINDS: dict[str, Kind] = {}


def kind(name: str, expected: set[str], weight: float = 10, slow: int = 0) -> Callable:
    def add(run: Callable[[World], Awaitable[str]]) -> Callable[[World], Awaitable[str]]:
        KINDS[name] = Kind(run, weight, expected, slow)
        return run

    return add


# ---- Clients that leave ----

LEFT = {"left (RST)", "left (FIN)"}


@kind("killed in the head", LEFT)
async def killed_head(world: World) -> str:
    _, writer = await world.open()
    data = kit.embeddings(world.texts(1))
    writer.write(data[: world.random.randrange(1, 60)])
    await asyncio.sleep(world.random.uniform(0, 0.1))
    return world.leave(writer)


@kind("killed in the body", LEFT)
async def killed_body(world: World) -> str:
    _, writer = await world.open()
    data = kit.embeddings(world.texts(world.random.choice([1, 50, 2000])))
    start = data.index(b"\r\n\r\n") + 4
    writer.write(data[: world.random.randrange(start, len(data))])
    await asyncio.sleep(world.random.uniform(0, 0.3))
    return world.leave(writer)


@kind("killed while computing", LEFT)
async def killed_computing(world: World) -> str:
    _, writer = await world.open()
    writer.write(kit.embeddings(world.texts(world.random.choice([1, 16, 256, 1024]))))
    await asyncio.sleep(world.random.uniform(0, 0.5))
    return world.leave(writer)


@kind("killed while reading the answer", LEFT | GONE | {"silent"}, 3)
async def killed_reading(world: World) -> str:
    reader, writer = await world.open()
    writer.write(kit.request("/v1/embeddings", {"input": world.texts(200)}))
    try:
        await asyncio.wait_for(reader.readexactly(world.random.choice([1, 300, 100_000])), 30)
    except asyncio.IncompleteReadError as error:
        # A short refusal, or nothing.
        if not error.partial:
            return world.leave(writer) and "closed"
    except asyncio.TimeoutError:
        return world.leave(writer) and "silent"
    return world.leave(writer)


# ---- Slow ones ----


async def until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """What the server says at last, or that it only closes."""
    try:
        data = await reader.read(1 << 16)
        return data[9:12].decode() if data.startswith(b"HTTP/1.1 ") else "closed"
    except OSError:
        return "reset"
    finally:
        writer.transport.abort()


async def drip(world: World, start: bytes, data: bytes, pause: float) -> str:
    """Sends byte for byte, until the server has enough."""
    reader, writer = await world.open()
    writer.write(start)
    closed = asyncio.create_task(until_closed(reader, writer))
    try:
        for byte in data:
            await asyncio.wait([closed], timeout=world.random.uniform(0, 2 * pause))
            if closed.done():
                break
            writer.write(bytes([byte]))
        return await closed
    finally:
        writer.transport.abort()


@kind("half-open: says nothing", GONE | {"408"}, slow=40)
async def half_open(world: World) -> str:
    reader, writer = await world.open()
    return await until_closed(reader, writer)


@kind("half-open: nothing after an answer", GONE, slow=20)
async def idle(world: World) -> str:
    reader, writer = await world.open()
    writer.write(kit.request("/health"))
    await kit.answer(reader)
    return await until_closed(reader, writer)


@kind("slow head", GONE | {"408", "431"}, slow=40)
async def slow_head(world: World) -> str:
    return await drip(world, b"GET /health HTTP/1.1\r\nhost: x\r\nx-slow: ", b"a" * 10_000, 1.0)


@kind("slow body", GONE | {"408"}, slow=40)
async def slow_body(world: World) -> str:
    head = post("/v1/embeddings", b"", JSON)[: -len(b"content-length: 0\r\n\r\n")]
    return await drip(world, head + b"content-length: 9999\r\n\r\n", b" " * 9999, 1.0)


@kind("silent body", GONE | {"408"}, slow=40)
async def silent_body(world: World) -> str:
    reader, writer = await world.open()
    writer.write(post("/embed", b'{"inputs": "half', JSON).replace(b"length: 16", b"length: 99"))
    return await until_closed(reader, writer)


@kind("never reads its answers", LEFT | GONE, slow=6)
async def deaf(world: World) -> str:
    """Asks for megabytes without taking any, until the server has had enough."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, (world.server.host, world.server.port))
    request = kit.request("/v1/embeddings", {"input": world.texts(256)})
    try:
        for _ in range(8):
            await loop.sock_sendall(raw, request)
        # A stalled connection is cut by the server after 30 s, which a write shows.
        for _ in range(60):
            await asyncio.sleep(2)
            await asyncio.wait_for(loop.sock_sendall(raw, request[:64]), 1)
    except asyncio.TimeoutError:
        await asyncio.sleep(45)
        try:
            raw.send(b"x")
        except BlockingIOError:
            return "held"
        except OSError:
            return "reset"
    except OSError:
        return "reset"
    finally:
        raw.close()
    return "held"


# ---- Large ones ----

MEGABYTE = b'"' + b"a" * ((1 << 20) - 3) + b'",'


@kind("100 MB with a content length", {"413"} | GONE, 0.5)
async def large_known(world: World) -> str:
    head = post("/v1/embeddings", b"", JSON).replace(b"length: 0", b"length: 104857600")
    return await world.exchange([head, b"[", *[MEGABYTE] * 100])


@kind("100 MB in chunks", {"413"} | GONE, 0.5)
async def large_chunks(world: World) -> str:
    head = f"POST /embed HTTP/1.1\r\nhost: x\r\n{JSON}\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n" % len(MEGABYTE) + MEGABYTE + b"\r\n"
    return await world.exchange([head.encode(), *[chunk] * 100, b"0\r\n\r\n"])


@kind("3,000 texts in a request", {"413", "422"}, 3)
async def batch(world: World) -> str:
    return await world.post(json.dumps({"input": world.texts(3000)}).encode())


@kind("a text of 200 KB", {"200"}, 0.3)
async def long_text(world: World) -> str:
    text = " ".join(world.texts(5000))[:200_000]
    return await world.post(json.dumps({"input": text}).encode())


@kind("a word of 200 KB", {"200"}, 1)
async def long_word(world: World) -> str:
    return await world.post(
        json.dumps({"input": world.random.choice("aé本\u0301") * 66_000}).encode()
    )


# ---- Broken HTTP ----


@kind("nonsense in chunks", {"400", "408", "413"} | GONE)
async def chunks(world: World) -> str:
    nonsense = world.random.choice(
        [
            b"ZZ\r\n{}\r\n0\r\n\r\n",
            b"-1\r\n{}\r\n",
            b"FFFFFFFFFFFFFFFFFF\r\n{}",
            b"2\r\n{}xx\r\n0\r\n",
            b"2;" + b"a" * 100_000 + b"\r\n{}\r\n0\r\n\r\n",
            b"\r\n\r\n\r\n",
            b"0x2\r\n{}\r\n0\r\n\r\n",
            b"2\r\n{}\r\n0\r\n" + b"trailer: x\r\n" * 10_000 + b"\r\n",
            b"7FFFFFFFFFFFFFFF\r\n" + b"a" * 999,
            b"1 \r\n \r\n" * 5000 + b"0\r\n\r\n",
        ]
    )
    head = f"POST /embed HTTP/1.1\r\nhost: x\r\n{JSON}\r\ntransfer-encoding: chunked\r\n\r\n"
    return await world.exchange([head.encode() + nonsense])


@kind("contradicting lengths", {"400", "422", "501"} | GONE)
async def lengths(world: World) -> str:
    lines = world.random.choice(
        [
            "content-length: 2\r\ncontent-length: 3",
            "content-length: 2, 3",
            "content-length: -1",
            "content-length: 99999999999999999999999",
            "content-length: +2",
            "content-length: 0x2",
            "content-length: 2\r\ntransfer-encoding: chunked",
            "transfer-encoding: gzip, identity",
            "transfer-encoding: chunked\r\ntransfer-encoding: identity",
            "content-length: \x00",
        ]
    )
    return await world.exchange(
        [f"POST /embed HTTP/1.1\r\nhost: x\r\n{JSON}\r\n{lines}\r\n\r\n{{}}".encode()]
    )


@kind("not HTTP", {"400", "414", "431", "505"} | GONE)
async def garbage(world: World) -> str:
    noise = world.random.randbytes(world.random.choice([1, 100, 100_000]))
    return await world.exchange(
        [
            world.random.choice(
                [
                    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise,
                    b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
                    noise + b"\r\n\r\n",
                    b"GET\r\n\r\n",
                    b"GET / HTTP/9.9\r\n\r\n",
                    b"GET /\x00 HTTP/1.1\r\n\r\n",
                    b"get http/1.1\n\n",
                    b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
                    b"GET / HTTP/1.1\r\n: empty\r\n\r\n",
                ]
            )
        ]
    )


@kind("floods of headers", {"400", "431"} | GONE)
async def headers(world: World) -> str:
    flood = world.random.choice(
        [
            "".join(f"x-{n}: y\r\n" for n in range(10_000)),
            "x: " + "y" * 1_000_000 + "\r\n",
            "cookie: " + "a=b; " * 200_000 + "\r\n",
            "y" * 600_000 + ": x\r\n",
        ]
    )
    return await world.exchange([f"GET /health HTTP/1.1\r\nhost: x\r\n{flood}\r\n".encode()])


@kind("unknown paths", {"404", "405", "400", "414"} | GONE)
async def paths(world: World) -> str:
    path = world.random.choice(
        [
            "/v1/completions",
            "/../../etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "//",
            "/v1/embeddings/",
            "/docs/../../x",
            "/v1/models/%ff",
            "/v1/models/" + "a" * 50_000,
            "/" + "a" * 100_000,
            "/embed%00",
            "http://elsewhere/x",
            "*",
            "/v1/models/%F0%9F%98%80",
            "/admin.php?x=" + "y" * 5000,
        ]
    )
    return await world.exchange([f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()])


@kind("unknown methods", {"404", "405", "400"} | GONE)
async def methods(world: World) -> str:
    method = world.random.choice(
        ["DELETE", "PUT", "PATCH", "TRACE", "CONNECT", "BREW", "GET", "X" * 999]
    )
    path = world.random.choice(["/v1/embeddings", "/embed", "/rerank"])
    return await world.exchange([f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()])


@kind("pipelined requests", {"right"})
async def pipeline(world: World) -> str:
    reader, writer = await world.open()
    texts = world.texts(20)
    try:
        writer.write(b"".join(kit.embeddings(text) for text in texts))
        for text in texts:
            answer = await asyncio.wait_for(kit.answer(reader), PATIENCE)
            if answer.status != 200:
                return str(answer.status)
            if not world.truth.check(text, answer.body):
                return "WRONG"
        return "right"
    except asyncio.IncompleteReadError:
        return "closed"
    except asyncio.TimeoutError:
        return "silent"
    finally:
        writer.transport.abort()


@kind("expects 100-continue", {"100", "415"} | GONE | REFUSED)
async def expects(world: World) -> str:
    head = post("/embed", b'{"inputs": "a"}', JSON, "expect: 100-continue").split(b"{")[0]
    reader, writer = await world.open()
    writer.write(head)
    try:
        return (await asyncio.wait_for(reader.readline(), 30))[9:12].decode() or "closed"
    except asyncio.TimeoutError:
        return "silent"
    finally:
        world.leave(writer)


# ---- Broken JSON ----


@kind("deep JSON", {"400", "422"}, 3)
async def deep(world: World) -> str:
    n = 100_000
    return await world.post(
        world.random.choice(
            [
                b"[" * n,
                b'{"input":' + b"[" * n + b"]" * n + b"}",
                b'{"a":' * n,
                b'{"x":' + b"[" * n + b"]" * n + b"}",
                b'{"input":' + b'{"text":' * n,
                b'{"input":"a","extra":' + b'[{"a":' * n,
            ]
        ),
        world.random.choice(["/v1/embeddings", "/embed", "/rerank", "/"]),
    )


@kind("not UTF-8", {"400", "422"})
async def utf8(world: World) -> str:
    bad = world.random.choice(
        [b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"]
    )
    return await world.post(
        b'{"input": "' + bad + b'", "inputs": "' + bad + b'"}',
        world.random.choice(["/v1/embeddings", "/embed"]),
    )


@kind("lone surrogates", {"200", "400", "422"})
async def surrogates(world: World) -> str:
    text = world.random.choice(
        [r"\ud800", r"\udc00", r"a\ud83d b", r"\ud800\ud800", r"\udfff\ud800"]
    )
    return await world.post(f'{{"input": ["{text}", "a"]}}'.encode())


@kind("wrong content types", {"415"})
async def content_types(world: World) -> str:
    lines = world.random.choice(
        [
            (),
            ("content-type: text/plain",),
            ("content-type: application/x-www-form-urlencoded",),
            ("content-type:",),
            ("content-type: multipart/form-data; boundary=x",),
            ("content-type: \xff",),
            ("content-type: application/jsonp",),
        ]
    )
    return await world.exchange([post("/v1/embeddings", b'{"input": "a"}', *lines)])


@kind("duplicate keys", {"400", "422"})
async def duplicates(world: World) -> str:
    field = world.random.choice(
        ['"input": "b"', '"dimensions": 2, "dimensions": 3', '"model": "a", "model": "b"']
    )
    return await world.post(f'{{"input": "a", {field}}}'.encode())


@kind("broken JSON", {"400", "422"})
async def broken(world: World) -> str:
    return await world.post(
        world.random.choice(
            [
                b"",
                b"{",
                b"nul",
                b'{"input": NaN}',
                b'{"input": "a", "dimensions": NaN}',
                b'{"input": "a",}',
                b"'a'",
                b"\x00",
                b'{"input": "a"} {"input": "b"}',
                b'{"input": "a", "dimensions": Infinity}',
                b'{"input": "a\nb"}',
                b'{"input": "\\x"}',
                b'\xef\xbb\xbf{"input": "a"}',
                b'{"input": "a" "model": "b"}',
                b'{"input": [1, ]}',
                b'{input: "a"}',
                b"\xff" * 1000,
            ]
        )
    )


@kind("huge numbers", {"400", "422"})
async def numbers(world: World) -> str:
    number = world.random.choice(
        [
            "1e400",
            "-1e400",
            "9" * 400,
            "1" + "0" * 100_000,
            "-1",
            "18446744073709551616",
            "1.5",
            "1e5",
        ]
    )
    field = world.random.choice(
        ['"input": "a", "dimensions": @', '"input": [@]', '"input": [[1, @]]', '"input": @']
    )
    return await world.post(f"{{{field.replace('@', number)}}}".encode())


FIELDS = {
    "/v1/embeddings": [
        "input",
        "model",
        "encoding_format",
        "embedding_type",
        "encoding_type",
        "dimensions",
        "normalized",
        "truncate",
        "late_chunking",
        "task",
        "user",
    ],
    "/embed": [
        "inputs",
        "truncate",
        "truncation_direction",
        "normalize",
        "dimensions",
        "prompt_name",
    ],
    "/embed_all": ["inputs", "truncate", "truncation_direction"],
    "/similarity": ["inputs", "parameters"],
    "/rerank": [
        "query",
        "documents",
        "texts",
        "top_n",
        "return_documents",
        "return_text",
        "raw_scores",
        "truncate",
    ],
    "/predict": ["inputs", "raw_scores"],
    "/tokenize": ["inputs", "add_special_tokens", "prompt_name"],
    "/decode": ["ids", "skip_special_tokens"],
    "/": ["inputs"],
}
VALUES = [
    "null",
    "true",
    "-1",
    "0",
    "1.5",
    "4294967296",
    '""',
    '"x"',
    "[]",
    "{}",
    "[[]]",
    "[null]",
    '{"text": 1}',
    '{"text": null}',
    '["a", 1]',
    '[1, "a"]',
    '[["a", "b", "c"]]',
    "[[[1]]]",
    '[{"text": "a"}, {"image": "b"}]',
    '{"sentences": 1}',
    "[true]",
    "[-1]",
    "[1e9]",
    '["", ""]',
    '[{"a": {"b": {}}}]',
]
WHOLE: dict[str, dict[str, object]] = {
    "/v1/embeddings": {"input": "a"},
    "/embed": {"inputs": "a"},
    "/embed_all": {"inputs": "a"},
    "/tokenize": {"inputs": "a"},
    "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b"]}},
    "/rerank": {"query": "a", "documents": ["b"]},
    "/predict": {"inputs": "a"},
    "/decode": {"ids": [5]},
    "/": {"inputs": "a"},
}


@kind("wrong types", {"200", "404", "424"} | REFUSED, 40)
async def types(world: World) -> str:
    path = world.random.choice(list(FIELDS))
    field, value = world.random.choice(FIELDS[path]), world.random.choice(VALUES)
    rest = "".join(
        f", {json.dumps(name)}: {json.dumps(own)}"
        for name, own in WHOLE[path].items()
        if name != field
    )
    return await world.post(f'{{"{field}": {value}{rest}}}'.encode(), path)


@kind("token ids of no token", {"200", "400", "422"})
async def ids(world: World) -> str:
    lists = world.random.choice(
        [[4294967295], [[0] * 10_000], [[99_999_999]], [[2, 3, 2, 3]], [[]], [[1], []]]
    )
    return await world.post(json.dumps({"input": lists}).encode())


@kind("texts of odd characters", {"200", "400"})
async def odd(world: World) -> str:
    texts = [
        "\0",
        "\u202e" * 500,
        "e" + "\u0301" * 5000,
        "\ufeff",
        "👩‍👩‍👧‍👦" * 300,
        "\U0010ffff" * 100,
        " " * 9000,
        "\n" * 9000,
    ]
    return await world.post(json.dumps({"input": world.random.sample(texts, 3)}).encode())

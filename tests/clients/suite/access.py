"""What clients see of keys, of a server that has enough to do, and of pages' rules."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cohere
import openai
import requests

from . import checks
from .checks import BASE, KEY, KEYED, NARROW, E, M, check, close, contains, equal, plain, raises


def ask(headers: dict[str, str], path: str = "/v1/embeddings") -> requests.Response:
    body = {"input": E["texts"], "inputs": E["texts"]}
    return requests.post(KEYED + path, json=body, headers=headers, timeout=60)


@check("openai", "with the server's key; without and with a wrong one AuthenticationError")
def keys() -> None:
    client = lambda key: openai.OpenAI(base_url=f"{KEYED}/v1", api_key=key, max_retries=0)
    answer = client(KEY).embeddings.create(model="any", input=E["texts"])
    close([item.embedding for item in answer.data], plain())
    for key in ("wrong", KEY[:-1], KEY + "x", KEY.upper()):
        wrong = lambda key=key: client(key).embeddings.create(model="any", input="a")
        error = raises(openai.AuthenticationError, wrong)
        contains(error.message, M["key"])
        equal((error.code, error.type), (M["key_code"], M["key_kind"]), "code, type")
    raises(openai.AuthenticationError, lambda: client("wrong").models.list())


@check("cohere", "a wrong key: UnauthorizedError with a body")
def unauthorized() -> None:
    client = cohere.ClientV2(api_key="wrong", base_url=KEYED)
    wrong = lambda: client.rerank(model="any", query="a", documents=["b"])
    error = raises(cohere.UnauthorizedError, wrong)
    contains(error.body["message"], M["key"])


@check("requests", "the key without `Bearer`, in lower case, as x-api-key and api-key")
def ways() -> None:
    given = [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {KEY}"},
        {"authorization": KEY},
        {"x-api-key": KEY},
        {"api-key": KEY},
        {"authorization": "Bearer other"},
    ]
    for headers in given:
        data = ask(headers).json()["data"]
        close([item["embedding"] for item in data], plain())
    for headers in ({}, {"authorization": f"Basic {KEY}"}, {"authorization": "Bearer "}):
        answer = ask(headers)
        equal(answer.status_code, 401, "status")
        equal(answer.headers["www-authenticate"], "Bearer", "www-authenticate")
        equal(answer.json()["error"]["code"], M["key_code"], "code")
    answer = ask({}, "/embed")
    equal((answer.status_code, answer.json()["error"]), (401, M["key"]), "TEI's error")


@check("requests", "without a key: /health, /ping, /metrics, /docs; not /info, /v1/models")
def public() -> None:
    get = lambda path: requests.get(KEYED + path, timeout=60)
    equal([get(path).status_code for path in ("/health", "/ping")], [200, 200], "status")
    contains(get("/metrics").text, M["metric"])
    contains(get("/api-doc/openapi.json").text, M["route"])
    for path in ("/info", "/v1/models"):
        answer = get(path)
        equal((answer.status_code, answer.json()["message"]), (401, M["key"]), path)


def while_busy(run: Callable[[], Any]) -> Any:
    """What comes back while the only request that the narrow server takes is under way."""
    texts = [E["narrow"]["text"][:100]] * 20
    busy, done = threading.Event(), threading.Event()

    def occupy() -> None:
        # One after the other, for a single one is soon over.
        with requests.Session() as session:
            while not done.is_set():
                answer = session.post(f"{NARROW}/v1/embeddings", json={"input": texts}, timeout=60)
                if answer.status_code == 200:
                    busy.set()

    threads = [threading.Thread(target=occupy) for _ in range(3)]
    for thread in threads:
        thread.start()
    busy.wait(30)
    try:
        result = run()
        time.sleep(0.2)
        return result
    finally:
        done.set()
        for thread in threads:
            thread.join()


def in_time(header: str) -> None:
    """`Retry-After` is a number of seconds that clients obey."""
    least, most = M["retry_after"]
    if not least <= int(header) <= most:
        raise AssertionError(f"retry-after: {header}, not {least} to {most}")


@check("openai", "429 becomes RateLimitError, with Retry-After")
def overloaded() -> None:
    client = openai.OpenAI(base_url=f"{NARROW}/v1", api_key="none", max_retries=0)

    def refused() -> openai.RateLimitError:
        for _ in range(500):
            try:
                client.embeddings.create(model="any", input="a")
            except openai.RateLimitError as e:
                return e
        raise AssertionError("never refused")

    error = while_busy(refused)
    contains(error.message, M["busy"])
    equal((error.code, error.type), (M["busy_code"], M["busy_kind"]), "code, type")
    in_time(error.response.headers["retry-after"])


@check("openai", "429: a client with retries comes again after Retry-After, and has its vectors")
def patience() -> None:
    client = openai.OpenAI(base_url=f"{NARROW}/v1", api_key="none", max_retries=20)
    create = client.embeddings.with_raw_response.create
    ask = lambda: create(model="any", input=E["query"]["text"])
    with ThreadPoolExecutor(6) as pool:
        start = time.monotonic()
        answers = while_busy(lambda: [pool.submit(ask) for _ in range(6)])
        answers = [answer.result() for answer in answers]
    close([answer.parse().data[0].embedding for answer in answers], E["query"]["vectors"] * 6)
    if not any(answer.retries_taken for answer in answers):
        raise AssertionError("none was refused")
    if time.monotonic() - start < M["retry_after"][0]:
        raise AssertionError("it came again at once")


@check("requests", "429 in TEI's words")
def overloaded_tei() -> None:
    def refused() -> requests.Response:
        for _ in range(500):
            answer = requests.post(f"{NARROW}/embed", json={"inputs": "a"}, timeout=60)
            if answer.status_code == 429:
                return answer
        raise AssertionError("never refused")

    answer = while_busy(refused)
    equal(answer.json()["error_type"], M["busy_kind_tei"], "error_type")
    in_time(answer.headers["retry-after"])


@check("openai", "a body far over --payload-limit: 413 and why, also by urllib, requests")
def payload() -> None:
    client = openai.OpenAI(base_url=f"{NARROW}/v1", api_key="none", max_retries=0)
    text = "word " * 8_000_000
    error = raises(openai.APIStatusError, lambda: client.embeddings.create(model="any", input=text))
    contains(error.message, M["payload"])
    url, headers = f"{NARROW}/v1/embeddings", {"content-type": "application/json"}
    answer = requests.post(url, json={"input": text}, timeout=60)
    equal(answer.json()["message"], M["payload"], "message")
    request = urllib.request.Request(url, json.dumps({"input": text}).encode(), headers)
    error = raises(urllib.error.HTTPError, lambda: urllib.request.urlopen(request, timeout=60))
    equal(json.load(error)["message"], M["payload"], "message")


@check("requests", "CORS: a preflight and an answer for the allowed origin, none for others")
def cors() -> None:
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    options = lambda base, origin: requests.options(
        f"{base}/v1/embeddings", headers=asked | {"origin": origin}, timeout=60
    )
    allowed = options(KEYED, "http://page.example")
    equal(allowed.status_code, 200, "status")
    equal(allowed.headers["access-control-allow-origin"], M["origin"], "origin")
    contains(allowed.headers["access-control-allow-methods"], "POST")
    for name in ("authorization", "content-type"):
        contains(allowed.headers["access-control-allow-headers"], name)
    for base, origin in ((KEYED, "http://other.example"), (BASE, "http://page.example")):
        headers = options(base, origin).headers
        equal(headers.get("access-control-allow-origin"), None, "origin")
    key = {"authorization": f"Bearer {KEY}"}
    answer = ask(key | {"origin": "http://page.example"})
    equal(answer.headers["access-control-allow-origin"], M["origin"], "origin")
    answer = ask({"origin": "http://page.example"})
    equal(answer.headers["access-control-allow-origin"], M["origin"], "origin of an error")


if __name__ == "__main__":
    checks.run()

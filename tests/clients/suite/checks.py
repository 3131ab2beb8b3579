"""What all groups of checks share: the expectations, comparisons, and the record of outcomes."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

CONTEXT: dict[str, Any] = json.loads(Path(os.environ["CLIENTS_CONTEXT"]).read_text())
E: dict[str, Any] = CONTEXT["expected"]
M: dict[str, str] = E["messages"]
BASE: str = CONTEXT["base"]
KEYED: str = CONTEXT["keyed"]
NARROW: str = CONTEXT["narrow"]
KEY: str = CONTEXT["key"]

TOLERANCE = 1e-6
RERANK_TOLERANCE = 1e-5

# What is to be stopped when all checks are done.
AT_END: list[Callable[[], Any]] = []

_CHECKS: list[tuple[str, str, str, Callable[[], Any]]] = []


def check(package: str, what: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """A function that raises if the client does not get what it should."""

    def register(run: Callable[[], Any]) -> Callable[[], Any]:
        # "name version" is a program that this environment does not have.
        name, _, version = package.partition(" ")
        _CHECKS.append((name, version or metadata.version(name), what, run))
        return run

    return register


def run() -> None:
    """Runs the checks of the group, in their order, and writes a line for each outcome."""
    with open(os.environ["CLIENTS_RESULTS"], "w", encoding="utf-8") as results:
        say = lambda line: print(json.dumps(line), file=results, flush=True)
        for package, version, what, _ in _CHECKS:
            say({"client": package, "version": version, "what": what, "state": "planned"})
        for package, version, what, function in _CHECKS:
            start, error = time.monotonic(), None
            try:
                if inspect.iscoroutinefunction(function):
                    asyncio.run(function())
                else:
                    function()
            except Exception as e:
                traceback.print_exc()
                error = f"{type(e).__name__}: {e}"[:600]
            line = {"client": package, "version": version, "what": what}
            seconds = round(time.monotonic() - start, 2)
            say(line | {"state": "failed" if error else "passed", "note": error, "s": seconds})
    for end in AT_END:
        end()
    sys.stdout.flush()
    # Some libraries keep threads that hold up the exit.
    os._exit(0)


def equal(got: Any, expected: Any, what: str = "value") -> None:
    if got != expected:
        raise AssertionError(f"{what}: {got!r}, not {expected!r}")


def contains(text: str, part: str) -> None:
    if part not in text:
        raise AssertionError(f"{part!r} is not in {text!r}")


def close(got: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    """Arrays of one shape that differ by no more than the tolerance."""
    got, expected = np.asarray(got, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    equal(got.shape, expected.shape, "shape")
    worst = float(np.max(np.abs(got - expected)))
    if not worst <= tolerance:
        raise AssertionError(f"off by {worst:.3g}, over {tolerance:g}")


def raises(kind: type[BaseException], run: Callable[[], Any]) -> Any:
    """The exception, which must be of this kind."""
    try:
        got = run()
    except kind as e:
        return e
    raise AssertionError(f"no {kind.__name__} but {str(got)[:200]}")


def plain() -> list[list[float]]:
    return E["plain"]["vectors"]


def usage(tokens: Iterable[int]) -> dict[str, int]:
    total = sum(tokens)
    return {"prompt_tokens": total, "total_tokens": total}


def ranked(got: Iterable[tuple[int, float]], top: int | None = None, raw: bool = False) -> None:
    """Indices in the fixture's order, with its scores."""
    got, rerank = list(got), E["rerank"]
    order = rerank["order"][:top]
    equal([index for index, _ in got], order, "order")
    scores = rerank["logits" if raw else "scores"]
    close([score for _, score in got], [scores[index] for index in order], RERANK_TOLERANCE)


def nearest(got: Iterable[tuple[int, float]]) -> None:
    """The texts nearest to the query, with their cosines, as by comparing it with all."""
    got = list(got)
    cosines = np.array(plain()) @ np.array(E["query"]["vectors"][0])
    order = np.argsort(-cosines)[: len(got)]
    equal([index for index, _ in got], order.tolist(), "nearest")
    close([score for _, score in got], cosines[order], 1e-5)

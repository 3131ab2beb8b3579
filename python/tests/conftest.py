"""What the tests share: models, the command line, an embedder for each device."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import jinabert

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "jinabert-mini-en"
RERANKER = ROOT / "tests" / "fixtures" / "tiny-reranker-bpe"
TINY = ROOT / "tests" / "fixtures" / "tiny-natural"
COLBERT = ROOT / "tests" / "fixtures" / "v3-colbert"
TASKS = ROOT / "tests" / "fixtures" / "v3-original"

TEXTS = [
    "A blue cat",
    "",
    "Ein blauer Kater, größer als jener: 貓 🐈‍⬛",
    "The quick brown fox jumps over the lazy dog. " * 20,
    "a\tb\nc",
    "Stocks fell sharply on Tuesday.",
]


def pytest_configure(config: pytest.Config) -> None:
    if not Path(os.environ.get("JINABERT", "")).is_file():
        pytest.exit("$JINABERT is no program: run python/check", 2)


def command(*arguments: object) -> str:
    """What the command line prints."""
    words = [os.environ["JINABERT"], "-q", *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def jsonl(path: Path, texts: Sequence[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def devices() -> list[str]:
    """The processor, and a Vulkan driver where one was asked for."""
    return ["cpu", "vulkan"] if os.environ.get("VK_DRIVER_FILES") else ["cpu"]


@pytest.fixture(scope="session", params=devices())
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def embedder(device: str) -> Iterator[jinabert.Embedder]:
    with jinabert.Embedder(MODEL, device=device, tune=False) as embedder:
        yield embedder


@pytest.fixture(scope="session")
def cpu() -> Iterator[jinabert.Embedder]:
    with jinabert.Embedder(MODEL, device="cpu") as embedder:
        yield embedder


def state() -> dict[str, Any]:
    """Open files, threads and bytes in memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "bytes": pages * os.sysconf("SC_PAGE_SIZE"),
    }

"""Starts and stops the server processes that clients talk to."""

from __future__ import annotations

import sys
from pathlib import Path

# Behind all others: what a client imports is its own.
sys.path.append(str(Path(__file__).resolve().parents[3] / "tools" / "serve"))

from serving import READY, Server, command  # noqa: E402


def serve(binary: Path, log: Path, *options: str) -> Server:
    """`jinabert serve` on the CPU, at a free port."""
    return Server(command(binary, *options), log, READY)

"""Starts a server process, waits until it is ready, and ends it: for the tools of this folder, for
`tests/clients` and for `tests/browser`."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

# What `jinabert serve` says when it is ready, and where.
READY = r"listening on (http://[0-9.]+:[0-9]+)"


class Server:
    """A process that is ready, with its address, until it is stopped or the block ends."""

    def __init__(self, command: list[str], log: Path, ready: str, patience: float = 60) -> None:
        self.log = log
        # Options of the caller's environment would change what is tested.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("JINABERT")}
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        deadline = time.monotonic() + patience
        while True:
            text = self.said()
            if found := re.search(ready, text):
                self.url = found[1]
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{command[0]} did not start:\n{text[-2000:]}")
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def said(self) -> str:
        """What it wrote so far."""
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        """Ends the process; its exit code, negative if it had to be killed."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.terminate()
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def command(program: Path | str, *options: str, device: str = "cpu") -> list[str]:
    """`jinabert serve` at a free port."""
    return [str(program), "serve", "--port", "0", "--device", device, *options]

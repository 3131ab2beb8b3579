"""Starts and stops the server processes that clients talk to."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path


class Server:
    """A process that is ready, with its address."""

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
            text = log.read_text(errors="replace")
            if found := re.search(ready, text):
                self.url = found[1]
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{command[0]} did not start:\n{text[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> int:
        """Ends the process; its exit code."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.terminate()
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def serve(binary: Path, log: Path, *options: str) -> Server:
    """`jinabert serve` on the CPU, at a free port."""
    command = [str(binary), "serve", "--port", "0", "--device", "cpu", *options]
    return Server(command, log, r"listening on (http://[0-9.]+:[0-9]+)")

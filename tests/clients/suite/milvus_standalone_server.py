"""Runs a Milvus standalone server, of PyPI's `milvus`, until its standard input ends."""

import shutil
import signal
import sys
from pathlib import Path

from milvus import default_server

base = Path(sys.argv[1])
# Programs that it unpacked stay; collections do not.
for name in ("data", "logs", "configs"):
    shutil.rmtree(base / name, ignore_errors=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
default_server.set_base_dir(str(base))
try:
    default_server.start()
    print(f"listening on http://127.0.0.1:{default_server.listen_port}", flush=True)
    sys.stdin.read()
finally:
    default_server.stop()

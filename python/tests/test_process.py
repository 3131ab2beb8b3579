"""Threads, signals, forks, other processes, and what is left behind."""

from __future__ import annotations

import copy
import gc
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from conftest import MODEL, RERANKER, TEXTS, TINY, state

import jinabert


# Children of a shell's background job ignore SIGINT, unless they set a handler.
HANDLER = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def script(text: str, *arguments: str) -> subprocess.Popen[str]:
    """A process of Python's."""
    words = [sys.executable, "-c", HANDLER + textwrap.dedent(text), *arguments]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def interrupted(child: subprocess.Popen[str], seconds: float) -> float:
    """Ctrl-C so long after a process is ready; when it was, if it says that it heard it in time."""
    assert child.stdout.readline() == "ready\n"
    time.sleep(seconds)
    start = time.monotonic()
    child.send_signal(signal.SIGINT)
    assert child.stdout.readline() == "interrupted\n"
    heard = time.monotonic() - start
    assert heard < 1.5, f"{heard:.2f} s"
    return start


def test_threads_run_meanwhile(cpu) -> None:
    """A thread of Python's counts while another embeds."""
    counted, done = 0, threading.Event()

    def count() -> None:
        nonlocal counted
        while not done.is_set():
            counted += 1
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    start = time.monotonic()
    while time.monotonic() - start < 1:
        cpu.encode("The quick brown fox jumps over the lazy dog. " * 100)
    before = counted
    done.set()
    counter.join()
    assert before > 100, f"{before} rounds in a second"


def test_calls_of_many_threads(embedder) -> None:
    expected = embedder.encode(TEXTS)
    worst: list[float] = []

    def call() -> None:
        for _ in range(3):
            worst.append(float(np.abs(embedder.encode(TEXTS) - expected).max()))

    threads = [threading.Thread(target=call) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(worst) == 12
    assert max(worst) <= 1e-6


def test_ctrl_c_ends_a_long_call() -> None:
    child = script(
        """
        import sys, time, jinabert
        embedder = jinabert.Embedder(sys.argv[1], device="cpu")
        print("ready", flush=True)
        try:
            embedder.encode(["The quick brown fox jumps over the lazy dog. " * 10] * 200_000)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        print(embedder.encode("a").shape, flush=True)
        """,
        str(MODEL),
    )
    interrupted(child, 2)
    # `communicate` would lose lines that `readline` has read ahead.
    out, err = child.stdout.read(), child.stderr.read()
    assert (out, child.wait(timeout=60)) == ("(384,)\n", 0), err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_fork_is_told() -> None:
    child = script(
        """
        import os, sys, jinabert
        embedder = jinabert.Embedder(sys.argv[1], device=sys.argv[2])
        embedder.encode("a")
        pid = os.fork()
        if pid == 0:
            for call in (
                lambda: embedder.encode("a"),
                lambda: embedder.device,
                lambda: embedder.close(),
                lambda: jinabert.Embedder(sys.argv[1], device="cpu"),
            ):
                try:
                    call()
                    print("no error")
                except jinabert.ForkedError as error:
                    print(str(error).split(" which ")[0].replace(str(os.getpid()), "N"), flush=True)
            del embedder
            sys.exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), embedder.encode("a").shape)
        """,
        str(MODEL),
        "vulkan" if os.environ.get("VK_DRIVER_FILES") else "cpu",
    )
    out, err = child.communicate(timeout=120)
    lines = out.splitlines()
    assert lines[:4] == [f"process N is a fork of process {child.pid},"] * 4, err
    assert lines[4:] == ["0 (384,)"], err


def in_a_child(embedder: jinabert.Embedder, texts: list[str]) -> np.ndarray:
    return embedder.encode(texts)


def test_other_processes_open_their_own(cpu) -> None:
    expected = cpu.encode(TEXTS)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        halves = pool.starmap(in_a_child, [(cpu, TEXTS[:3]), (cpu, TEXTS[3:])])
    assert np.abs(np.concatenate(halves) - expected).max() <= 1e-6


def test_a_fork_before_the_first_may_open() -> None:
    child = script(
        """
        import multiprocessing, sys, jinabert
        def shape(model):
            return jinabert.Embedder(model, device="cpu").encode("a").shape
        print(multiprocessing.get_context("fork").Pool(1).map(shape, [sys.argv[1]]))
        """,
        str(MODEL),
    )
    out, err = child.communicate(timeout=120)
    assert out == "[(384,)]\n", err


def test_copies(cpu, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(MODEL.parent)
    with jinabert.Embedder(MODEL.name, "cpu", truncate_dim=32, normalize=False) as embedder:
        monkeypatch.chdir(tmp_path)
        expected = embedder.encode(TEXTS)
        for other in (copy.deepcopy(embedder), pickle.loads(pickle.dumps(embedder))):
            assert other.dim == 32
            assert np.abs(other.encode(TEXTS) - expected).max() <= 1e-6
            other.close()
    files = {path.name: path.read_bytes() for path in TINY.iterdir()}
    with jinabert.Embedder.from_files(files, "cpu") as embedder:
        with pickle.loads(pickle.dumps(embedder)) as other:
            assert np.array_equal(other.encode("a"), embedder.encode("a"))


def test_closing() -> None:
    embedder = jinabert.Embedder(TINY, "cpu")
    assert embedder.allocated_bytes > 0
    with embedder as same:
        assert same is embedder
    for call in (
        lambda: embedder.encode("a"),
        lambda: embedder.device,
        lambda: embedder.tokenize("a"),
    ):
        with pytest.raises(jinabert.ClosedError):
            call()
    embedder.close()
    assert "tiny-natural" in repr(embedder)


def test_closing_while_others_call() -> None:
    """Who closes has a lock and wants the interpreter; who calls has the one and wants the other."""
    child = script(
        """
        import sys, threading, jinabert
        def call(embedder):
            while True:
                try:
                    embedder.device, embedder.encode("a"), embedder.tokenize("a")
                except jinabert.ClosedError:
                    return
        for _ in range(30):
            embedder = jinabert.Embedder(sys.argv[1], "cpu")
            threads = [threading.Thread(target=call, args=[embedder]) for _ in range(4)]
            [thread.start() for thread in threads]
            embedder.encode("a")
            embedder.close()
            [thread.join() for thread in threads]
        print("closed")
        """,
        str(TINY),
    )
    try:
        out, err = child.communicate(timeout=120)
    finally:
        child.kill()
    assert out == "closed\n", err


@pytest.mark.parametrize("what", ["rerank", "tokens", "chunks", "short"])
def test_ctrl_c_ends_every_call(what) -> None:
    """And nothing of it is left to be waited for at the end, but a batch."""
    child = script(
        """
        import os, sys, threading, time, jinabert
        model, what = sys.argv[1:]
        batch = 400_000 if what == "short" else 2048
        embedder = jinabert.Embedder(model, device="cpu", batch_tokens=batch)
        long = ["The quick brown fox jumps over the lazy dog. " * 10] * 20_000
        def short():
            # Waits for a batch of another thread's.
            threading.Thread(target=lambda: embedder.encode(long), daemon=True).start()
            time.sleep(1)
            embedder.encode("a")
        call = {
            "rerank": lambda: embedder.rerank("a fox", long),
            "tokens": lambda: embedder.encode(long, output_value="token_embeddings"),
            "chunks": lambda: embedder.late_chunks(long, "tokens:8"),
            "short": short,
        }[what]
        print("ready", flush=True)
        try:
            while True:
                call()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        if what == "short":
            os._exit(0)  # or the other thread is waited for
        """,
        str(RERANKER if what == "rerank" else MODEL),
        what,
    )
    start = interrupted(child, 3)
    _, err = child.communicate(timeout=120)
    ended = time.monotonic() - start
    assert child.returncode == 0, err
    assert ended < 15, f"{ended:.1f} s"


def test_vectors_outlive_the_embedder() -> None:
    with jinabert.Embedder(TINY, "cpu") as embedder:
        vectors = embedder.encode(["a", "b"])
    copied = vectors.copy()
    del embedder
    gc.collect()
    assert np.array_equal(vectors, copied)
    vectors[0] = 0  # they are the caller's


def left_behind(device: str) -> None:
    """Prints what this process holds before and after many openings, each with many calls."""

    def once() -> None:
        with jinabert.Embedder(TINY, device, tune=False) as embedder:
            for _ in range(20):
                embedder.encode(TEXTS, precision="int8")
                embedder.late_chunks(TEXTS[3], "sentences:2")
            with pytest.raises(jinabert.TooLongError):
                embedder.encode("word " * 9000)

    # Caches of the driver grow for some openings.
    for _ in range(6):
        once()
    gc.collect()
    before = state()
    for _ in range(12):
        once()
    gc.collect()
    print(json.dumps([before, state()]))


def test_nothing_is_left_behind(device) -> None:
    # With more than one arena, glibc keeps what it was given back for a while.
    one_arena = os.environ | {"MALLOC_ARENA_MAX": "1"}
    words = [sys.executable, __file__, device]
    done = subprocess.run(words, env=one_arena, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    assert after["files"] <= before["files"]
    assert after["threads"] <= before["threads"]
    grown = after["bytes"] - before["bytes"]
    assert grown < 8 << 20, f"{grown / 2**20:.1f} MiB more after twelve openings"


def test_progress_is_shown(cpu) -> None:
    child = script(
        """
        import sys, jinabert
        embedder = jinabert.Embedder(sys.argv[1], device="cpu")
        embedder.encode(["a blue cat"] * 3000, show_progress_bar=True)
        """,
        str(TINY),
    )
    _, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert "3000/3000" in err
    assert "text" in err


if __name__ == "__main__":
    left_behind(sys.argv[1])

"""Runs the parts of a record within a budget of minutes, each into a file of its own."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import checkpoint
import record

ROOT = Path(__file__).resolve().parent.parent.parent


class Stop(Exception):
    """Nothing can be run: exit code and message."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


class OutOfTime(Exception):
    """The budget ended before the part's own limit."""


class Failed(Exception):
    """A command failed."""


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_json(path: Path, value: dict) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)


def plan() -> list[tuple[str, int, int]]:
    """Parts by value: name, seconds that must be left to start it, limit in seconds of each of its commands."""
    def forwards(size: str, limit: int):
        return [(f"forward-{size}-{n}x{t}", 10, limit) for n, t in checkpoint.SHAPES]

    def tunes(size: str):
        return [(f"tune-{size}-{dtype}", 8, 60) for dtype in ("f32", "f16")]

    small, base = forwards("small-en", 30), forwards("base-en", 50)
    return [("doctor", 10, 150), *tunes("small-en"), *small, ("bench", 30, 180), *tunes("base-en"), *base]


class Day:
    """A program, a device, a budget, a record directory."""

    def __init__(self, program: Path, minutes: float, work: Path):
        self.program, self.work = program, work
        self.end = time.monotonic() + 60 * minutes
        self.directory = None
        self.index = None
        self.again = False  # whether the part under way was begun before

    def left(self) -> float:
        return self.end - time.monotonic()

    def scrub(self, text: str) -> str:
        """Text without directories of this machine."""
        places = [(os.environ.get("JINABERT_CACHE") or "", "$JINABERT_CACHE"), (str(self.work), "$WORK")]
        places += [(str(ROOT), "."), (str(Path.home()), "~")]
        for place, word in places:
            text = text.replace(place, word) if len(place) > 1 else text
        return text

    def command(self, arguments: list[str], limit: float, output: Path) -> int:
        """Runs the program into a file, within its limit and the budget; its exit code."""
        seconds = min(limit, self.left())
        own = os.name == "posix"
        with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as out:
            child = subprocess.Popen([str(self.program), "-q", *arguments], stdin=subprocess.DEVNULL, stdout=out,
                                     stderr=errors, cwd=ROOT, start_new_session=own)
            try:
                code = child.wait(max(seconds, 0.1))
            except BaseException as error:
                end(child, own)
                keep(out, output, self.scrub)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                if seconds < limit:
                    raise OutOfTime("the budget of --minutes ended") from None
                raise Failed(f"`{arguments[0]}` took over its limit of {limit:.0f} s") from None
            keep(out, output, self.scrub)
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace").strip()[-1500:]
        if code != 0:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            self.said = f"`{arguments[0]}`: {how}: {self.scrub(said) or 'no message'}"
        return code

    def right(self, arguments: list[str], limit: float, output: Path) -> str:
        if self.command(arguments, limit, output) != 0:
            raise Failed(self.said)
        return output.read_text(encoding="utf-8")

    # The device

    def identify(self, device: str) -> dict:
        """The adapter that `--device` names, from the list of `jinabert devices`."""
        with tempfile.TemporaryDirectory() as directory:
            try:
                text = self.right(["devices"], 60, Path(directory) / "devices.txt")
            except (Failed, OutOfTime, OSError) as error:
                raise Stop(69, f"the devices cannot be listed: {error}") from None
        adapters = []
        for at in re.finditer(r"^(\d+) +(.+)\n +(\w+), (\w+), driver: (.+)$", text, re.MULTILINE):
            index, name, backend, kind, driver = at.groups()
            adapters.append({"index": int(index), "device": name.strip(), "backend": backend, "kind": kind,
                             "driver": driver, "software": kind == "software"})
        names = ", ".join(f"{a['index']} {a['device']} ({a['backend']}, {a['kind']})" for a in adapters) or "none"
        if device == "auto":
            fit = [a for a in adapters if not a["software"] and a["backend"] != "gl"]
        elif device.isdecimal():
            fit = [a for a in adapters if a["index"] == int(device)]
        else:
            fit = [a for a in adapters if a["backend"] == device]
        if not fit:
            raise Stop(69, f"expected a GPU as --device {device}, got none; the devices are: {names}")
        self.index = fit[0]["index"]
        threads = re.search(r"^cpu +(\d+) threads", text, re.MULTILINE)
        return {**fit[0], "cpu": f"{processor()}, {threads.group(1) if threads else os.cpu_count()} threads",
                "devices": text}

    def open(self, directory: Path | None, found: dict) -> None:
        """The record directory: a new one, or one of the same device, driver and commit."""
        slug = re.sub(r"[^a-z0-9]+", "-", found["device"].lower()).strip("-")[:60] or "device"
        self.directory = directory or ROOT / "benches/record" / slug / now()[:10]
        devices = self.scrub(found.pop("devices"))
        info = {"schema": record.SCHEMA, **found, "commit": commit(), "date": now(), "version": self.version(),
                "system": platform.platform(), "parts": [name for name, _, _ in plan()]}
        path = self.directory / "info.json"
        if path.exists():
            old = record.Record.read_info(path)
            for key in ("device", "driver", "commit", "version", "parts"):
                if old[key] != info[key]:
                    raise Stop(2, f"{self.directory}: expected {key} {old[key]} as in this record, got {info[key]}; "
                                  "name another directory with --record")
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "devices.txt").write_text(devices, encoding="utf-8")
        write_json(path, info)

    def version(self) -> str:
        asked = subprocess.run([str(self.program), "--version"], capture_output=True, text=True, timeout=60)
        digest = hashlib.sha256(self.program.read_bytes()).hexdigest()[:16]
        return f"{asked.stdout.strip() or 'unknown'}, sha256 {digest}"

    # Parts

    def part(self, name: str, limit: int) -> str:
        """Runs a part and keeps what came of it, whatever happens; its state."""
        path = self.directory / f"{name}.json"
        kept = {"schema": record.SCHEMA, "part": name, "state": "running", "started": now(), "seconds": 0.0,
                "error": None, "result": {}}
        write_json(path, kept)
        start = time.monotonic()
        try:
            self.work_of(name)(name, limit, kept)
            kept["state"] = "done" if kept["error"] is None else "failed"
        except OutOfTime as error:
            kept.update(state="interrupted", error=str(error))
        except KeyboardInterrupt:
            kept.update(state="interrupted", error="stopped by a signal")
            raise
        except Exception as error:  # a part that fails ends neither the others nor the record
            kept.update(state="failed", error=self.scrub(f"{error}" or type(error).__name__))
        finally:
            kept["seconds"] = round(time.monotonic() - start, 1)
            write_json(path, kept)
        return kept["state"]

    def work_of(self, name: str):
        works = {"doctor": self.doctor, "tune": self.tune, "forward": self.forward, "bench": self.bench}
        return works[name.split("-")[0]]

    def doctor(self, _name: str, limit: int, kept: dict) -> None:
        out = self.directory / "doctor.txt"
        try:
            code = self.command(["doctor", "--device", str(self.index)], limit, out)
        finally:
            text = out.read_text(encoding="utf-8") if out.exists() else ""
            kept["result"] = record.doctor_verdict(text)
        # Exit code 1 with faults is a verdict, not a failure of the part.
        if code != 0 and not (code == 1 and kept["result"]["faults"]):
            raise Failed(self.said)

    def tune(self, name: str, limit: int, kept: dict) -> None:
        _, size, dtype = re.fullmatch(r"(tune)-(.+)-(f\d+)", name).groups()
        model = checkpoint.make(size, self.work)
        arguments = ["tune", "--model", str(model), "--device", str(self.index), "--dtype", dtype, "--seconds", "10"]
        self.right(arguments, limit, self.directory / f"{name}.txt")
        kept["result"] = {"report": f"{name}.txt"}

    def bench(self, _name: str, limit: int, kept: dict) -> None:
        quick = self.again or self.left() < 300
        path = self.directory / "bench.report.json"
        path.unlink(missing_ok=True)
        # Elsewhere first: a program that is killed leaves its unfinished file behind.
        with tempfile.TemporaryDirectory() as directory:
            written = Path(directory) / path.name
            arguments = ["bench", "--device", str(self.index), "--json", str(written), *(["--quick"] if quick else [])]
            code = self.command(arguments, limit, self.directory / "bench.txt")
            # Exit code 1 says that a kernel is wrong: its row has the fault.
            if code not in (0, 1) or not written.exists():
                raise Failed(self.said if code else "`bench` wrote no JSON")
            compact(written)
            shutil.copyfile(written, path)
        kept["result"] = {"report": path.name, "quick": quick, "faults": code == 1}

    def forward(self, name: str, limit: int, kept: dict) -> None:
        _, size, sequences, tokens = re.fullmatch(r"(forward)-(.+)-(\d+)x(\d+)", name).groups()
        model = checkpoint.make(size, self.work)
        ids = checkpoint.write_ids(int(sequences), int(tokens), self.work)
        gpu = ["--device", str(self.index)]
        # On the CPU a large batch takes seconds: one run after the first.
        few = ["--runs", "1"] if int(sequences) * int(tokens) >= 4096 else []
        runs = {"gpu f32": gpu, "cpu f32": ["--device", "cpu", *few], "gpu f16": [*gpu, "--dtype", "f16"]}
        if "matrix" in self.tiers():
            runs["gpu matrix"] = [*gpu, "--tier", "matrix"]
        errors = []
        for engine, options in runs.items():
            arguments = ["bench", "model", "--json", "--profile", "--seconds", "3", "--ids", str(ids)]
            arguments += ["--model", str(model), *options]
            with tempfile.TemporaryDirectory() as directory:
                try:
                    line = self.right(arguments, limit, Path(directory) / "line.json")
                    line = json.loads(line, parse_constant=refuse)
                    record.field(line, "tokens_per_s", "number", "`bench model`")
                    kept["result"][engine] = line
                except (Failed, ValueError, AttributeError, record.Bad) as error:
                    errors.append(f"{engine}: {error}")
        kept["error"] = self.scrub("; ".join(errors)) or None

    def tiers(self) -> dict:
        try:
            return record.Record.read_part(self.directory / "doctor.json", "doctor")["result"].get("tiers", {})
        except record.Bad:
            return {}

    def run(self, chosen, retry: bool, say) -> None:
        """Runs chosen parts that are not there yet, those that fit."""
        for name, need, limit in plan():
            path = self.directory / f"{name}.json"
            state = "NOT RUN"
            if path.exists():
                try:
                    state = record.Record.read_part(path, name)["state"]
                except record.Bad as error:
                    say(f"{error}; the part is started again")
            if state == "done" or (state == "failed" and not retry):
                say(f"{name}: {state} before")
            elif chosen(name) and self.left() < need:
                say(f"{name}: NOT RUN, {max(self.left(), 0):.0f} s left of the {need} s that it needs")
            elif chosen(name):
                start, self.again = time.monotonic(), path.exists()
                say(f"{name}: {self.part(name, limit)}, {time.monotonic() - start:.0f} s")


def end(child: subprocess.Popen, own: bool) -> None:
    """Kills a program with whatever it started."""
    try:
        os.killpg(child.pid, signal.SIGKILL) if own else child.kill()
    except OSError:
        pass
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        pass  # held by a driver; the next part is tried all the same


def refuse(constant: str):
    raise ValueError(f"expected finite numbers, got {constant}")


def keep(source, target: Path, scrub) -> None:
    source.seek(0)
    target.write_text(scrub(source.read().decode("utf-8", "replace")), encoding="utf-8")


def compact(path: Path) -> None:
    """Rewrites a report with less white space and shorter floats: records are kept in git."""
    def short(value):
        if isinstance(value, float):
            return float(f"{value:.6g}")
        if isinstance(value, dict):
            return {key: short(inner) for key, inner in value.items()}
        return [short(inner) for inner in value] if isinstance(value, list) else value

    report = short(json.loads(path.read_text(encoding="utf-8")))
    rows = report.pop("kernels", [])
    text = json.dumps(report, indent=1, ensure_ascii=False).rstrip().rstrip("}").rstrip()
    lines = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(f'{text},\n "kernels": [\n  {lines}\n ]\n}}\n', encoding="utf-8")


def processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine() or "unknown"


def commit() -> str:
    """The commit of the checkout, with `+` if files other than records differ from it."""
    try:
        git = ["git", "-C", str(ROOT)]
        found = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=30)
        changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benches/record"],
                                 capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    if found.returncode != 0:
        return "unknown"
    return found.stdout.strip() + ("+" if changed.stdout.strip() else "")


def find_program(minutes: float, say) -> Path:
    """$JINABERT, target/release/jinabert, or that one built now."""
    named = os.environ.get("JINABERT")
    if named:
        if not Path(named).is_file():
            raise Stop(66, f"expected a program as JINABERT, got {named}, which is no file")
        return Path(named).resolve()
    program = ROOT / "target/release" / ("jinabert.exe" if os.name == "nt" else "jinabert")
    if program.is_file():
        return program
    cargo = shutil.which("cargo")
    if not cargo:
        raise Stop(66, f"expected {program}, or cargo to build it: found neither; JINABERT names another program")
    say("building target/release/jinabert, within the budget")
    try:
        built = subprocess.run([cargo, "build", "--release", "--locked"], cwd=ROOT, capture_output=True, text=True,
                               errors="replace", timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        raise Stop(3, "the budget of --minutes ended during the build; the next call goes on with it") from None
    if built.returncode != 0 or not program.is_file():
        raise Stop(66, f"cargo build --release failed: {built.stderr.strip()[-1500:]}")
    return program

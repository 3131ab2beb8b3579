"""Reads record directories of `tools/card`, checks them, and prints them as Markdown."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

SCHEMA = 1
STATES = ("done", "failed", "interrupted", "running")
ENGINES = ("gpu f32", "gpu f16", "gpu matrix", "cpu f32")
KINDS = {"string": str, "object": dict, "list": list, "bool": bool, "integer": int}


class Bad(Exception):
    """A record that cannot be read: file, field and value."""


def field(value: dict, name: str, kind: str, where: str):
    """A field of the given kind; "number" is finite and not negative."""
    found = value.get(name)
    if kind == "number":
        right = isinstance(found, (int, float)) and not isinstance(found, bool)
        right = right and math.isfinite(found) and found >= 0
    else:
        right = isinstance(found, KINDS[kind]) and (kind == "bool" or not isinstance(found, bool))
    if not right:
        shown = "nothing" if name not in value else json.dumps(found)[:60]
        article = "an" if kind in ("object", "integer") else "a"
        raise Bad(f"{where}: expected {article} {kind} as `{name}`, got {shown}")
    return found


def load_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Bad(f"{path}: expected a JSON file, got: {error}") from None
    if not isinstance(value, dict):
        raise Bad(f"{path}: expected an object, got {json.dumps(value)[:60]}")
    if value.get("schema") != SCHEMA:
        raise Bad(f"{path}: expected schema {SCHEMA}, got {json.dumps(value.get('schema'))[:60]}")
    return value


def doctor_verdict(text: str) -> dict:
    """Counts of what `jinabert doctor` printed, by tier; `whole` says that its last line is there."""
    tiers, faults = {}, []
    for line in text.splitlines():
        found = re.match(r"  (pass|FAIL)  (.+?)\s{2,}(.*)$", line) or re.match(r"  (pass|FAIL)  (\S.*?) (.*)$", line)
        if not found:
            continue
        verdict, name, detail = found.groups()
        tier = re.sub(r" (golden vectors|\w+)$", "", name) if " " in name else name
        counts = tiers.setdefault(tier, {"passed": 0, "failed": 0})
        counts["passed" if verdict == "pass" else "failed"] += 1
        if verdict == "FAIL":
            faults.append(f"{name}: {detail}"[:300])
    whole = bool(re.search(r"^all \d+ checks passed$", text, re.MULTILINE))
    return {"tiers": tiers, "faults": faults, "all_passed": whole and not faults}


class Record:
    """One record directory."""

    def __init__(self, directory: Path):
        self.directory = directory
        if not (directory / "info.json").is_file():
            raise Bad(f"{directory}: expected a record directory with info.json, got none")
        self.info = self.read_info(directory / "info.json")
        self.parts = {}
        for name in self.info["parts"]:
            path = directory / f"{name}.json"
            if path.exists():
                self.parts[name] = self.read_part(path, name)
        self.bench = self.read_bench()

    @staticmethod
    def read_info(path: Path) -> dict:
        info, where = load_json(path), str(path)
        for name in ("device", "backend", "kind", "driver", "commit", "date", "version", "cpu"):
            field(info, name, "string", where)
        field(info, "software", "bool", where)
        for name in field(info, "parts", "list", where):
            if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9-]+", name):
                raise Bad(f"{where}: expected names of parts in `parts`, got {json.dumps(name)[:60]}")
        return info

    @staticmethod
    def read_part(path: Path, name: str) -> dict:
        part, where = load_json(path), str(path)
        if field(part, "part", "string", where) != name:
            raise Bad(f"{where}: expected `part` {name}, got {part['part']}")
        if field(part, "state", "string", where) not in STATES:
            raise Bad(f"{where}: expected `state` of {', '.join(STATES)}, got {part['state']}")
        result = field(part, "result", "object", where)
        if part["state"] == "done" and not result and not name.startswith(("tune", "bench")):
            raise Bad(f"{where}: expected a result in a part that is done, got nothing")
        if name.startswith("forward"):
            for engine, line in result.items():
                if engine not in ENGINES or not isinstance(line, dict):
                    raise Bad(f"{where}: expected results of {', '.join(ENGINES)}, got {engine}")
                if field(line, "tokens_per_s", "number", f"{where}, {engine}") == 0:
                    raise Bad(f"{where}, {engine}: expected `tokens_per_s` over 0, got 0")
        if name == "doctor" and result:
            field(result, "all_passed", "bool", where)
            field(result, "faults", "list", where)
            for tier, counts in field(result, "tiers", "object", where).items():
                if not isinstance(counts, dict):
                    raise Bad(f"{where}: expected counts of {tier}, got {json.dumps(counts)[:60]}")
                for key in ("passed", "failed"):
                    field(counts, key, "integer", f"{where}, {tier}")
        return part

    def read_bench(self) -> dict:
        """Roof and best kernels of `bench.report.json`; nothing if the part is not done."""
        if self.parts.get("bench", {}).get("state") != "done":
            return {}
        path = self.directory / "bench.report.json"
        report, where = load_json(path), str(path)
        roof = field(report, "roof", "object", where)
        found = {"best": {}}
        for name in ("compute", "memory"):
            found[name] = field(field(roof, name, "object", where), "giga_per_s", "number", f"{where}, {name}")
        for row in field(report, "kernels", "list", where):
            if not isinstance(row, dict):
                raise Bad(f"{where}: expected objects in `kernels`, got {json.dumps(row)[:60]}")
            names = [field(row, key, "string", where) for key in ("kernel", "tier", "size", "shape")]
            kernel, tier, size, shape = names
            check, timing = field(row, "check", "object", where), row.get("timing")
            if kernel not in ("linear", "linear_geglu", "attention") or not timing or check.get("fault"):
                continue
            if not isinstance(timing, dict):
                raise Bad(f"{where}: expected an object as `timing`, got {json.dumps(timing)[:60]}")
            numbers = {key: field(timing, key, "number", f"{where}, {kernel} {tier}") for key in ("gflops", "percent")}
            tokens = field(row, "tokens", "integer", where)
            store = "f16" if tier.endswith("f16") else "f32"
            key = (size, "attention" if kernel == "attention" else "GEMM", store)
            best = found["best"].get(key)
            if best is None or numbers["gflops"] > best["gflops"]:
                found["best"][key] = {**numbers, "tier": tier, "what": f"{kernel} {shape}, {tokens} tokens"}
        return found

    def name(self) -> str:
        return self.info["device"] + (" (software driver)" if self.info["software"] else "")

    def state(self, name: str) -> str:
        """done, failed, interrupted, or NOT RUN"""
        state = self.parts.get(name, {}).get("state", "NOT RUN")
        return "interrupted" if state == "running" else state

    def missing(self) -> list[str]:
        return [name for name in self.info["parts"] if self.state(name) != "done"]

    def forward(self, name: str) -> list[str]:
        """Cells of a forward: tokens/s of each engine, and what the GPU is worth."""
        result = self.parts.get(name, {}).get("result", {})
        speed = {engine: result[engine]["tokens_per_s"] for engine in ENGINES if engine in result}
        cells = [count(speed[engine]) if engine in speed else "–" for engine in ENGINES]
        ratio = "–"
        if "gpu f32" in speed and "cpu f32" in speed:
            ratio = f"{speed['gpu f32'] / speed['cpu f32']:.2f}"
        return [*cells, ratio]

    def doctor(self) -> str:
        result = self.parts.get("doctor", {}).get("result")
        if not result:
            return self.state("doctor")
        tiers, words = result["tiers"], []
        for tier, counts in tiers.items():
            total = counts["passed"] + counts["failed"]
            words.append(f"{tier} {counts['passed']}/{total}")
        verdict = "all passed" if result["all_passed"] else "FAULTS" if result["faults"] else "incomplete"
        return f"{verdict}: {', '.join(words) or 'nothing checked'}"


def count(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.1f}"


def clean(cell) -> str:
    return re.sub(r"\s+", " ", str(cell)).replace("|", "\\|")


def table(head: list[str], rows: list[list]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(clean, line)) + " |\n" for line in lines)


def markdown(records: list[Record]) -> str:
    """README's tables: speed, roofs, doctor, what is incomplete."""
    speed, roofs, doctors, notes = [], [], [], []
    for record in records:
        info, name = record.info, record.name()
        for part in info["parts"]:
            found = re.fullmatch(r"forward-([a-z]+-[a-z]+)-(\d+)x(\d+)", part)
            if found and record.state(part) != "NOT RUN":
                size, sequences, tokens = found.groups()
                shape = f"{sequences} × {int(tokens):,}"
                mark = "" if record.state(part) == "done" else f" ({record.state(part)})"
                speed.append([name, size, shape + mark, *record.forward(part)])
        for (size, kernel, store), best in record.bench.get("best", {}).items():
            values = [f"{best['gflops']:.1f}", f"{best['percent']:.0f} %", best["what"]]
            roofs.append([name, size, f"{kernel} {store}", best["tier"], *values])
        roof = record.bench and f"{record.bench['compute']:.1f} GFLOP/s, {record.bench['memory']:.1f} GB/s"
        where = f"{info['backend']}, {info['kind']}, {info['driver']}; beside {info['cpu']}"
        commit = f"{info['date'][:10]}, {info['commit'][:16]}"
        doctors.append([name, where, commit, roof or record.state("bench"), record.doctor()])
        notes += notes_of(record)
    head = ["device", "size", "texts × tokens", "GPU f32", "GPU f16", "GPU matrix", "CPU f32", "GPU f32 / CPU"]
    text = "Tokens a second, random weights:\n\n" + table(head, speed) if speed else "No forward was run.\n"
    if roofs:
        head = ["device", "size", "kernel", "fastest tier", "GFLOP/s", "of its bound", "problem"]
        text += "\nFastest kernels, of the bound that applies (benches/README.md):\n\n" + table(head, roofs)
    head = ["device", "adapter", "date, commit", "roof", "doctor"]
    text += "\n" + table(head, doctors)
    if any(record.info["software"] for record in records):
        text += "\nA software driver says how that driver runs WGSL on this CPU and nothing about a card.\n"
    return text + ("\n" + "".join(f"- {clean(note)}\n" for note in notes) if notes else "")


def notes_of(record: Record) -> list[str]:
    """What is incomplete or wrong."""
    name, found = record.name(), []
    waiting = [part for part in record.info["parts"] if record.state(part) == "NOT RUN"]
    for part in record.missing():
        if record.state(part) != "NOT RUN":
            error = record.parts[part].get("error") or "stopped before its end"
            found.append(f"{name}: {part} {record.state(part)}: {error}"[:400])
    for fault in record.parts.get("doctor", {}).get("result", {}).get("faults", []):
        found.append(f"{name}: doctor: FAIL {fault}")
    if waiting:
        found.append(f"{name}: NOT RUN: {', '.join(waiting)}")
    if record.missing():
        done = len(record.info["parts"]) - len(record.missing())
        found.insert(0, f"{name}: incomplete, {done} of {len(record.info['parts'])} parts done")
    return found


def find(paths: list[Path]) -> list[Path]:
    """Record directories at or below the given ones."""
    found = []
    for path in paths:
        below = [path] if (path / "info.json").is_file() else sorted(p.parent for p in path.glob("**/info.json"))
        if not below:
            raise Bad(f"{path}: expected a record directory with info.json, or directories of them, got none")
        found += below
    return found

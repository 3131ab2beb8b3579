#!/usr/bin/env python3
"""Tests of tools/card against a program that only answers: python3 tools/cards/test.py"""

import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import checkpoint  # noqa: E402
import day  # noqa: E402
import record  # noqa: E402

CARD = HERE.parent / "card"
PROGRAM = '''#!%s -IS
import json, os, sys, time
words = [w for w in sys.argv[1:] if w != "-q"]
broken, slow = os.environ.get("BROKEN", "none"), os.environ.get("SLOW", "none")
line = " ".join(words)
with open(os.environ["CALLS"], "a") as calls:
    calls.write(line + "\\n")
if slow in line:
    print("  pass  naive embed                 0 of 1 elements wrong", flush=True)
    time.sleep(60)
if broken in line:
    print("lost in " + os.path.expanduser("~/secret"), file=sys.stderr)
    sys.exit(69)
if words == ["--version"]:
    print("jinabert 9.9.9")
elif words[0] == "devices":
    print("0    Card A|X (1)\\n     vulkan, discrete, driver: D 1.2\\n     tier: subgroup\\n"
          "1    llvmpipe\\n     vulkan, software, driver: L 3\\n     tier: subgroup\\ncpu  7 threads")
elif words[0] == "doctor":
    print("Card A\\ndevice: Card A, naive kernels\\n"
          "  pass  naive golden vectors        8 texts, max 5.4e-7, limit 1e-5\\n"
          "  pass  naive embed                 0 of 28416 elements wrong\\n"
          "  pass  matrix linear               0 of 28416 elements wrong")
    if os.environ.get("FAULT"):
        print("  FAIL  tiled f16 linear_geglu      3 of 9 elements wrong, max 1")
        sys.exit(1)
    print("all 3 checks passed")
elif words[:2] == ["bench", "model"]:
    assert os.path.isfile(words[words.index("--model") + 1] + "/config.json"), line
    speed = 500 if "cpu" in words else 1000 if "f16" in words else 800.5
    print(json.dumps({"tokens_per_s": float(os.environ.get("SPEED", speed))}))
elif words[0] == "bench":
    timing = lambda g: {"gflops": g, "percent": g / 10, "bound": "compute"}
    row = lambda k, t, g: {"kernel": k, "tier": t, "size": "small", "shape": "N8", "tokens": 64,
                           "check": {"fault": None}, "timing": timing(g)}
    rows = [row("linear", "naive", 5.0), row("linear", "subgroup", 650.123456789), row("linear", "tiled f16", 9.0),
            row("attention", "subgroup", 40.0), row("pool", "naive", 9999.0)]
    report = {"schema": 1, "roof": {"compute": {"giga_per_s": 1000.0}, "memory": {"giga_per_s": 99.5}}, "kernels": rows}
    json.dump(report, open(words[words.index("--json") + 1], "w"))
elif words[0] == "tune":
    print("fastest: subgroup kernels")
''' % sys.executable


class Card(unittest.TestCase):
    def setUp(self):
        self.dir = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.dir)
        self.program, self.calls = self.dir / "program", self.dir / "calls"
        self.program.write_text(PROGRAM)
        self.program.chmod(self.program.stat().st_mode | stat.S_IXUSR)
        for size in checkpoint.SIZES:  # marked as made: this program reads none
            (self.dir / f"work/random-{size}").mkdir(parents=True)
            (self.dir / f"work/random-{size}/config.json").write_text("{}")
        self.record = self.dir / "record"

    def card(self, *arguments, **environment):
        everything = {**os.environ, "JINABERT": str(self.program), "CALLS": str(self.calls), **environment}
        options = [] if "--read" in arguments else ["--record", self.record, "--work", self.dir / "work"]
        self.calls.write_text("")
        return subprocess.run([sys.executable, CARD, *options, *arguments], env=everything, capture_output=True,
                              text=True, timeout=50)

    def part(self, name):
        return json.loads((self.record / f"{name}.json").read_text())

    def read(self, code=0):
        ran = self.card("--read", self.record)
        self.assertEqual(ran.returncode, code, ran.stderr)
        return ran.stdout if code == 0 else ran.stderr

    def test_a_whole_record_becomes_tables(self):
        ran = self.card()
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        text = self.read()
        self.assertIn("| Card A\\|X (1) | small-en | 32 × 128 | 800 | 1,000 | 800 | 500 | 1.60 |", text)
        self.assertIn("| Card A\\|X (1) | base-en | 1 × 8,192 | 800 | 1,000 | 800 | 500 | 1.60 |", text)
        self.assertIn("| small | GEMM f32 | subgroup | 650.1 | 65 % | linear N8, 64 tokens |", text)
        self.assertIn("| small | GEMM f16 | tiled f16 | 9.0 | 1 % |", text)
        self.assertIn("| small | attention f32 | subgroup | 40.0 | 4 % |", text)
        self.assertIn("1000.0 GFLOP/s, 99.5 GB/s | all passed: naive 2/2, matrix 1/1 |", text)
        self.assertNotIn("incomplete", text)
        self.assertNotIn("software", text)
        self.assertEqual(text, (self.record / "README.md").read_text())
        # Finished parts are skipped.
        self.assertEqual(self.calls_of(), "devices\n--version\n")

    def calls_of(self, *arguments, **environment):
        self.card(*arguments, **environment)
        return self.calls.read_text()

    def test_a_failing_part_is_recorded_and_the_others_go_on(self):
        chosen = ["--only", "tune-*", "forward-base-en-1x8192"]
        ran = self.card(*chosen, BROKEN="--dtype f16 --seconds")
        self.assertEqual(ran.returncode, 1, ran.stderr)
        self.assertEqual(self.part("tune-small-en-f16")["state"], "failed")
        self.assertEqual(self.part("tune-small-en-f16")["error"], "`tune`: exit code 69: lost in ~/secret")
        self.assertEqual(self.part("forward-base-en-1x8192")["state"], "done")
        text = self.read()
        self.assertIn(f"Card A\\|X (1): incomplete, 3 of {len(day.plan())} parts done", text)
        self.assertIn("tune-base-en-f16 failed: `tune`: exit code 69", text)
        # Failed parts wait for --retry.
        self.assertNotIn("tune", self.calls_of(*chosen))
        self.assertEqual(self.card(*chosen, "--retry").returncode, 3)
        self.assertIn(f"incomplete, 5 of {len(day.plan())} parts done", self.read())

    def test_one_engine_that_fails_keeps_the_others(self):
        self.card("--only", "forward-small-en-1x16", BROKEN="--device cpu")
        part = self.part("forward-small-en-1x16")
        self.assertEqual((part["state"], sorted(part["result"])), ("failed", ["gpu f16", "gpu f32"]))
        self.assertIn("| 1 × 16 (failed) | 800 | 1,000 | – | – | – |", self.read())

    def test_numbers_that_are_not_finite_are_no_result(self):
        self.card("--only", "forward-small-en-1x16", SPEED="nan")
        part = self.part("forward-small-en-1x16")
        self.assertEqual((part["state"], part["result"]), ("failed", {}))
        self.assertIn("gpu f32: expected finite numbers, got NaN", part["error"])

    def test_a_signal_ends_the_program_and_is_recorded(self):
        everything = {**os.environ, "JINABERT": str(self.program), "CALLS": str(self.calls), "SLOW": "doctor"}
        command = [sys.executable, CARD, "--record", self.record, "--work", self.dir / "work"]
        with subprocess.Popen(command, env=everything, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            for _ in range(400):
                if self.calls.exists() and "doctor" in self.calls.read_text():
                    break
                time.sleep(0.05)
            running.terminate()
            self.assertIn(b"stopped", running.communicate(timeout=30)[1])
        self.assertEqual(running.returncode, 130)
        self.assertEqual(self.part("doctor")["state"], "interrupted")
        self.assertIn("doctor interrupted: stopped by a signal", self.read())

    def test_faults_of_doctor_are_its_verdict(self):
        self.card("--only", "doctor", FAULT="1")
        self.assertEqual(self.part("doctor")["state"], "done")
        text = self.read()
        self.assertIn("FAULTS: naive 2/2, matrix 1/1, tiled f16 0/1", text)
        self.assertIn("doctor: FAIL tiled f16 linear_geglu: 3 of 9 elements wrong", text)

    def test_a_budget_that_ends_interrupts_a_part_and_the_next_call_starts_it_again(self):
        start = time.monotonic()
        ran = self.card("--minutes", "0.2", SLOW="doctor")
        self.assertLess(time.monotonic() - start, 30)
        self.assertEqual(ran.returncode, 3, ran.stderr)
        self.assertEqual(self.part("doctor")["state"], "interrupted")
        self.assertEqual(self.part("doctor")["result"]["tiers"], {"naive": {"passed": 1, "failed": 0}})
        self.assertIn("tune-small-en-f32: NOT RUN", ran.stdout)
        text = self.read()
        self.assertIn("incomplete: naive 1/1", text)
        self.assertIn("doctor interrupted: the budget of --minutes ended", text)
        self.assertIn("NOT RUN: tune-small-en-f32, tune-small-en-f16, forward-small-en-32x128", text)
        self.card("--only", "doctor")
        self.assertIn("all passed: naive 2/2", self.read())

    def test_a_part_that_was_killed_is_started_again(self):
        first = self.calls_of("--only", "bench")
        self.assertTrue("bench --device 0 --json" in first and "--quick" not in first, first)
        part = {**self.part("bench"), "state": "running", "result": {}}
        (self.record / "bench.json").write_text(json.dumps(part))
        self.assertIn("bench interrupted: stopped before its end", self.read())
        self.assertIn("--quick", self.calls_of("--only", "bench"))
        self.assertEqual(self.part("bench")["state"], "done")

    def test_another_device_gets_a_record_of_its_own(self):
        self.card("--only", "doctor")
        ran = self.card("--device", "1")
        self.assertEqual(ran.returncode, 2)
        self.assertIn("expected device Card A|X (1) as in this record, got llvmpipe", ran.stderr)
        shutil.rmtree(self.record)
        self.card("--device", "1", "--only", "doctor")
        self.assertIn("llvmpipe (software driver)", self.read())
        self.assertIn("nothing about a card", self.read())

    def test_bad_options_are_refused(self):
        for options, code, message in [
            (["--device", "7"], 69, "expected a GPU as --device 7, got none; the devices are: 0 Card A|X (1)"),
            (["--only", "docter"], 2, "expected --only of doctor, "),
            (["--minutes", "nan"], 2, "expected minutes over 0 and up to 1440, got nan"),
            (["--read", "/nowhere/at/all"], 65, "expected a record directory with info.json"),
        ]:
            ran = self.card(*options)
            self.assertEqual(ran.returncode, code, options)
            self.assertIn(message, ran.stderr)
        ran = self.card(JINABERT="/nowhere/at/all")
        self.assertEqual((ran.returncode, "expected a program as JINABERT" in ran.stderr), (66, True), ran.stderr)

    def test_bad_records_are_refused(self):
        self.card("--only", "doctor", "bench", "forward-small-en-1x16")
        good = {path: path.read_text() for path in self.record.glob("*.json")}

        def refused(file, change, message):
            value = json.loads(good[self.record / file])
            change(value)
            self.bad(good, file, json.dumps(value), message)

        forward = "forward-small-en-1x16.json"
        for speed in [-1, "x", None, True, float("nan"), float("inf")]:
            refused(forward, lambda v: v["result"]["gpu f32"].update(tokens_per_s=speed),
                    "expected a number as `tokens_per_s`, got")
        refused(forward, lambda v: v["result"]["gpu f32"].update(tokens_per_s=0), "expected `tokens_per_s` over 0, got 0")
        refused(forward, lambda v: v["result"].update(other={}), "expected results of gpu f32, ")
        refused(forward, lambda v: v.update(state="fine"), "expected `state` of done, ")
        refused(forward, lambda v: v.update(part="doctor"), "expected `part` forward-small-en-1x16, got doctor")
        refused(forward, lambda v: v.update(result={}), "expected a result in a part that is done, got nothing")
        refused("doctor.json", lambda v: v["result"].pop("tiers"), "expected an object as `tiers`, got nothing")
        refused("info.json", lambda v: v.update(schema=2), "expected schema 1, got 2")
        refused("info.json", lambda v: v.update(parts=["../x"]), "expected names of parts in `parts`")
        refused("info.json", lambda v: v.pop("driver"), "expected a string as `driver`, got nothing")
        refused("bench.report.json", lambda v: v.pop("roof"), "expected an object as `roof`, got nothing")
        refused("bench.report.json", lambda v: v["kernels"][0].update(timing=7), "expected an object as `timing`, got 7")
        for text in ["", "{", "[]", "[" * 100_000, "\0"]:
            self.bad(good, "doctor.json", text, "doctor.json: expected ")
        (self.record / "doctor.json").write_text("{")
        self.assertIn("doctor.json: expected a JSON file, got: ", self.read(code=65))

    def bad(self, good, file, text, message):
        path = self.record / file
        path.write_text(text)
        with self.assertRaises(record.Bad) as caught:
            record.Record(self.record)
        path.write_text(good[path])
        self.assertIn(message, str(caught.exception))
        self.assertIn(file, str(caught.exception))


class Checkpoint(unittest.TestCase):
    def test_weights_are_seeded_finite_and_small(self):
        values = self.values("a", 0.0)
        self.assertEqual(values, self.values("a", 0.0))
        self.assertNotEqual(values, self.values("b", 0.0))
        self.assertLess(abs(sum(values) / len(values)), 0.002)
        self.assertAlmostEqual((sum(v * v for v in values) / len(values)) ** 0.5, 0.02, delta=0.002)
        self.assertTrue(all(0.8 < v < 1.3 for v in self.values("a", 1.0)))

    @staticmethod
    def values(seed, mean):
        data = b"".join(checkpoint.halves(seed, 4096, mean))
        return struct.unpack("<4096e", data)

    def test_sizes_are_the_published_ones(self):
        for size, millions in [("small-en", 32.4), ("base-en", 136.9)]:
            total = 0
            for shape, _ in checkpoint.shapes(size).values():
                total += shape[0] * (shape[1] if len(shape) > 1 else 1)
            self.assertAlmostEqual(total / 1e6, millions, delta=0.5)


if __name__ == "__main__":
    unittest.main()

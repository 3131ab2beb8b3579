//! `jinabert bench`: the format of its reports, not the measurements.

use crate::kit::{Ran, arg, fixture, jinabert, run};
use serde_json::Value;
use std::{fs, path::Path};
use tempfile::TempDir;

fn place() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Runs `jinabert bench model` on a tiny model.
fn model(ids: &Path, args: &[&str]) -> Ran {
    let mut command = jinabert(&["bench", "model", "--ids", arg(ids), "--seconds", "0"]);
    run(command.args(args).arg("--model").arg(fixture("tiny-geglu-4h")), b"")
}

#[test]
fn a_forward_is_timed() {
    let place = place();
    let a = place.path().join("W1.txt");
    let b = place.path().join("b.c.ids");
    fs::write(&a, "2 28 3\n2 5 6 7 3\n").expect("a writable directory");
    fs::write(&b, "2 3").expect("a writable directory");
    let out = model(&a, &["--json", "--ids", arg(&b), "--runs", "4"]).output("json");
    let out = String::from_utf8(out).expect("UTF-8");
    let lines: Vec<Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2);
    for (line, name, sequences, tokens) in [(&lines[0], "W1", 2, 8), (&lines[1], "b.c", 1, 2)] {
        assert_eq!(line["workload"], name);
        assert_eq!(
            (line["sequences"].as_u64(), line["tokens"].as_u64()),
            (Some(sequences), Some(tokens))
        );
        assert_eq!((&line["runs"], &line["dtype"]), (&Value::from(3), &Value::from("f32")));
        assert_eq!(line["model"], "tiny-geglu-4h");
        let number = |key: &str| line[key].as_f64().expect(key);
        assert!(number("min_ms") <= number("ms") && number("first_ms") > 0.0, "{line}");
        let rate = 1e3 * tokens as f64 / number("ms");
        assert!((number("tokens_per_s") / rate - 1.0).abs() < 1e-6, "{line}");
        assert!(!cfg!(target_os = "linux") || number("rss_mb") > 1.0);
    }
    assert!(lines[0].get("kernels_ms").is_none() && lines[0].get("overhead").is_none());
    let out = model(&a, &["--json", "--profile"]).output("profile");
    let line: Value = serde_json::from_slice(&out).expect("JSON");
    let kernels = line["kernels_ms"].as_object().expect("times of kernels");
    let words = ["attention", "embed", "layer_norm", "linear", "linear_geglu", "pool"];
    assert!(kernels.keys().eq(words), "{line}");
    let sum: f64 = kernels.values().map(|ms| ms.as_f64().expect("a number")).sum();
    let rest =
        line["overhead"].as_f64().expect("a number") * line["ms"].as_f64().expect("a number");
    assert!((sum + rest - line["ms"].as_f64().expect("a number")).abs() < 1e-6, "{line}");
    assert_eq!(line["attention_kept"], 1.0, "a few tokens");
    let text = String::from_utf8(model(&a, &[]).output("text")).expect("UTF-8");
    assert!(text.starts_with("W1: 2 sequences, 8 tokens: ") && text.lines().count() == 1, "{text}");
}

#[test]
fn the_share_of_attended_pairs_is_reported() {
    let place = place();
    let ids = place.path().join("long.txt");
    fs::write(&ids, "2 28 7 9 ".repeat(256)).expect("a writable directory");
    let kept = |args: &[&str]| {
        let out = model(&ids, &[&["--json", "--profile", "--runs", "1"], args].concat());
        let line: Value = serde_json::from_slice(&out.output("JSON")).expect("JSON");
        line["attention_kept"].as_f64().expect("a share")
    };
    let some = kept(&[]);
    assert!(0.1 < some && some < 0.9, "{some} of 1,024 tokens");
    assert_eq!(kept(&["--dense-attention"]), 1.0);
    let says = format!("{some:.3} of all pairs of queries and keys");
    let out = text(model(&ids, &["--profile", "--runs", "1"]).output("text"));
    let line = out.lines().find(|line| line.starts_with("  attention ")).expect("attention");
    assert!(line.ends_with(&says) && line.chars().count() <= 100, "{line}");
    assert_eq!(out.matches("of all pairs").count(), 1, "{out}");
    assert!(!text(model(&ids, &["--runs", "1"]).output("text")).contains("of all pairs"));
}

#[test]
fn ids_may_begin_with_a_byte_order_mark() {
    let place = place();
    let ids = place.path().join("ids.txt");
    fs::write(&ids, "\u{feff}2 28 3\n").expect("a writable directory");
    let out = model(&ids, &["--json", "--runs", "1"]).output("a mark");
    let found: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(found["tokens"], 3);
}

#[test]
fn bad_ids_are_named() {
    let place = place();
    let path = place.path().join("ids.txt");
    let cases: &[(&str, &[u8], &str)] = &[
        (
            "a word",
            b"2 3\n2 three 3\n",
            "ids.txt:2: expected a token id from 0 to 4294967295, got `three`",
        ),
        ("a negative id", b"-1", "ids.txt:1: expected a token id from 0 to 4294967295, got `-1`"),
        (
            "over u32",
            b"2 4294967296",
            "ids.txt:1: expected a token id from 0 to 4294967295, got `4294967296`",
        ),
        ("an empty line", b"2 3\n\n2 3\n", "ids.txt:2: no token ids"),
        ("an empty file", b"", "ids.txt:1: no token ids"),
        ("outside the vocabulary", b"2 3\n2 400\n", "ids.txt:2: id 400; the vocabulary has 400"),
        ("too long", &b"2 ".repeat(1025), "ids.txt:1: 1025 tokens, over the limit of 1024"),
        ("not UTF-8", b"2 3\n\xff\n", "ids.txt:2: not UTF-8"),
    ];
    for (name, bytes, says) in cases {
        fs::write(&path, bytes).expect("a writable directory");
        model(&path, &["--json"]).refused(name, 65, &[says]);
    }
    let missing = place.path().join("missing.txt");
    model(&missing, &[]).refused("a missing file", 66, &["missing.txt"]);
    model(place.path(), &[]).refused("a directory", 66, &["cannot read"]);
}

/// Runs `jinabert bench` on the tiny model, for a short time.
fn bench(args: &[&str]) -> Ran {
    let mut command = jinabert(&["bench", "--quick"]);
    run(command.args(args).env("JINABERT_MODEL", fixture("tiny-geglu-4h")), b"")
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn a_device_is_measured_and_compared() {
    let place = place();
    let [a, b, html] = ["A.json", "B.json", "A.html"].map(|name| place.path().join(name));
    let kernels = ["--kernel", "pool", "--kernel", "layer_norm", "--kernel", "gather"];
    let out = bench(&[&kernels[..], &["--json", arg(&a), "--html", arg(&html)]].concat());
    let table = text(out.output("kernels"));
    for part in ["roof\n", "GFLOP/s", "GB/s", "wall clock", "  pool ", "  layer_norm ", "  gather "]
    {
        assert!(table.contains(part), "`{part}` is not in\n{table}");
    }
    for part in ["model", "linear", "NaN", "inf"] {
        assert!(!table.contains(part), "`{part}` is in\n{table}");
    }
    for line in table.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    let report: Value = serde_json::from_slice(&fs::read(&a).expect("a file")).expect("JSON");
    assert_eq!((&report["schema"], &report["clock"]), (&Value::from(1), &Value::from("wall")));
    assert_eq!((&report["quick"], &report["model"]), (&Value::from(true), &Value::Null));
    let rows = report["kernels"].as_array().expect("a list");
    assert_eq!(rows.len(), 6, "two sizes of each");
    for row in rows {
        let number = |name: &str| row["timing"][name].as_f64().expect("a number");
        assert!(number("gbps") > 0.0 && number("percent") > 0.0, "{row}");
        assert_eq!(number("gflops") > 0.0, row["kernel"] != "gather", "{row}");
        assert!(row["timing"]["ms"]["runs"].as_u64() >= Some(5) && row["check"]["fault"].is_null());
    }
    let page = text(fs::read(&html).expect("a file"));
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    assert!(page.contains(">gather</th>") && !page.contains("NaN") && page.len() < 200_000);
    let same = run(&mut jinabert(&["bench", "compare", arg(&a), arg(&a)]), b"").output("the same");
    let same = text(same);
    let gather = same.lines().find(|line| line.contains("gather")).expect("a line");
    let words: Vec<_> = gather.split_whitespace().collect();
    assert!(gather.contains("GB/s") && words.last() == Some(&"1.00"), "{gather}");
    // Reports of version 0.1 have null for the percentage of a copy.
    let mut old = report;
    for row in old["kernels"].as_array_mut().expect("a list") {
        row["timing"]["percent"] = Value::Null;
    }
    fs::write(&b, old.to_string()).expect("a writable directory");
    run(&mut jinabert(&["bench", "compare", arg(&b), arg(&a)]), b"").output("an older report");

    let args = ["--kernel", "pool", "--kernel", "linear_geglu", "--json", "-"];
    let out = bench(&args).output("to standard output");
    serde_json::from_slice::<Value>(&out).expect("JSON and nothing else");
    fs::write(&b, out).expect("a writable directory");
    let out = run(&mut jinabert(&["bench", "compare", arg(&a), arg(&b)]), b"").output("compare");
    let table = text(out);
    assert!(table.contains("B/A") && table.contains("pool blocked small D512 L128"), "{table}");
    let (_, only) = table.split_once("only in A").expect("something only in A");
    assert!(
        only.contains("layer_norm blocked") && only.contains("only in B\n  linear_geglu blocked"),
        "{table}"
    );
}

#[test]
fn unusable_devices_models_and_reports_are_refused() {
    bench(&["--device", "99"]).refused("a device", 69, &["99"]);
    let place = place();
    let [missing, broken] = ["no/such/A.json", "B.json"].map(|name| place.path().join(name));
    bench(&["--kernel", "pool", "--json", arg(&missing)]).refused("a place", 73, &["A.json"]);
    bench(&["--kernel", "pool", "--json", "-", "--html", "-"]).refused("twice", 2, &["one of"]);
    bench(&["--model", arg(place.path())]).refused("a model", 66, &["config.json"]);
    let compare =
        |a: &Path, b: &Path| run(&mut jinabert(&["bench", "compare", arg(a), arg(b)]), b"");
    compare(&missing, &missing).refused("a report", 66, &["A.json"]);
    for (text, says) in [
        ("", "B.json:1: not a report of `jinabert bench --json`: the file ends before"),
        ("{\n\"schema\": 1,\n\"date\": 7\n}", "B.json:3: not a report"),
        (
            "{\n\"schema\": 1,\n\"date",
            "B.json:3: not a report of `jinabert bench --json`: the file ends",
        ),
        ("{\"schema\": 2}", "B.json:1: expected schema 1, got 2"),
        (
            "{\"schema\": 1,\n\"roof\": NaN}",
            "B.json:2: not a report of `jinabert bench --json`: expected a number",
        ),
        (
            "{\"text\": \"a cat\"}",
            "B.json:1: not a report of `jinabert bench --json`: no field `schema`",
        ),
        ("[1]", "B.json:1: not a report of `jinabert bench --json`: expected an object"),
    ] {
        fs::write(&broken, text).expect("a writable directory");
        compare(&broken, &broken).refused(text, 65, &[says]);
    }
}

//! Texts in lines and lists of JSON: detection of the format, and fields that are copied.

use crate::kit::{Ran, arg, embed, fixture, jinabert, natural, run};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};
use tempfile::TempDir;

const BOM: &str = "\u{feff}";

/// File with this name and content.
fn file(name: &str, content: &str) -> (TempDir, PathBuf) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join(name);
    fs::write(&path, content).expect("a writable directory");
    (place, path)
}

/// Runs `jinabert embed --input` on a file with this name and content.
fn of_file(name: &str, content: &str, args: &[&str]) -> Ran {
    let (_place, path) = file(name, content);
    embed(&natural(), &[&["--input", arg(&path)], args].concat(), b"")
}

fn jsonl(args: &[&str], stdin: &str) -> Ran {
    let args = [&["--input-format", "jsonl"], args].concat();
    embed(&natural(), &args, stdin.as_bytes())
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    let text = str::from_utf8(bytes).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn extensions_are_recognised_in_any_case() {
    let expected = embed(&natural(), &["the cat", "the dog"], b"").output("arguments");
    let objects = "{\"text\": \"the cat\"}\n{\"text\": \"the dog\"}\n";
    for name in ["a.jsonl", "a.JSONL", "a.ndjson", "a.NDJSON", "a.Ndjson", "a.json", "a.JSON"] {
        assert_eq!(of_file(name, objects, &[]).output(name), expected, "{name}");
    }
    for list in [
        "[\"the cat\", \"the dog\"]",
        "[{\"text\": \"the cat\"}, \"the dog\"]",
        "\n [\n  {\n    \"text\": \"the cat\"\n  },\n  \"the dog\"\n]\n",
    ] {
        for name in ["a.json", "a.JSON"] {
            assert_eq!(of_file(name, list, &[]).output(list), expected, "{name} {list}");
        }
        let stdin = embed(&natural(), &["--input-format", "json"], list.as_bytes());
        assert_eq!(stdin.output(list), expected, "{list}");
    }
    // In a file with another extension, lines are texts.
    let text = of_file("a.TXT", "the cat\nthe dog\n", &[]).output("a.TXT");
    assert_eq!(text, expected);
    assert_eq!(of_file("a.json", "[]", &[]).output("an empty list"), b"");
}

#[test]
fn ids_are_copied_from_every_json_lines_extension() {
    let content =
        "{\"id\": \"a\", \"text\": \"the cat\"}\n{\"id\": \"b\", \"text\": \"the dog\"}\n";
    for name in ["docs.ndjson", "docs.JSONL"] {
        let found = lines(&of_file(name, content, &[]).output(name));
        assert_eq!(found.iter().map(|line| line["id"].clone()).collect::<Vec<_>>(), ["a", "b"]);
    }
}

#[test]
fn values_other_than_objects_are_refused() {
    let list = r#"["the cat", null, null, "id7", null]"#;
    for value in [list, "[1]", "[]", "7", "\"the cat\"", "null", "true"] {
        let says = ["line 2: invalid type", "expected an object with \"text\" or \"ids\""];
        let stdin = format!("{{\"text\": \"a\"}}\n{value}\n");
        jsonl(&[], &stdin).refused(value, 65, &says);
        // A list in the first line of a jsonl file is an error.
        of_file("a.jsonl", value, &[]).refused(value, 65, &["line 1: invalid type"]);
    }
    for value in [list, "7", "null", "true"] {
        let says = ["element 2: invalid type", "expected an object"];
        of_file("a.json", &format!("[\"a\", {value}]"), &[]).refused(value, 65, &says);
    }
    let says = ["a.json`: not a JSON list: ", "at line 2 column "];
    of_file("a.json", "[\"a\",\n  nope]", &[]).refused("a damaged list", 65, &says);
    let deep = format!("{{\"text\": \"a\", \"id\": {}{}}}", "[".repeat(200), "]".repeat(200));
    jsonl(&[], &deep).refused("deep", 65, &["line 1: recursion limit exceeded at column 148"]);
    let says = ["element 1: recursion limit exceeded"];
    of_file("a.json", &format!("[{deep}]"), &[]).refused("a deep element", 65, &says);
    of_file("a.json", "[\"a\"", &[]).refused("half a list", 65, &["not a JSON list: EOF"]);
    for model in ["rerank", "multi-vector", "fill-mask"] {
        let fixture_name = match model {
            "rerank" => "tiny-reranker-bpe",
            "multi-vector" => "tiny-colbert",
            _ => "tiny-mlm",
        };
        let (_place, path) = file("a.jsonl", list);
        let mut command = jinabert(&[model, "--model", arg(&fixture(fixture_name))]);
        command.arg("--input").arg(path).args((model == "rerank").then_some("query"));
        run(&mut command, b"").refused(model, 65, &["line 1: invalid type: sequence"]);
    }
}

#[test]
fn byte_order_marks_are_skipped() {
    let expected = embed(&natural(), &["the cat"], b"").output("an argument");
    for (name, content) in [
        ("a.txt", "the cat\n"),
        ("a.jsonl", "{\"text\": \"the cat\"}\n"),
        ("a.json", "[\"the cat\"]"),
        ("a.json", "\n{\"text\": \"the cat\"}"),
    ] {
        let content = format!("{BOM}{content}");
        assert_eq!(of_file(name, &content, &[]).output(name), expected, "{name}");
        let format = match name {
            "a.txt" => "lines",
            "a.jsonl" => "jsonl",
            _ => "json",
        };
        let stdin = embed(&natural(), &["--input-format", format], content.as_bytes());
        assert_eq!(stdin.output(format), expected, "{format}");
    }
    assert_eq!(of_file("a.txt", BOM, &[]).output("a mark alone"), b"");
    // The byte order mark is skipped only at the start.
    let twice = format!("the cat\n{BOM}{{\"text\": \"a\"}}\n");
    of_file("a.jsonl", &twice.replace("the cat", "{\"text\": \"a\"}"), &[]).refused(
        "inside",
        65,
        &["line 2: expected value"],
    );
}

#[test]
fn blank_lines_of_jsonl_are_skipped() {
    let a = "{\"text\": \"a\"}";
    let b = "{\"text\": \"b\"}";
    let expected = jsonl(&[], &format!("{a}\n{b}\n")).output("without");
    for stdin in [
        format!("{a}\n\n{b}\n\n"),
        format!("\n\r\n{a}\r\n \t\r\n{b}\n\n  "),
        format!("{a}\n{b}\n   "),
    ] {
        assert_eq!(jsonl(&[], &stdin).output(&stdin), expected, "{stdin:?}");
    }
    assert_eq!(jsonl(&[], "\n \n").output("nothing else"), b"");
    // Line numbers in messages include blank lines.
    jsonl(&[], &format!("{a}\n\nnope\n")).refused("after one", 65, &["line 3: "]);
}

#[test]
fn ids_are_copied_verbatim() {
    for id in [
        "123456789012345678901234567890",
        "18446744073709551616",
        "-9223372036854775809",
        "1.10",
        "1e400",
        "0.1000000000000000055511151231257827",
        "\"größe 日本\"",
        "\"\\u00e9\"",
        "{\"b\":1,\"a\":12345678901234567890123}",
    ] {
        let stdin = format!("{{\"text\": \"a\", \"id\": {id}}}\n");
        for format in ["jsonl", "json"] {
            let out = jsonl(&["--format", format], &stdin).output(id);
            let out = String::from_utf8(out).expect("UTF-8");
            assert!(out.contains(&format!("{{\"index\":0,\"id\":{id},\"tokens\":")), "{id}: {out}");
        }
    }
    let stdin = "{\"text\": \"a\", \"id\": 123456789012345678901234567890}\n";
    let csv = jsonl(&["--format", "csv"], stdin).output("csv");
    assert!(String::from_utf8_lossy(&csv).contains("\n0,123456789012345678901234567890,3,"));
    let model = fixture("tiny-mlm");
    let (_place, path) = file("a.jsonl", "{\"text\": \"a [MASK]\", \"id\": 1e400}\n");
    let args = ["fill-mask", "--top-k", "1", "--model", arg(&model), "--input", arg(&path)];
    let out = String::from_utf8(run(&mut jinabert(&args), b"").output("fill-mask")).expect("UTF-8");
    assert!(out.starts_with("{\"index\":0,\"id\":1e400,"), "{out}");
}

#[test]
fn other_fields_are_kept() {
    let stdin = "{\"title\": \"Größe\", \"text\": \"a\", \"größe\": 12345678901234567890123, \"x\": {\"y\": [1.0]}}\n{\"text\": \"b\"}\n";
    let kept = "\"title\":\"Größe\",\"größe\":12345678901234567890123,\"x\":{\"y\": [1.0]}";
    for (args, format) in
        [(&[][..], "jsonl"), (&["--late-chunking", "--chunk", "tokens:9"], "json")]
    {
        let args = [&["--keep-fields", "--format", format], args].concat();
        let out = String::from_utf8(jsonl(&args, stdin).output(format)).expect("UTF-8");
        assert!(out.contains(&format!("{{\"index\":0,{kept},")), "{out}");
        assert!(out.contains("{\"index\":1,\""), "{out}");
    }
    let plain = jsonl(&[], "{\"text\": \"a\"}\n{\"text\": \"b\"}\n").output("plain");
    let with = jsonl(&["--keep-fields"], stdin).output("with");
    for (with, plain) in lines(&with).iter().zip(lines(&plain)) {
        assert_eq!(with["embedding"], plain["embedding"]);
    }
    let none = jsonl(&["--keep-fields", "--pooling", "none"], stdin).output("tokens");
    assert_eq!(lines(&none)[0]["title"], "Größe");
    // A list over several lines gives one line.
    let list = "[{\"text\": \"a\", \"x\": {\n  \"y\":\r\n 1\n}}]";
    let found = lines(&of_file("a.json", list, &["--keep-fields"]).output("a list"));
    assert_eq!((found.len(), &found[0]["x"]), (1, &json!({"y": 1})));
    let (_place, path) = file("a.jsonl", "{\"text\": \"a\", \"url\": \"u\", \"id\": 7}\n");
    let model = fixture("tiny-reranker-bpe");
    let args = ["rerank", "q", "--keep-fields", "--model", arg(&model), "--input", arg(&path)];
    let found = lines(&run(&mut jinabert(&args), b"").output("rerank"));
    assert_eq!((&found[0]["url"], &found[0]["id"]), (&json!("u"), &json!(7)));

    jsonl(&[], stdin).refused("without", 65, &["line 1: unknown field `title`"]);
    let own = "{\"text\": \"a\", \"tokens\": 1}";
    jsonl(&["--keep-fields"], own).refused(
        "own",
        65,
        &["line 1: field `tokens` is one of the output's"],
    );
    let twice = "{\"text\": \"a\", \"x\": 1, \"x\": 2}";
    jsonl(&["--keep-fields"], twice).refused("twice", 65, &["line 1: duplicate field `x`"]);
    for format in ["csv", "npy"] {
        let args = ["--keep-fields", "--format", format];
        jsonl(&args, stdin).refused(format, 2, &["--keep-fields is for json and jsonl output"]);
    }
    let says = ["--keep-fields is for jsonl and json input"];
    embed(&natural(), &["--keep-fields"], b"a\n").refused("lines", 2, &says);
    embed(&natural(), &["--keep-fields", "a"], b"").refused("arguments", 2, &says);
}

#[test]
fn bad_lines_are_skipped_counted_and_reported() {
    let good = [
        "{\"text\": \"a\", \"id\": 0}",
        "{\"text\": \"b\", \"id\": 1}",
        "{\"ids\": [2, 28, 3], \"id\": 2}",
    ];
    let long = format!("{{\"text\": \"{}\"}}", "a ".repeat(2000));
    let bad = ["nope", "[\"a\"]", "{\"txt\": 1}", "{\"ids\": [400]}", "{\"ids\": []}", &long];
    let mut stdin = format!("{}\n", good[0]);
    for bad in bad {
        stdin += &format!("{bad}\n\n");
    }
    stdin += &format!("{}\n{}\n", good[1], good[2]);
    let ran = jsonl(&["--skip-bad-lines"], &stdin);
    let said = "skipped 6 of 9 inputs; the first: line 2: expected ident at column 2\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), said));
    let found = lines(&ran.stdout);
    let expected = lines(&jsonl(&[], &good.join("\n")).output("good"));
    assert_eq!(found.len(), 3);
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found["id"], expected["id"]);
        for (a, b) in numbers(found).iter().zip(numbers(expected)) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
    // The index is the position in the input.
    assert_eq!(found.iter().map(|line| &line["index"]).collect::<Vec<_>>(), [0, 7, 8]);

    let ran = embed(&natural(), &["--skip-bad-lines"], b"a\n\xff\nb\n");
    let said = "skipped 1 of 3 inputs; the first: line 2: not UTF-8 at byte 0\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), said));
    let ran = jsonl(&["--skip-bad-lines"], "nope\n");
    assert_eq!((ran.code, ran.stdout.len()), (Some(0), 0), "{}", ran.stderr);
    assert!(ran.stderr.contains("skipped 1 of 1 inputs; the first: line 1: "), "{}", ran.stderr);
    let ran = of_file("a.json", "[\"a\", 7, \"b\"]", &["--skip-bad-lines"]);
    assert!(ran.stderr.contains("skipped 1 of 3 inputs; the first: element 2"), "{}", ran.stderr);
    assert_eq!(lines(&ran.stdout).len(), 2);
    let spans =
        "{\"text\": \"ab cd\", \"spans\": [[0, 9]]}\n{\"text\": \"ab cd\", \"spans\": [[0, 2]]}\n";
    let ran = jsonl(&["--skip-bad-lines", "--late-chunking"], spans);
    assert!(
        ran.stderr.contains("skipped 1 of 2 inputs; the first: line 1: span 0"),
        "{}",
        ran.stderr
    );
    assert_eq!(lines(&ran.stdout).len(), 1);
    let nothing = jsonl(&["--skip-bad-lines"], "{\"text\": \"a\"}\n").output("nothing to skip");
    assert_eq!(lines(&nothing).len(), 1);
}

fn numbers(line: &Value) -> Vec<f64> {
    serde_json::from_value(line["embedding"].clone()).expect("numbers")
}

#[test]
fn other_commands_skip_bad_lines_too() {
    let long = "a ".repeat(2000);
    let content = format!(
        "{{\"text\": \"a [MASK]\"}}\nnope\n{{\"ids\": [2]}}\n{{\"text\": \"{long}\"}}\n{{\"text\": \"b [MASK]\"}}\n"
    );
    let (_place, path) = file("a.jsonl", &content);
    for (command, model) in [
        (&["rerank", "q"][..], "tiny-reranker-bpe"),
        (&["multi-vector"], "tiny-colbert"),
        (&["multi-vector", "--query", "q"], "tiny-colbert"),
        (&["fill-mask", "--top-k", "1"], "tiny-mlm"),
    ] {
        let mut run_with = jinabert(command);
        run_with.args(["--skip-bad-lines", "--input", arg(&path), "--model"]).arg(fixture(model));
        let ran = run(&mut run_with, b"");
        assert_eq!(ran.code, Some(0), "{command:?}: {}", ran.stderr);
        let said = "skipped 3 of 5 inputs; the first: line 2: ";
        assert!(ran.stderr.starts_with(said), "{command:?}: {}", ran.stderr);
        let mut indices: Vec<_> =
            lines(&ran.stdout).iter().map(|line| line["index"].as_u64()).collect();
        indices.sort_unstable();
        assert_eq!(indices, [Some(0), Some(4)], "{command:?}");
    }
}

#[test]
fn a_dash_alone_is_standard_input() {
    let expected = embed(&natural(), &["the cat", "the dog"], b"").output("arguments");
    let stdin = b"the cat\nthe dog\n";
    for args in [&["-"][..], &["--input", "-"], &["--", "-"]] {
        let mut command = jinabert(&["embed", "--model", arg(&natural())]);
        let ran = run(command.args(args), stdin);
        assert_eq!(ran.output("a dash"), expected, "{args:?}");
    }
    let says = ["`-` is standard input"];
    embed(&natural(), &["-", "the dog"], stdin).refused("beside another", 2, &says);
    let model = fixture("tiny-reranker-bpe");
    let rerank = |args: &[&str]| {
        let args = [&["rerank", "--model", arg(&model), "pets"], args].concat();
        run(&mut jinabert(&args), stdin).output("rerank")
    };
    assert_eq!(rerank(&["-"]), rerank(&["the cat", "the dog"]));
}

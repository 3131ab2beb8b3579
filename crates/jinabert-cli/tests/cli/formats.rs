//! Output formats: the same numbers in all four, in the order of the input.

use crate::kit::{arg, embed, fixture, natural};
use serde_json::{Value, json};
use std::fs;

/// Record as read back, with the bits of its vector.
#[derive(Debug, PartialEq)]
struct Row {
    index: u64,
    id: Option<Value>,
    tokens: u64,
    bits: Vec<u32>,
}

impl Row {
    fn values(&self) -> Vec<f32> {
        self.bits.iter().map(|&bits| f32::from_bits(bits)).collect()
    }
}

const TEXTS: &[u8] = b"a\n\nthe cat is blue\n\xe6\x97\xa5\xe6\x9c\xac \xc3\xa9t\xc3\xa9\n a  b\n";

/// Bits of a printed float; checks that no shorter text gives the same value.
fn float(token: &str) -> u32 {
    let value: f32 = token.parse().expect("a number");
    let digits = |text: &str| {
        let mantissa = text.split('e').next().unwrap_or_default();
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        digits.trim_matches('0').to_owned()
    };
    assert_eq!(digits(token), digits(&format!("{value:e}")), "{token}");
    value.to_bits()
}

/// Record from a JSON object; numbers are parsed here, since a JSON parser may round twice.
fn object(line: &str) -> Row {
    let value: Value = serde_json::from_str(line).expect("JSON");
    let list = line.split("\"embedding\":[").nth(1).and_then(|rest| rest.strip_suffix("]}"));
    Row {
        index: value["index"].as_u64().expect("a number"),
        id: value.get("id").cloned(),
        tokens: value["tokens"].as_u64().expect("a number"),
        bits: list.expect("the last field").split(',').map(float).collect(),
    }
}

fn jsonl(bytes: &[u8]) -> Vec<Row> {
    str::from_utf8(bytes).expect("UTF-8").lines().map(object).collect()
}

fn json_array(bytes: &[u8]) -> Vec<Row> {
    let whole: Vec<Value> = serde_json::from_slice(bytes).expect("an array");
    let text = str::from_utf8(bytes).expect("UTF-8").trim();
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).expect("an array");
    let rows: Vec<_> =
        inner.trim().lines().map(|line| object(line.strip_suffix(',').unwrap_or(line))).collect();
    assert_eq!(rows.len(), whole.len());
    rows
}

fn csv_rows(bytes: &[u8]) -> Vec<Row> {
    let mut reader = csv::Reader::from_reader(bytes);
    let header = reader.headers().expect("a header").clone();
    assert_eq!(header.iter().take(5).collect::<Vec<_>>(), ["index", "id", "tokens", "0", "1"]);
    let row = |record: csv::StringRecord| Row {
        index: record[0].parse().expect("a number"),
        id: Some(&record[1]).filter(|id| !id.is_empty()).map(Value::from),
        tokens: record[2].parse().expect("a number"),
        bits: record.iter().skip(3).map(float).collect(),
    };
    reader.records().map(|record| row(record.expect("a record"))).collect()
}

/// Shape and elements of an npy file.
fn npy(bytes: &[u8]) -> (String, Vec<u32>) {
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert!(start.is_multiple_of(64) && bytes[start - 1] == b'\n');
    let header = str::from_utf8(&bytes[10..start]).expect("ASCII");
    assert!(header.contains("'descr': '<f4'") && header.contains("'fortran_order': False"));
    let shape = header.split(['(', ')']).nth(1).expect("a shape").to_owned();
    let (elements, rest) = bytes[start..].as_chunks::<4>();
    assert!(rest.is_empty());
    (shape, elements.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
}

/// Records of the fixture for some lines.
fn rows(args: &[&str], stdin: &[u8]) -> Vec<Row> {
    jsonl(&embed(&natural(), args, stdin).output(&args.join(" ")))
}

#[test]
fn all_formats_have_the_same_numbers() {
    let out = |format| embed(&natural(), &["--format", format], TEXTS).output(format);
    let expected = jsonl(&out("jsonl"));
    assert_eq!(expected.iter().map(|row| row.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(json_array(&out("json")), expected);
    assert_eq!(csv_rows(&out("csv")), expected);
    let all: Vec<_> = expected.iter().flat_map(|row| row.bits.clone()).collect();
    assert_eq!(npy(&out("npy")), ("5, 64".to_owned(), all));
}

/// A file's extension selects the format; the bytes equal those on standard output.
#[test]
fn extensions_select_formats() {
    let place = tempfile::tempdir().expect("a temporary directory");
    for (name, format) in [
        ("a.json", "json"),
        ("a.jsonl", "jsonl"),
        ("a.csv", "csv"),
        ("a.npy", "npy"),
        ("a.JSON", "json"),
        ("a.ndjson", "jsonl"),
        ("a.NPY", "npy"),
        ("a.Csv", "csv"),
        ("a.txt", "jsonl"),
        ("npy", "jsonl"),
    ] {
        let file = place.path().join(name);
        embed(&natural(), &["--output", arg(&file)], TEXTS).output(name);
        let expected = embed(&natural(), &["--format", format], TEXTS).output(format);
        assert_eq!(fs::read(&file).expect("a file"), expected, "{name}");
        let args = ["--output", arg(&file), "--format", "csv"];
        embed(&natural(), &args, TEXTS).output("the format given wins");
        assert_eq!(csv_rows(&fs::read(&file).expect("a file")).len(), 5, "{name}");
    }
}

#[test]
fn ids_are_copied_to_the_output() {
    let ids = [
        json!("doc-7"),
        json!(""),
        json!("a,\"b\"\nc"),
        json!(7),
        json!(u64::MAX),
        json!(-1.5),
        json!(true),
        json!({"k": [1, null]}),
    ];
    let mut input: String =
        ids.iter().map(|id| format!("{}\n", json!({"text": "a", "id": id}))).collect();
    input.push_str("{\"text\": \"a\", \"id\": null}\n{\"id\": \"late\", \"ids\": [2, 28, 3]}\n");
    let expected: Vec<_> = ids.into_iter().map(Some).chain([None, Some(json!("late"))]).collect();
    let out = |format| {
        let args = ["--input-format", "jsonl", "--format", format];
        embed(&natural(), &args, input.as_bytes()).output(format)
    };
    let given = |rows: Vec<Row>| rows.into_iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(given(jsonl(&out("jsonl"))), expected);
    assert_eq!(given(json_array(&out("json"))), expected);
    // In csv every field is text, and null is the empty text.
    let text = |id: Option<Value>| match id? {
        Value::String(id) => Some(json!(id)).filter(|id| id != ""),
        id => Some(json!(id.to_string())),
    };
    assert_eq!(given(csv_rows(&out("csv"))), expected.into_iter().map(text).collect::<Vec<_>>());
}

fn norm(values: &[f32]) -> f32 {
    values.iter().map(|v| f64::from(v * v)).sum::<f64>().sqrt() as f32
}

fn near(a: &[f32], b: &[f32], case: &str) {
    assert_eq!(a.len(), b.len(), "{case}");
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= 1e-5, "{case}: {worst}");
}

#[test]
fn vectors_are_truncated_before_normalisation() {
    let raw = rows(&["--no-normalize"], TEXTS);
    let unit = rows(&[], TEXTS);
    for dims in ["1", "16", "63", "64"] {
        let keep: usize = dims.parse().expect("a number");
        let cut = rows(&["--dimensions", dims], TEXTS);
        let cut_raw = rows(&["--dimensions", dims, "--no-normalize"], TEXTS);
        for (n, raw) in raw.iter().enumerate() {
            let kept = &raw.values()[..keep];
            let scaled: Vec<_> = kept.iter().map(|value| value / norm(kept)).collect();
            near(&cut[n].values(), &scaled, dims);
            near(&cut_raw[n].values(), kept, dims);
            assert!((norm(&cut[n].values()) - 1.0).abs() < 1e-5, "{dims}");
        }
        if keep == 64 {
            assert_eq!(cut, unit);
        }
    }
    assert!(raw.iter().all(|row| (norm(&row.values()) - 1.0).abs() > 0.01), "nothing to scale");
}

/// Expected vectors are stored with the fixture, from an independent float64 implementation.
#[test]
fn vectors_equal_the_fixtures() {
    let cases = fs::read(fixture("tiny-natural/cases.json")).expect("a file");
    let cases: Value = serde_json::from_slice(&cases).expect("JSON");
    let cases: Vec<_> = cases["cases"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|c| c["text"].is_string())
        .collect();
    assert!(cases.len() > 3);
    let input: String =
        cases.iter().map(|case| format!("{}\n", json!({"text": case["text"]}))).collect();
    let rows = rows(&["--input-format", "jsonl"], input.as_bytes());
    for (row, case) in rows.iter().zip(&cases) {
        let expected = case["expect"]["normalized"].clone();
        let expected: Vec<f32> = serde_json::from_value(expected).expect("numbers");
        near(&row.values(), &expected, &case["text"].to_string());
        assert_eq!(row.tokens as usize, case["ids"].as_array().expect("ids").len());
    }
}

/// 300 inputs of 1 to 98 tokens, alternately texts and ids.
fn mixed() -> Vec<(String, u64)> {
    let input = |n: u64| {
        let length = 2 + n * 37 % 97;
        match n % 3 {
            0 => (json!({"text": "a ".repeat(length as usize - 2), "id": n}), length),
            _ => {
                let ids: Vec<u64> = (0..length - 1).map(|i| 5 + (i * n + n) % 395).collect();
                (json!({"ids": ids, "id": n}), length - 1)
            }
        }
    };
    (0..300).map(input).map(|(line, tokens)| (format!("{line}\n"), tokens)).collect()
}

#[test]
fn order_is_kept_and_batches_change_nothing() {
    let input = mixed();
    let run = |lines: Vec<&str>, budget| {
        let args = ["--input-format", "jsonl", "--batch-tokens", budget];
        rows(&args, lines.concat().as_bytes())
    };
    let forward = || input.iter().map(|(line, _)| line.as_str());
    let expected = run(forward().collect(), "100000");
    for (n, (row, (_, tokens))) in expected.iter().zip(&input).enumerate() {
        assert_eq!((row.index, &row.id, row.tokens), (n as u64, &Some(json!(n)), *tokens));
    }
    assert_eq!(expected.len(), 300);
    for budget in ["1", "64", "1000"] {
        for (a, b) in run(forward().collect(), budget).iter().zip(&expected) {
            assert_eq!((a.index, &a.id, a.tokens), (b.index, &b.id, b.tokens), "{budget}");
            near(&a.values(), &b.values(), budget);
        }
    }
    for (a, b) in run(forward().rev().collect(), "64").iter().zip(expected.iter().rev()) {
        assert_eq!((&a.id, a.tokens), (&b.id, b.tokens));
        near(&a.values(), &b.values(), "backwards");
    }
}

//! `--precision`, `--encoding`, and sources of ranges.

use crate::kit::{arg, copy, embed, jinabert, natural, rewrite, run};
use base64::{Engine, prelude::BASE64_STANDARD};
use jinabert::precision::{Precision, Quantizer, Ranges};
use serde_json::Value;
use std::fs;

const TEXTS: &[u8] = b"a\n\nthe cat is blue\n\xe6\x97\xa5\xe6\x9c\xac \xc3\xa9t\xc3\xa9\n a  b\n";

/// Element type, shape and data of an npy file.
fn npy(bytes: &[u8]) -> (String, String, &[u8]) {
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = str::from_utf8(&bytes[10..start]).expect("ASCII");
    let dtype = header.split('\'').nth(3).expect("a type").to_owned();
    let shape = header.split(['(', ')']).nth(1).expect("a shape").to_owned();
    (dtype, shape, &bytes[start..])
}

/// Vectors in float32.
fn vectors(args: &[&str]) -> Vec<Vec<f32>> {
    let out = embed(&natural(), &[args, &["--format", "npy"]].concat(), TEXTS).output("float32");
    let (dtype, shape, data) = npy(&out);
    assert_eq!(dtype, "<f4");
    let cols: usize = shape.strip_prefix("5, ").expect("5 rows").parse().expect("a number");
    let values: Vec<_> = data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    values.chunks(cols).map(<[f32]>::to_vec).collect()
}

fn numbers(embedding: &Value) -> Vec<String> {
    embedding.as_array().expect("a list").iter().map(Value::to_string).collect()
}

/// Every format has the same numbers: those that the library computes from the float32 vectors. 63
/// components do not fill whole bytes.
#[test]
fn formats_agree_in_every_precision() {
    let types = ["<f4", "<f2", "|i1", "|u1", "|i1", "|u1"];
    for (precision, dtype) in Precision::ALL.into_iter().zip(types) {
        let width = precision.width(63);
        let quantizer = Quantizer::new(precision, 63);
        let vectors = vectors(&["--dimensions", "63"]);
        let rows: Vec<_> =
            vectors.iter().map(|row| quantizer.quantize(row).expect("a vector")).collect();
        let bytes: Vec<_> = rows.iter().map(|row| row.to_le_bytes().into_owned()).collect();
        let name = precision.name();
        let out = |args: &[&str]| {
            let args = [&["--dimensions", "63", "--precision", name], args].concat();
            embed(&natural(), &args, TEXTS).output(&args.join(" "))
        };

        let file = out(&["--format", "npy"]);
        assert_eq!(npy(&file), (dtype.to_owned(), format!("5, {width}"), &bytes.concat()[..]));

        let lines = String::from_utf8(out(&["--format", "jsonl"])).expect("UTF-8");
        assert_eq!(lines.lines().count(), 5);
        let array: Vec<Value> = serde_json::from_slice(&out(&["--format", "json"])).expect("JSON");
        for ((line, object), row) in lines.lines().zip(&array).zip(&rows) {
            let line: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(line["embedding"], object["embedding"], "{name}");
            let written = numbers(&line["embedding"]);
            assert_eq!(written.len(), width, "{name}");
            for (written, decimal) in written.iter().zip(row.to_decimals()) {
                let read = |text: &str| text.parse::<f32>().expect("a number");
                assert_eq!(read(written), read(&decimal), "{name}");
                assert!(dtype.contains('f') || !written.contains('.'), "{name}: {written}");
            }
        }

        let table = out(&["--format", "csv"]);
        let mut table = csv::Reader::from_reader(&table[..]);
        let header = table.headers().expect("a header");
        assert_eq!(header.len(), 3 + width, "{name}");
        for (record, row) in table.records().zip(&rows) {
            let record = record.expect("a record");
            assert_eq!(record.iter().skip(3).collect::<Vec<_>>(), row.to_decimals(), "{name}");
        }

        let encoded = out(&["--format", "json", "--encoding", "base64"]);
        let encoded: Vec<Value> = serde_json::from_slice(&encoded).expect("JSON");
        assert_eq!(encoded.len(), 5);
        for (object, bytes) in encoded.iter().zip(&bytes) {
            let text = object["embedding"].as_str().expect("a text");
            assert_eq!(&BASE64_STANDARD.decode(text).expect("base64"), bytes, "{name}");
        }
    }
}

/// Codes do not depend on the batch: no range is computed from it.
#[test]
fn codes_do_not_depend_on_the_batch() {
    for name in ["int8", "uint8", "binary"] {
        let args = ["--precision", name, "--deterministic", "--format", "npy"];
        let all = embed(&natural(), &args, TEXTS).output(name);
        let lines: Vec<_> = TEXTS.split_inclusive(|&byte| byte == b'\n').collect();
        let (_, _, codes) = npy(&all);
        for (line, codes) in lines.iter().zip(codes.chunks(codes.len() / 5)) {
            let alone = embed(&natural(), &args, line).output(name);
            assert_eq!(npy(&alone).2, codes, "{name}");
        }
    }
}

#[test]
fn ranges_come_from_the_caller() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let vectors = vectors(&["--no-normalize"]);
    let codes = |args: &[&str]| {
        let args = [&["--no-normalize", "--format", "npy"], args].concat();
        let out = embed(&natural(), &args, TEXTS).output(&args.join(" "));
        npy(&out).2.to_vec()
    };
    let expected = |precision, ranges: Ranges| {
        let quantizer = Quantizer::with_ranges(precision, ranges);
        let code = |row| quantizer.quantize(row).expect("a vector").to_le_bytes().into_owned();
        vectors.iter().map(|row| code(row)).collect::<Vec<_>>().concat()
    };
    let ranges = Ranges::symmetric(64, 4.5).expect("a range");
    let args = ["--precision", "int8", "--int8-range", "4.5"];
    assert_eq!(codes(&args), expected(Precision::Int8, ranges));

    let file = place.path().join("calibration.npy");
    let write = |args: &[&str]| {
        let args = [&["--no-normalize", "--output", arg(&file)], args].concat();
        embed(&natural(), &args, TEXTS).output(&args.join(" "));
    };
    write(&[]);
    let ranges = Ranges::of(&vectors).expect("ranges");
    for (name, precision) in [("int8", Precision::Int8), ("uint8", Precision::Uint8)] {
        let args = ["--precision", name, "--calibration", arg(&file)];
        assert_eq!(codes(&args), expected(precision, ranges.clone()), "{name}");
    }
    // A file in float64, NumPy's default type, gives the same codes.
    let bytes = fs::read(&file).expect("a file");
    let (header, data) = bytes.split_at(128);
    let header = String::from_utf8_lossy(&header[6..]).replace("<f4", "<f8");
    let data: Vec<u8> = data
        .as_chunks()
        .0
        .iter()
        .flat_map(|&x| f64::from(f32::from_le_bytes(x)).to_le_bytes())
        .collect();
    let double = [&bytes[..6], header.as_bytes(), &data].concat();
    fs::write(&file, double).expect("a file");
    let args = ["--precision", "int8", "--calibration", arg(&file)];
    assert_eq!(codes(&args), expected(Precision::Int8, ranges));
    // A file in float16, too: the extremes round past its range, which gives a warning.
    write(&["--precision", "float16"]);
    let halves: Vec<Vec<f32>> = {
        let half = Quantizer::new(Precision::Float16, 64);
        let halves = vectors.iter().map(|row| half.quantize(row).expect("a vector").to_decimals());
        let read = |text: String| text.parse().expect("a number");
        halves.map(|row| row.into_iter().map(read).collect()).collect()
    };
    let ranges = Ranges::of(halves).expect("ranges");
    let args = ["--no-normalize", "--format", "npy", "--precision", "uint8", "--calibration"];
    let ran = embed(&natural(), &[&args[..], &[arg(&file)]].concat(), TEXTS);
    assert_eq!(npy(&ran.stdout).2, expected(Precision::Uint8, ranges));
    assert!(ran.stderr.contains("more vectors in --calibration"), "{}", ran.stderr);
}

#[test]
fn ranges_that_are_too_narrow_are_reported() {
    let args = ["--precision", "int8", "--int8-range", "0.01", "--format", "npy"];
    let ran = embed(&natural(), &args, TEXTS);
    assert_eq!(ran.code, Some(0));
    let said = "of 320 components are beyond their range and took its end";
    assert!(ran.stderr.contains(said) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
    assert!(npy(&ran.stdout).2.contains(&127));
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("v.npy");
    embed(&natural(), &["--dimensions", "8", "--output", arg(&file)], TEXTS).output("8");
    let file = arg(&file);
    let one = place.path().join("one.npy");
    embed(&natural(), &["a", "--output", arg(&one)], b"").output("one vector");
    let bytes = fs::read(file).expect("a file");
    fs::write(place.path().join("cut.npy"), &bytes[..bytes.len() - 1]).expect("a file");
    let cut = place.path().join("cut.npy");
    let jsonl = place.path().join("v.jsonl");
    fs::write(&jsonl, "{\"embedding\": []}\n").expect("a file");
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["--int8-range", "1"], 2, &["--int8-range", "int8 and uint8", "float32"]),
        (&["--precision", "binary", "--calibration", file], 2, &["--calibration", "binary"]),
        (
            &["--precision", "int8", "--no-normalize"],
            2,
            &["int8", "--no-normalize", "--calibration"],
        ),
        (&["--precision", "int8", "--int8-range", "0"], 2, &["expected a positive range, got 0"]),
        (
            &["--precision", "int8", "--int8-range", "nan"],
            2,
            &["expected a positive range, got NaN"],
        ),
        (&["--encoding", "base64", "--format", "csv"], 2, &["base64", "csv"]),
        (&["--encoding", "base64", "--format", "npy"], 2, &["base64", "npy"]),
        (&["--precision", "int8", "--calibration", file], 2, &[file, "8 components", "64"]),
        (&["--precision", "int8", "--calibration", "no/such.npy"], 66, &["no/such.npy"]),
        (&["--precision", "int8", "--calibration", arg(&jsonl)], 66, &["not an npy file"]),
        (&["--precision", "int8", "--calibration", arg(&one)], 66, &[arg(&one), "component 0"]),
        (
            &["--precision", "uint8", "--dimensions", "8", "--calibration", arg(&cut)],
            66,
            &[arg(&cut), "ends in row 4 of 5"],
        ),
    ];
    for &(args, code, says) in cases {
        let args = [&["a"], args].concat();
        embed(&natural(), &args, b"").refused(&args.join(" "), code, says);
    }
    let mut command = jinabert(&["embed", "a", "--precision", "int4", "--model"]);
    let ran = run(command.arg(natural()), b"");
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("int4") && ran.stderr.contains("ubinary"), "{}", ran.stderr);
}

/// The message names the line and the component; unit vectors never overflow.
#[test]
fn halves_that_overflow_are_refused() {
    let (_place, dir) = copy("tiny-natural");
    rewrite(&dir, |stored| {
        let (start, _) = stored.range("encoder.layer.0.mlp.layernorm.bias");
        stored.data[start + 12..start + 16].copy_from_slice(&70_000f32.to_le_bytes());
    });
    let args = ["--precision", "float16", "--format", "npy"];
    embed(&dir, &args, TEXTS).output("scaled to 1");
    let ran = embed(&dir, &[&args[..], &["--no-normalize"]].concat(), TEXTS);
    ran.refused(
        "overflow",
        65,
        &["line 1: component 3 is 69997.", "over float16's limit of 65504"],
    );
}

//! Texts, token ids and options that are refused, and unusual ones that work.

use crate::kit::{Ran, arg, embed, jinabert, names, natural, run};
use std::{fs, path::Path};

/// Runs `embed` with the fixture on standard input.
fn lines(args: &[&str], stdin: &[u8]) -> Ran {
    embed(&natural(), args, stdin)
}

fn jsonl(args: &[&str], stdin: &[u8]) -> Ran {
    lines(&[&["--input-format", "jsonl"], args].concat(), stdin)
}

/// Checks a refusal, to standard output and to an existing file, which stays unchanged.
fn refuse(name: &str, code: i32, says: &[&str], run: impl Fn(&[&str]) -> Ran) {
    run(&[]).refused(name, code, says);
    let place = tempfile::tempdir().expect("a temporary directory");
    let out = place.path().join("out.jsonl");
    fs::write(&out, "old").expect("a writable directory");
    run(&["--output", arg(&out)]).refused(name, code, says);
    assert_eq!(names(place.path()), ["out.jsonl"], "{name}");
    assert_eq!(fs::read(&out).expect("a file"), b"old", "{name}");
}

#[test]
fn invalid_lines_are_named() {
    let deep = format!("{{\"text\": \"a\", \"id\": {}", "[".repeat(100_000));
    let cases: &[(&str, &[u8], &[&str])] = &[
        ("an id too large", b"{\"ids\": [2, 400, 3]}", &["line 1", "id 400", "400 rows"]),
        ("u32::MAX", b"{\"ids\": [4294967295]}", &["line 1", "id 4294967295"]),
        ("over u32", b"{\"ids\": [4294967296]}", &["line 1", "4294967296"]),
        ("a negative id", b"{\"ids\": [-1]}", &["line 1", "-1"]),
        ("a fraction", b"{\"ids\": [1.5]}", &["line 1", "1.5"]),
        ("a type", b"{\"ids\": [2], \"type_ids\": [2]}", &["line 1", "type id 2", "2 types"]),
        ("no ids", b"{\"text\": \"a\"}\n{\"ids\": []}", &["line 2", "no tokens"]),
        ("lengths", b"{\"ids\": [2, 3], \"type_ids\": [0]}", &["2 ids but 1 type ids"]),
        ("not JSON", b"{\"text\": \"a\"}\nnope\n", &["line 2", "column"]),
        ("half an object", b"{\"text\": \"a\"", &["line 1", "EOF"]),
        ("two objects", b"{\"text\": \"a\"} {}", &["line 1", "trailing"]),
        ("an unknown field", b"{\"txt\": \"a\"}", &["line 1", "unknown field `txt`"]),
        ("a field twice", b"{\"text\": \"a\", \"text\": \"b\"}", &["line 1", "duplicate"]),
        ("text and ids", b"{\"text\": \"a\", \"ids\": [2]}", &["line 1", "\"text\", or \"ids\""]),
        ("text and types", b"{\"text\": \"a\", \"type_ids\": [2]}", &["line 1", "or \"ids\""]),
        ("neither", b"{}", &["line 1", "\"text\", or \"ids\""]),
        ("a text that is none", b"{\"text\": 1}", &["line 1", "invalid type"]),
        ("half a pair", b"{\"text\": \"\\ud800\"}", &["line 1", "column"]),
        ("nested without end", deep.as_bytes(), &["line 1", "recursion limit"]),
        ("not UTF-8", b"{\"text\": \"a\"}\n{\"text\": \"\xff\"}", &["line 2", "UTF-8 at byte 10"]),
    ];
    for &(name, stdin, says) in cases {
        refuse(name, 65, says, |args| jsonl(args, stdin));
    }
    refuse("a text not in UTF-8", 65, &["line 3", "UTF-8 at byte 1"], |args| {
        lines(args, b"a\nb\nc\xc3\n")
    });
}

#[test]
fn long_texts_are_refused_or_cut() {
    let short = ["--max-length", "4"];
    let says = &["line 2", "5 tokens", "limit of 4", "--on-long truncate"];
    refuse("a long text", 65, says, |args| lines(&[&short, args].concat(), b"a\na a a\n"));
    let mixed = b"{\"ids\": [2]}\n{\"text\": \"a a a\"}";
    refuse("after ids", 65, says, |args| jsonl(&[&short, args].concat(), mixed));

    let cut = ["--max-length", "4", "--on-long", "truncate"];
    let ran = lines(&cut, b"a\na a a\na a\na a a a\n");
    let warning = "truncated 2 of 4 texts to 4 tokens; the first is line 2, 5 tokens\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), warning));
    let text = String::from_utf8(ran.stdout).expect("UTF-8");
    let rows: Vec<_> = text.lines().collect();
    let tokens = |row: &str| row.split("\"tokens\":").nth(1).and_then(|rest| rest.chars().next());
    assert_eq!(rows.iter().map(|row| tokens(row)).collect::<Vec<_>>(), [3, 4, 4, 4].map(digit));
    // A truncated text equals its beginning.
    let tail = |row: &str| row.split("\"tokens\"").nth(1).expect("a row").to_owned();
    assert_eq!(tail(rows[1]), tail(rows[2]));
}

fn digit(n: u32) -> Option<char> {
    char::from_digit(n, 10)
}

/// Token ids are used as given: no option truncates them, and no message suggests one.
#[test]
fn long_ids_are_never_cut() {
    for on_long in ["error", "truncate"] {
        let args = ["--max-length", "4", "--on-long", on_long];
        let ran = jsonl(&args, b"{\"ids\": [2, 28, 28, 28, 3]}");
        ran.refused(on_long, 65, &["line 1", "5 tokens", "limit of 4"]);
        assert!(!ran.stderr.contains("--on-long truncate"), "no help: {}", ran.stderr);
    }
}

#[test]
fn options_that_contradict_the_model_are_refused() {
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["--max-length", "2"], 2, &["max length 2", "2 special tokens"]),
        (&["--max-length", "0"], 2, &["max length 0"]),
        (&["--dimensions", "0"], 2, &["`dimensions` 0", "1 to 64"]),
        (&["--dimensions", "65"], 2, &["`dimensions` 65", "1 to 64"]),
        (&["--batch-tokens", "0"], 2, &["batch of 0"]),
        (&["--device", "99"], 69, &["99"]),
        (&["--input", "no/such.txt"], 66, &["cannot read `no/such.txt`"]),
        (&["--input", env!("CARGO_MANIFEST_DIR")], 66, &[env!("CARGO_MANIFEST_DIR"), "directory"]),
    ];
    for &(args, code, says) in cases {
        refuse(&args.join(" "), code, says, |more| lines(&[args, more].concat(), b"a\n"));
    }
    if !cfg!(target_vendor = "apple") {
        let metal = |more: &[&str]| lines(&[&["--device", "metal"], more].concat(), b"a\n");
        refuse("metal", 69, &["no metal adapter", "adapters found"], metal);
    }
}

/// Errors of the argument parser include a line of usage.
#[test]
fn invalid_arguments_are_refused() {
    let cases: &[(&[&str], &str)] = &[
        (&["embed", "a", "--device", "nonsense"], "`jinabert devices`"),
        (&["embed", "a", "--device", "-1"], "-1"),
        (&["embed", "a", "--format", "xml"], "npy"),
        (&["embed", "a", "--dtype", "f64"], "float32"),
        (&["embed", "a", "--dimensions", "-1"], "-1"),
        (&["embed", "a", "--max-length", "18446744073709551616"], "18446744073709551616"),
        (&["embed", "a", "--input", "b"], "cannot be used with"),
        (&["embed", "a", "--threads", "0"], "--threads"),
        (&["embed", "--nonsense"], "--nonsense"),
        (&["similarity", "a"], "2"),
        (&["nonsense"], "nonsense"),
    ];
    for &(args, says) in cases {
        let ran = run(&mut jinabert(args), b"");
        let said = &ran.stderr;
        assert_eq!((ran.code, ran.stdout.as_slice()), (Some(2), &b""[..]), "{args:?}: {said}");
        assert!(said.starts_with("error: ") && said.contains(says), "{args:?}: {said}");
        assert!(!said.contains("panicked"), "{args:?}: {said}");
    }
}

#[test]
fn empty_texts_have_vectors() {
    let empty = lines(&[""], b"").output("an argument");
    assert!(empty.starts_with(b"{\"index\":0,\"tokens\":2,\"embedding\":["));
    for (name, stdin) in [("a line", &b"\n"[..]), ("with a return", b"\r\n")] {
        assert_eq!(lines(&[], stdin).output(name), empty, "{name}");
    }
    assert_eq!(jsonl(&[], b"{\"text\": \"\"}").output("an object"), empty);
    let rows = lines(&[], b"a\n\n\nb").output("between");
    assert_eq!(rows.iter().filter(|&&byte| byte == b'\n').count(), 4);
}

#[test]
fn empty_input_gives_no_rows() {
    let header: String = (0..64).map(|n| format!(",{n}")).collect();
    let expected = [
        ("jsonl", String::new()),
        ("json", "[]".into()),
        ("csv", format!("index,id,tokens{header}\n")),
    ];
    for (format, expected) in expected {
        let out = lines(&["--format", format], b"").output(format);
        let mut text = String::from_utf8(out).expect("UTF-8");
        if format == "json" {
            text.retain(|c| !c.is_whitespace());
        }
        assert_eq!(text, expected, "{format}");
    }
    let npy = lines(&["--format", "npy"], b"").output("npy");
    assert!(npy.len() == 128 && String::from_utf8_lossy(&npy).contains("'shape': (0, 64)"));
}

#[test]
fn all_line_endings_are_accepted() {
    let expected = lines(&["a b", "", "c"], b"").output("arguments");
    for stdin in ["a b\n\nc\n", "a b\n\nc", "a b\r\n\r\nc\r\n", "a b\r\n\nc"] {
        assert_eq!(lines(&[], stdin.as_bytes()).output(stdin), expected, "{stdin:?}");
        let place = tempfile::tempdir().expect("a temporary directory");
        let file = place.path().join("texts.txt");
        fs::write(&file, stdin).expect("a writable directory");
        assert_eq!(lines(&["--input", arg(&file)], b"").output(stdin), expected, "{stdin:?}");
    }
    assert_eq!(lines(&["--input", "-"], b"a b\n\nc\n").output("-"), expected);
}

#[test]
fn jsonl_is_detected_by_its_extension() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let named = place.path().join("a.jsonl");
    let other = place.path().join("a.txt");
    let expected = lines(&["a"], b"").output("the text");
    for file in [&named, &other] {
        fs::write(file, "{\"text\": \"a\"}\r\n").expect("a writable directory");
    }
    let run = |file: &Path, args: &[&str]| {
        lines(&[&["--input", arg(file)], args].concat(), b"").output(arg(file))
    };
    assert_eq!(run(&named, &[]), expected);
    assert_eq!(run(&other, &["--input-format", "jsonl"]), expected);
    assert_eq!(run(&named, &["--input-format", "lines"]), run(&other, &[]));
    assert_ne!(run(&other, &[]), expected);
}

#[test]
fn unusual_texts_are_embedded() {
    let long = "a".repeat(100_000);
    for text in ["\u{0}", "\u{feff}", "\u{fffd}\u{200b}", "日本語 🦀", "-", &long] {
        let out = lines(&[], format!("{text}\n").as_bytes()).output(text);
        assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1, "{text:?}");
    }
}

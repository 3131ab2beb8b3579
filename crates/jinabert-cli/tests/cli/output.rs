//! Outputs that cannot be created, or cannot be completed.

use crate::kit::{arg, embed, end, jinabert, names, natural, run, start};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
};

/// More texts than one window, so that some vectors are written before the rest is read.
const MANY: usize = 4096 + 904;

const FORMATS: [&str; 4] = ["json", "jsonl", "csv", "npy"];

#[test]
fn output_that_cannot_be_created_is_named() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| arg(&place.path().join(name)).to_owned();
    fs::write(path("file"), "old").expect("a writable directory");
    for format in FORMATS {
        for name in ["", "no/such", "file/x"] {
            let out = path(name);
            let case = format!("{format} to `{name}`");
            let ran = embed(&natural(), &["a", "--format", format, "--output", &out], b"");
            ran.refused(&case, 73, &["cannot write", &out]);
        }
    }
    assert_eq!(names(place.path()), ["file"]);
    assert_eq!(fs::read(path("file")).expect("a file"), b"old");
}

/// An error after thousands of good lines leaves the old file.
#[test]
fn failure_midway_leaves_the_old_file() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let mut texts = b"a\n".repeat(MANY);
    texts.extend_from_slice(b"\xff\n");
    for format in FORMATS {
        for old in [None, Some("old")] {
            let out = place.path().join(format!("out.{format}"));
            if let Some(old) = old {
                fs::write(&out, old).expect("a writable directory");
            }
            let ran = embed(&natural(), &["--output", arg(&out)], &texts);
            ran.refused(format, 65, &[&format!("line {}", MANY + 1), "UTF-8"]);
            assert_eq!(fs::read_to_string(&out).ok().as_deref(), old, "{format}");
            assert_eq!(names(place.path()).len(), usize::from(old.is_some()), "{format}");
        }
        fs::remove_file(place.path().join(format!("out.{format}"))).expect("the old file");
    }
}

/// Standard output has complete records for the lines before the error, and nothing after them.
#[test]
fn failure_midway_leaves_whole_lines() {
    let mut texts = b"a\n".repeat(MANY);
    texts.extend_from_slice(b"\xff\n");
    let ran = embed(&natural(), &[], &texts);
    ran.line("midway", 65, &[&format!("line {}", MANY + 1)]);
    let text = String::from_utf8(ran.stdout).expect("UTF-8");
    assert!(text.ends_with("]}\n"));
    for (n, line) in text.lines().enumerate() {
        let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(row["index"], n);
    }
    let npy = embed(&natural(), &["--format", "npy"], &texts);
    npy.refused("an npy is whole or absent", 65, &["UTF-8"]);
}

#[test]
fn a_pipe_closed_after_a_line_ends_the_run() {
    for format in ["json", "jsonl", "csv"] {
        let mut command = jinabert(&["embed", "--format", format, "--model", arg(&natural())]);
        let mut child = start(&mut command, &b"a\n".repeat(2 * MANY));
        let mut line = String::new();
        let mut reader = BufReader::new(child.stdout.take().expect("piped"));
        reader.read_line(&mut line).expect("a line");
        drop(reader);
        assert!(line.ends_with('\n'), "{format}: {line}");
        closed(format, end(child));
    }
}

/// The reader closes the pipe before the first output.
#[test]
fn a_pipe_closed_before_the_output_ends_the_run() {
    let model = arg(&natural()).to_owned();
    for args in [
        &["embed", "a"][..],
        &["embed", "a", "--format", "json"],
        &["embed", "a", "--format", "csv"],
        &["embed", "a", "--format", "npy"],
        &["similarity", "a", "b"],
    ] {
        let mut child = start(jinabert(args).args(["--model", &model]), b"");
        drop(child.stdout.take());
        closed(&args.join(" "), end(child));
    }
}

fn closed(case: &str, (code, stderr): (Option<i32>, String)) {
    assert_eq!(code, Some(74), "{case}: {stderr}");
    let one = stderr.starts_with("jinabert: writing failed: ") && stderr.lines().count() == 1;
    assert!(one && !stderr.contains("panicked"), "{case}: {stderr}");
}

#[test]
fn a_full_device_is_an_error() {
    let full = Path::new("/dev/full");
    if !full.exists() {
        return;
    }
    for format in ["json", "jsonl", "csv"] {
        let args = ["a", "--format", format, "--output", "/dev/full"];
        embed(&natural(), &args, b"").refused(format, 74, &["writing failed"]);
    }
    let npy = ["a", "--format", "npy", "--output", "/dev/full"];
    embed(&natural(), &npy, b"").refused("npy", 73, &["/dev/full", "npy"]);

    for args in [&["embed", "a"][..], &["embed", "a", "--format", "npy"], &["similarity", "a", "b"]]
    {
        let open = || fs::OpenOptions::new().write(true).open(full).expect("a device");
        let mut command = jinabert(args);
        command.arg("--model").arg(natural());
        let spawned = command.stdout(open()).stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let (code, stderr) = end(spawned.expect("a program"));
        assert_eq!(code, Some(74), "{args:?}: {stderr}");
        assert!(stderr.lines().count() == 1 && stderr.contains("writing failed"), "{stderr}");
    }
}

/// npy for standard output is collected in a temporary file.
#[test]
fn an_unusable_temporary_directory_is_named() {
    for format in [&["--format", "npy"][..], &["--format", "npy", "--output", "-"]] {
        let mut command = jinabert(&["embed", "a", "--model", arg(&natural())]);
        command.args(format).env("TMPDIR", "/nonexistent").env("TMP", "/nonexistent");
        let says = ["cannot create a temporary file in `/nonexistent`", "TMP"];
        run(&mut command, b"").refused("no directory", 73, &says);
    }
    let mut command = jinabert(&["embed", "a", "--model", arg(&natural())]);
    run(command.env("TMPDIR", "/nonexistent"), b"").output("jsonl needs none");
}

/// An existing file is replaced; a link stays a link.
#[test]
fn files_are_replaced() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("out.jsonl");
    fs::write(&file, "old and longer ".repeat(1000)).expect("a writable directory");
    let expected = embed(&natural(), &["a"], b"").output("standard output");
    embed(&natural(), &["a", "--output", arg(&file)], b"").output("over a file");
    assert_eq!(fs::read(&file).expect("a file"), expected);
    assert_eq!(names(place.path()), ["out.jsonl"]);
}

#[cfg(unix)]
#[test]
fn standard_streams_are_named_by_their_device_files() {
    let expected = embed(&natural(), &["a"], b"").output("standard output");
    let ran = embed(&natural(), &["--input", "/dev/stdin", "--output", "/dev/stdout"], b"a\n");
    assert_eq!(ran.output("by name"), expected);
}

#[cfg(unix)]
#[test]
fn links_are_followed() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("out.jsonl");
    let link = place.path().join("link.jsonl");
    fs::write(&file, "old").expect("a writable directory");
    std::os::unix::fs::symlink(&file, &link).expect("a link");
    let expected = embed(&natural(), &["a"], b"").output("standard output");
    embed(&natural(), &["a", "--output", arg(&link)], b"").output("through a link");
    assert!(fs::symlink_metadata(&link).expect("a link").is_symlink(), "the link was replaced");
    assert_eq!(fs::read(&file).expect("a file"), expected);
    assert_eq!(names(place.path()), ["link.jsonl", "out.jsonl"]);
}

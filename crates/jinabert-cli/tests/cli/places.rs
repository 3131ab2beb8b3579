//! Locations of models, and output of the other commands.

use crate::kit::{copy_model, embed, fixture, jinabert, natural, run};
use crate::root::root;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

const EXAMPLE: &str = "A blue cat";

/// Directory of the shipped model.
fn shipped() -> PathBuf {
    root().join("models/jinabert-mini-en")
}

/// Installation: the program in `deep/bin`, and an unrelated working directory.
///
/// The program is linked, not copied: a new executable may be busy while other tests fork.
fn install() -> Option<(TempDir, PathBuf, TempDir)> {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    let program =
        place.path().join("deep/bin/jinabert").with_extension(std::env::consts::EXE_EXTENSION);
    fs::create_dir_all(program.parent().expect("bin")).expect("a writable directory");
    fs::hard_link(env!("CARGO_BIN_EXE_jinabert"), &program).ok()?;
    Some((place, program, tempfile::tempdir().expect("a temporary directory")))
}

fn installed(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_remove("JINABERT_MODEL").current_dir(dir);
    command.args(["--quiet", "embed", EXAMPLE, "--device", "cpu"]);
    command
}

#[test]
fn the_default_model_is_found_from_anywhere() {
    let expected = embed(&natural(), &[EXAMPLE], b"").output("by name");
    for model in ["models/jinabert-mini-en", "share/jinabert/models/jinabert-mini-en"] {
        let Some((place, program, elsewhere)) = install() else { return };
        copy_model(&natural(), &place.path().join(model));
        let found = run(&mut installed(&program, elsewhere.path()), b"").output(model);
        assert_eq!(found, expected, "{model}");
    }
}

#[test]
fn the_environment_names_model_and_device() {
    let Some((_place, program, elsewhere)) = install() else { return };
    let expected = embed(&natural(), &[EXAMPLE], b"").output("by name");
    let mut command = installed(&program, elsewhere.path());
    assert_eq!(run(command.env("JINABERT_MODEL", natural()), b"").output("model"), expected);
    let mut command = jinabert(&["embed", "a", "--model"]);
    command.arg(natural()).env("JINABERT_DEVICE", "99");
    run(&mut command, b"").refused("device", 69, &["99"]);
    let mut command = jinabert(&["embed", EXAMPLE, "--model"]);
    command.arg(natural()).env("JINABERT_MODEL", "no/such");
    assert_eq!(run(&mut command, b"").output("the option wins"), expected);
}

#[test]
fn the_shipped_model_works() {
    let out = embed(&shipped(), &[EXAMPLE], b"").output("shipped");
    let row: serde_json::Value = serde_json::from_slice(&out).expect("one line of JSON");
    assert!(row["embedding"].as_array().expect("a vector").len() > 64);
}

/// Standard error has only `device: …`, and nothing with `--quiet`.
#[test]
fn standard_error_has_only_the_device() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jinabert"));
    let ran = run(command.args(["embed", "a", "--device", "cpu", "--model"]).arg(natural()), b"");
    assert_eq!(ran.code, Some(0));
    let one = ran.stderr.starts_with("device: cpu (") && ran.stderr.lines().count() == 1;
    assert!(one, "{}", ran.stderr);
    assert_eq!(embed(&natural(), &["a"], b"").output("quiet"), ran.stdout);
}

#[test]
fn similarity_is_a_symmetric_matrix() {
    let texts = ["A blue cat", "A cat that is blue", "", "two\nlines", &"long ".repeat(50)];
    let mut command = jinabert(&["similarity"]);
    let out = run(command.args(texts).arg("--model").arg(fixture("tiny-geglu-4h")), b"");
    let out = String::from_utf8(out.output("similarity")).expect("UTF-8");
    let cells = |line: &str| -> Vec<String> {
        line.split_whitespace().take(texts.len()).map(str::to_owned).collect()
    };
    let matrix: Vec<_> = out.lines().map(cells).collect();
    assert_eq!(matrix.len(), texts.len(), "{out}");
    for (i, row) in matrix.iter().enumerate() {
        assert_eq!(row[i], "1.000", "{out}");
        for (j, cell) in row.iter().enumerate() {
            let value: f32 = cell.parse().expect("a number");
            assert!(value.abs() <= 1.0 && *cell == matrix[j][i], "{out}");
        }
    }
    assert!(out.lines().next().is_some_and(|line| line.ends_with("   A blue cat")), "{out}");
    assert!(out.lines().all(|line| line.chars().count() < 110), "{out}");
}

#[test]
fn similarity_refuses_as_embed_does() {
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["--max-length", "3"], 65, &["4 tokens", "limit of 3"]),
        (&["--device", "99"], 69, &["99"]),
        (&["--batch-tokens", "0"], 2, &["batch of 0"]),
    ];
    for &(args, code, says) in cases {
        let mut command = jinabert(&["similarity", "a", "a a", "--model"]);
        run(command.arg(natural()).args(args), b"").refused(&args.join(" "), code, says);
    }
}

#[test]
fn help_has_examples() {
    for command in [None, Some("embed"), Some("similarity"), Some("devices"), Some("doctor")] {
        let args: Vec<_> = command.into_iter().chain(["--help"]).collect();
        let help = String::from_utf8(run(&mut jinabert(&args), b"").output("help")).expect("UTF-8");
        assert!(help.contains("Usage: jinabert"), "{command:?}: {help}");
        let example = format!("  jinabert {}", command.unwrap_or("embed"));
        assert!(help.contains("Example") && help.contains(&example), "{command:?}: {help}");
    }
}

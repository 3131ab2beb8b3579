//! Checks that `include/jinabert.h` is cbindgen's output for this package's sources, and that the
//! sources keep the rules that it states.

use super::common::root;
use libtest_mimic::{Failed, Trial};
use std::{env, fs};

/// Environment variable: 1 rewrites the header.
const WRITE: &str = "JINABERT_WRITE_HEADER";

/// Files of the interface, in the header's order.
const FILES: &[&str] =
    &["version", "status", "options", "open", "devices", "embed", "rerank", "chunks", "handle"];

fn source(file: &str) -> String {
    fs::read_to_string(root().join(format!("crates/jinabert-capi/src/{file}.rs")))
        .expect("a source")
}

/// Generates the header.
fn generate() -> Result<String, Failed> {
    let config = cbindgen::Config::from_file(root().join("crates/jinabert-capi/cbindgen.toml"))?;
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in FILES {
        builder = builder.with_src(root().join(format!("crates/jinabert-capi/src/{file}.rs")));
    }
    let mut header = Vec::new();
    builder.generate()?.write(&mut header);
    Ok(String::from_utf8(header)?)
}

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("header/equals_cbindgens_output", equals_cbindgens_output),
        Trial::test("header/names_every_function", names_every_function),
        Trial::test("header/documents_every_function", documents_every_function),
        Trial::test("sources/every_function_is_guarded", every_function_is_guarded),
    ]
}

fn equals_cbindgens_output() -> Result<(), Failed> {
    let path = root().join("include/jinabert.h");
    let made = generate()?;
    if env::var_os(WRITE).is_some_and(|value| value == "1") {
        fs::create_dir_all(root().join("include"))?;
        fs::write(&path, &made)?;
    }
    let there = fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    if made == there {
        return Ok(());
    }
    let pairs = made.lines().zip(there.lines().chain(std::iter::repeat("")));
    let (line, (made, there)) =
        (1..).zip(pairs).find(|(_, (a, b))| a != b).unwrap_or((0, ("", "more lines")));
    Err(format!(
        "include/jinabert.h is not what the sources say; to renew it:\n    {WRITE}=1 cargo test \
         -p jinabert-capi --test capi header/equals_cbindgens_output\nline {line}:\n- {there}\n+ {made}"
    )
    .into())
}

/// Names of the exported functions, in order, each with its text up to the next.
fn entries() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in FILES {
        let text = source(file);
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for part in code.split("#[unsafe(no_mangle)]").skip(1) {
            let name = part.split("extern \"C\" fn ").nth(1).expect("a function");
            let name = name.split('(').next().expect("a name").to_owned();
            let end = part.find("\n}\n").expect("the end of a function");
            found.push((name, part[..end].to_owned()));
        }
    }
    found
}

/// Functions that the header declares.
pub fn functions() -> Vec<String> {
    entries().into_iter().map(|(name, _)| name).collect()
}

fn names_every_function() -> Result<(), Failed> {
    let header = generate()?;
    let names = functions();
    assert!(names.len() > 10, "{names:?}");
    let missing: Vec<_> = names.iter().filter(|n| !header.contains(&format!("{n}("))).collect();
    assert!(missing.is_empty(), "{missing:?} are not in the header");
    Ok(())
}

/// Every function documents the threads that may call it; those with an error document it.
fn documents_every_function() -> Result<(), Failed> {
    let header = generate()?;
    for name in functions() {
        let at = header.find(&format!("{name}(")).expect("declared");
        let before = header[..at].trim_end_matches(|c| c != '\n').trim_end();
        let lines = before.lines().rev().take_while(|line| line.trim_start().starts_with("//"));
        let lines: Vec<_> = lines.collect();
        let has = |word: &str| lines.iter().any(|line| line.contains(word));
        assert!(has("Threads: "), "`{name}` does not say which threads may call it: {lines:?}");
        let rest = header[at..].split(';').next().unwrap_or_default();
        let fails = rest.contains("jinabert_error");
        assert!(!fails || has("Errors: "), "`{name}` does not say what its errors are");
    }
    Ok(())
}

/// No panic may unwind into C: the last expression of every function runs in a guard.
fn every_function_is_guarded() -> Result<(), Failed> {
    for (name, text) in entries() {
        let last = text.lines().last().unwrap_or_default().trim();
        let guards = ["guard_value(", "unsafe { guard(", "unsafe { guard_anywhere("];
        let guarded = guards.iter().any(|guard| last.starts_with(guard));
        assert!(guarded, "`{name}` ends with `{last}`, not with a guard");
    }
    Ok(())
}

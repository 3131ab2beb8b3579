//! The shader files as text: all are used, keep to the subset, and have their headers.

use super::{Check, assert_refused, ensure, programs, report, stem};
use jinabert::gpu;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Maximum characters in a line of a shader.
const MAX_WIDTH: usize = 120;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Paths of all `.wgsl` files below `shaders/`.
fn shader_files() -> Vec<String> {
    let mut files = Vec::new();
    let mut dirs = vec![root().join("shaders")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a readable directory") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "wgsl") {
                let below = path.strip_prefix(root().join("shaders")).expect("below shaders/");
                let parts: Vec<_> = below.iter().filter_map(|part| part.to_str()).collect();
                files.push(parts.join("/"));
            }
        }
    }
    files.sort();
    files
}

/// Checks that a shader uses only core WGSL and one bind group, and that it fits on a page.
fn check_subset(text: &str) -> Check {
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.split("//").next().unwrap_or_default();
        for keyword in ["enable ", "override "] {
            ensure(!code.contains(keyword), || format!("line {number}: `{keyword}`"))?;
        }
        for group in code.split("@group").skip(1) {
            ensure(group.replace(' ', "").starts_with("(0)"), || {
                format!("line {number}: an `@group` other than 0")
            })?;
        }
        let width = line.chars().count();
        ensure(width <= MAX_WIDTH, || {
            format!("line {number}: {width} characters, over {MAX_WIDTH}")
        })?;
    }
    Ok(())
}

/// Checks that the header begins with the file's name.
fn check_begin(name: &str, text: &str) -> Check {
    ensure(text.starts_with(&format!("// {name}: ")), || {
        format!("the file does not begin with `// {name}: `")
    })
}

/// Checks that the header names the kernel and its host file, reference, check and benchmark.
fn check_header(name: &str, text: &str, exists: impl Fn(&str) -> bool) -> Check {
    check_begin(name, text)?;
    let header: String =
        text.lines().map_while(|line| line.strip_prefix("//")).collect::<Vec<_>>().join("\n");
    for (label, path) in [
        ("Host", format!("src/kernels/{name}.rs")),
        ("Reference", format!("src/reference/{name}.rs")),
        ("Check", format!("src/kernel_check/{name}.rs")),
        ("Bench", "benches/kernels.rs".to_owned()),
    ] {
        let label_at = format!(" {label} ");
        let mut named = header.split(&label_at).skip(1).map(|rest| rest.split_whitespace().next());
        ensure(named.any(|found| found == Some(path.as_str())), || {
            format!("the header does not name {label} `{path}`")
        })?;
        ensure(exists(&path), || format!("{label} `{path}` does not exist"))?;
    }
    ensure(header.contains(&format!("benches/kernels.rs \"{name}\"")), || {
        format!("the header does not name the bench id \"{name}\"")
    })
}

#[test]
fn every_file_belongs_to_a_program() {
    let mut used = BTreeSet::new();
    for (_, program) in programs() {
        let out = gpu::assemble(&program).expect("an assembled program");
        let lines = 1..=out.text.lines().count();
        used.extend(lines.filter_map(|line| out.origin(line)).map(|(file, _)| file.to_owned()));
    }
    let files: BTreeSet<_> = shader_files().into_iter().collect();
    let unused: Vec<_> = files.difference(&used).cloned().collect();
    assert!(unused.is_empty(), "no program uses {unused:?}");
}

#[test]
fn every_file_keeps_to_the_subset_and_has_its_header() {
    let mut offenders = Vec::new();
    for file in shader_files() {
        let path: PathBuf = root().join("shaders").join(&file);
        let text = fs::read_to_string(path).expect("a readable shader");
        let header = match file.split_once('/') {
            Some(("lib", _)) => Ok(()),
            Some(("roof", _)) => check_begin(stem(&file), &text), // no kernel: no reference
            _ => check_header(stem(&file), &text, |path| root().join(path).exists()),
        };
        for error in [check_subset(&text), header].into_iter().filter_map(Result::err) {
            offenders.push(format!("shaders/{file}: {error}"));
        }
    }
    report(&offenders);
}

#[test]
fn broken_files_are_refused() {
    assert_refused(check_subset("fn k() {}\nenable f16;\n"), "line 2: `enable `");
    assert_refused(check_subset("override WG: u32;\n"), "line 1: `override `");
    assert_refused(check_subset("@group(1) @binding(0) var<uniform> p: u32;\n"), "@group");
    assert_refused(check_subset(&"x".repeat(121)), "line 1: 121 characters");
    assert_eq!(check_subset("// enable nothing, @group(1)\n@group( 0 ) @binding(0)\n"), Ok(()));

    let header = "// k: what it does.\n\
                  // Host   src/kernels/k.rs       Reference  src/reference/k.rs\n\
                  // Check  src/kernel_check/k.rs  Bench      benches/kernels.rs \"k\"\n\nfn k() {}\n";
    assert_eq!(check_header("k", header, |_| true), Ok(()));
    assert_refused(check_header("j", header, |_| true), "`// j: `");
    let unnamed = header.replace("src/reference/k.rs", "src/reference/j.rs");
    assert_refused(check_header("k", &unnamed, |_| true), "Reference `src/reference/k.rs`");
    let check_missing = |path: &str| !path.starts_with("src/kernel_check/");
    let refusal = "`src/kernel_check/k.rs` does not exist";
    assert_refused(check_header("k", header, check_missing), refusal);
    let below = header.replace("// Check", "\n// Check"); // no longer in the header
    assert_refused(check_header("k", &below, |_| true), "Check `src/kernel_check/k.rs`");
}

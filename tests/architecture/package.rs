//! Contents of the package of `cargo package`: all files that a build needs, and few others.

use std::{fs, path::Path, process::Command};

/// Maximum bytes of all files together, and of one: the largest is the lock file.
const TOTAL: u64 = 3_000_000;
const FILE: u64 = 150_000;

/// Directories of a package, without the root.
const PLACES: &[&str] = &["benches/", "docs/", "examples/", "shaders/", "src/", "tests/"];

/// Subdirectories that are usable only in a clone of the repository.
const LEFT_OUT: &[&str] =
    &["benches/record/", "tests/browser/", "tests/clients/", "tests/fixtures/"];

/// Files that cargo generates.
const GENERATED: &[&str] = &[".cargo_vcs_info.json", "Cargo.toml.orig"];

#[test]
fn the_package_is_small_and_complete() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cargo = std::env::var_os("CARGO").expect("cargo runs the tests");
    let list = Command::new(cargo)
        .args(["package", "-p", "jinabert", "--list", "--allow-dirty", "--offline", "--quiet"])
        .current_dir(root)
        .output()
        .expect("cargo");
    let stderr = String::from_utf8_lossy(&list.stderr);
    assert!(list.status.success(), "{stderr}");
    let list = String::from_utf8(list.stdout).expect("UTF-8");
    let files: Vec<_> = list.lines().map(|line| line.replace('\\', "/")).collect();

    let mut total = 0;
    for file in files.iter().filter(|file| !GENERATED.contains(&file.as_str())) {
        let bytes = fs::metadata(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}")).len();
        assert!(bytes <= FILE, "{file}: {bytes} bytes, over {FILE}");
        let within = |places: &[&str]| places.iter().any(|place| file.starts_with(place));
        let known = !file.contains('/') || within(PLACES);
        assert!(known && !within(LEFT_OUT), "{file}: who needs it?");
        total += bytes;
    }
    assert!(total <= TOTAL, "{total} bytes, over {TOTAL}");
    assert!(total > 1_000_000, "{total} bytes, which cannot be all");

    // Inputs of the compiler.
    let has = |file: &str| files.iter().any(|found| found == file);
    let sources = ["src", "shaders"].iter().flat_map(|dir| super::sources(dir));
    let lacking: Vec<_> = sources.map(|(path, _)| path).filter(|path| !has(path)).collect();
    assert!(lacking.is_empty(), "not in the package: {lacking:?}");
    for file in ["Cargo.lock", "README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        assert!(has(file), "{file} is not in the package");
    }
}

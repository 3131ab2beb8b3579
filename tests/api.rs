//! The library's public API must equal `docs/api.txt`, so that each change of it is visible.
//!
//! The list is generated from rustdoc's JSON, which stable compilers write on request; its format
//! depends on the compiler's version, so that other compilers skip this test.

#[path = "common/cargo.rs"]
mod cargo;

use libtest_mimic::{Arguments, Failed, Trial};
use std::{env, fs, path::Path, process::Command};

/// Environment variable: 1 rewrites the list.
const WRITE: &str = "JINABERT_WRITE_API";

/// Compiler whose JSON this version of the `public-api` crate reads.
const RUSTC: &str = "rustc 1.95.";

/// Makes a stable rustdoc write JSON; set for rustdoc alone, since it would cause a full rebuild.
const RUSTDOC: &str = "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo::remove_test_variables(&mut command);
    command
}

/// Public items, one a line: without the feature `internals`, derived implementations, and
/// implementations that all types have.
fn list() -> Result<String, Failed> {
    let place = tempfile::tempdir()?;
    let rustdoc = place.path().join("rustdoc");
    fs::write(&rustdoc, RUSTDOC)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&rustdoc, fs::Permissions::from_mode(0o755))?;
    }
    let output = cargo()
        .args(["rustdoc", "-p", "jinabert", "--lib", "--features", "hub,faults", "--locked"])
        .args(["--", "-Zunstable-options", "--output-format=json", "--cap-lints=allow"])
        .env("RUSTDOC", &rustdoc)
        .current_dir(root())
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let json = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("doc").join("jinabert.json");
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()?;
    Ok(api.items().map(|item| format!("{item}\n")).collect())
}

fn is_listed() -> Result<(), Failed> {
    let path = root().join("docs/api.txt");
    let made = list()?;
    if env::var_os(WRITE).is_some_and(|value| value == "1") {
        fs::write(&path, &made)?;
    }
    let there = fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    let lacks = |a: &str, b: &str, sign: &str| -> String {
        let b: std::collections::HashSet<_> = b.lines().collect();
        a.lines().filter(|line| !b.contains(line)).map(|line| format!("{sign} {line}\n")).collect()
    };
    if made == there {
        return Ok(());
    }
    let gone = lacks(&there, &made, "-");
    let new = lacks(&made, &there, "+");
    Err(format!(
        "the public API is not what docs/api.txt lists; if it is meant to change, renew the list and \
         say in CHANGELOG.md what callers have to do:\n    {WRITE}=1 cargo test --test api\n{gone}{new}"
    )
    .into())
}

fn main() {
    let version = Command::new("rustc").arg("--version").output();
    let version = version.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned());
    let version = version.unwrap_or_else(|error| format!("no rustc: {error}"));
    let trial = if version.starts_with(RUSTC) && cfg!(unix) {
        Trial::test("public API", is_listed)
    } else {
        Trial::test(format!("public API: {version}, not {RUSTC}"), || Ok(()))
            .with_ignored_flag(true)
    };
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit();
}

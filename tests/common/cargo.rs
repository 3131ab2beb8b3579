//! Cargo commands within tests.

use std::{env, process::Command};

/// Removes the variables that cargo sets for a test.  Build scripts read them: with them, crates
/// are compiled again, by this command and by the next one.
pub fn remove_test_variables(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
}

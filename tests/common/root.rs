//! Root of the repository, for the tests of every package.

use std::path::Path;

/// Directory with `models`, `shaders` and `tests/fixtures`.
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.ancestors().find(|dir| dir.join("tests/fixtures").is_dir());
    root.expect("a package of the repository")
}

//! The `jinabert` command; everything is in [`jinabert::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    jinabert::cli::main()
}

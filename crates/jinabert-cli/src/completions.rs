//! `jinabert completions`

use crate::{atomic_file::AtomicFile, error::CliError};
use clap::Command;
use clap_complete::Shell;
use std::path::Path;

/// `jinabert completions`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert completions bash > ~/.local/share/bash-completion/completions/jinabert
  jinabert completions zsh > \"${fpath[1]}/_jinabert\"
  jinabert completions fish > ~/.config/fish/completions/jinabert.fish
  jinabert completions powershell >> $PROFILE")]
pub struct Completions {
    /// Shell for which to print the script.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints the script for the program's commands.
pub fn run(args: &Completions, mut program: Command) -> Result<(), CliError> {
    // The generator panics if a write fails; writing to memory does not.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "jinabert", &mut script);
    let script = String::from_utf8(script).expect("made of text");
    AtomicFile::open(Path::new("-"))?.write(&script)
}

//! `jinabert man`: manual pages, generated from the command-line arguments.

use crate::{
    atomic_file::{AtomicFile, write_file},
    error::CliError,
};
use clap::{Command, builder::Resettable};
use clap_mangen::roff::{Roff, roman};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// `jinabert man`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert man serve | man -l -
  jinabert man --dir /usr/local/share/man/man1

Pages are named by convention: jinabert.1, jinabert-embed.1, jinabert-bench-compare.1, …")]
pub struct Man {
    /// Command whose page is printed, such as serve or bench compare [default: the page of the
    /// program].
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    pub command: Vec<String>,
    /// Write all pages to this directory instead, one for the program and one for each command.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Prints or writes pages of the program's commands.
pub fn run(args: &Man, command: Command) -> Result<(), CliError> {
    let program = program(command);
    if let Some(dir) = &args.dir {
        fs::create_dir_all(dir).map_err(|source| CliError::Create { path: dir.clone(), source })?;
        return write_all(&program, dir);
    }
    let mut selected = &program;
    for name in &args.command {
        selected = selected.find_subcommand(name).ok_or_else(|| {
            CliError::Usage(format!(
                "expected a command of --help, got `{}`",
                args.command.join(" ")
            ))
        })?;
    }
    AtomicFile::open(Path::new("-"))?.write(&page(selected))
}

/// The program with all its commands, including their common options.
pub fn program(command: Command) -> Command {
    let mut program = command.disable_help_subcommand(true);
    program.build();
    program
}

/// Writes the page of a command and of its subcommands.
fn write_all(command: &Command, dir: &Path) -> Result<(), CliError> {
    let path = dir.join(format!("{}.1", full_name(command)));
    write_file(&path, &[page(command).as_bytes()])?;
    command.get_subcommands().try_for_each(|below| write_all(below, dir))
}

/// Name of a command with those above it.
pub fn full_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// Manual page in roff, the input of `man`.
pub fn page(command: &Command) -> String {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone().after_help(Resettable::Reset))
        .date("\"\"") // roff drops an empty argument, and the next ones would move up
        .source(concat!("jinabert ", env!("CARGO_PKG_VERSION")))
        .manual("JinaBERT embeddings")
        .render(&mut page)
        .expect("memory takes it");
    let mut end = Roff::new();
    notes(&mut end, &help);
    end.control("SH", ["SEE ALSO"]).text([roman(see_also(command))]);
    page.extend(end.render().bytes());
    String::from_utf8(page).expect("made of text")
}

/// Renders the end of `--help`: a heading with indented lines becomes a section with the lines as
/// they are, the rest becomes text.
fn notes(roff: &mut Roff, help: &str) {
    let mut in_notes = false;
    for paragraph in help.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        let (first, rest) = paragraph.split_once('\n').unwrap_or((paragraph, ""));
        let heading = first.strip_suffix(':').filter(|_| rest.starts_with(' '));
        match heading {
            Some(heading) => roff.control("SH", [&*heading.to_uppercase()]).control("nf", []),
            None if in_notes => roff.control("PP", []),
            None => roff.control("SH", ["NOTES"]),
        };
        in_notes = heading.is_none();
        for line in if in_notes { paragraph } else { rest }.lines() {
            roff.text([roman(line)]);
        }
        if !in_notes {
            roff.control("fi", []);
        }
    }
}

/// References to the pages of all commands, or to that of the program.
fn see_also(command: &Command) -> String {
    if full_name(command) != "jinabert" {
        return "jinabert(1)".to_owned();
    }
    let pages = command.get_subcommands().map(|below| format!("{}(1)", full_name(below)));
    pages.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_help_become_sections() {
        let mut roff = Roff::new();
        notes(&mut roff, "Examples:\n  a -b\n  'c\n\nOne\n.two\n\nThree:\nfour");
        let text = roff.to_roff();
        let expected = ".SH EXAMPLES\n.nf\n  a \\-b\n  'c\n.fi\n\
                        .SH NOTES\nOne\n\\&.two\n.PP\nThree:\nfour\n";
        assert_eq!(text, expected);
    }
}

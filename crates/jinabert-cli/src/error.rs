//! Errors of the commands, and their exit codes.

use jinabert::Error;
use std::{fmt, io, path::PathBuf};

/// Environment variable for the directory of temporary files.
const TMPDIR: &str = if cfg!(windows) { "TMP" } else { "TMPDIR" };

/// Position of an input, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputPosition {
    /// A line of a file or pipe, from 1.
    Line(u64),
    /// An element of a JSON list, from 1.
    Element(u64),
    /// An argument, from 1.
    Text(u64),
}

impl fmt::Display for InputPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(n) => write!(f, "line {n}"),
            Self::Element(n) => write!(f, "element {n}"),
            Self::Text(n) => write!(f, "text {n}"),
        }
    }
}

/// Error that ended a command.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Error of the engine.
    #[error(transparent)]
    Engine(#[from] Error),
    /// Options that contradict each other.
    #[error("{0}")]
    Usage(String),
    /// Input that cannot be embedded.
    #[error("{place}: {what}")]
    Item {
        /// Position of the input.
        place: InputPosition,
        /// Error message.
        what: String,
    },
    /// File with invalid text.
    #[error("`{}`: {what}", path.display())]
    Text {
        /// Path of the file.
        path: PathBuf,
        /// Error message.
        what: String,
    },
    /// File with an invalid line.
    #[error("{}:{line}: {what}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Error message.
        what: String,
    },
    /// Input that could not be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Input {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// Output that could not be created.
    #[error("cannot write `{}`: {source}", path.display())]
    Create {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// Temporary file for an npy on standard output that could not be created.
    #[error(
        "cannot create a temporary file in `{}`: {source}; npy for standard output is collected \
         there, and {TMPDIR} names another directory",
        dir.display()
    )]
    Spool {
        /// Directory of temporary files.
        dir: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// Output that could not be written completely.
    #[error("writing failed: {0}")]
    Write(#[from] io::Error),
    /// Error of the server.
    #[cfg(feature = "server")]
    #[error("{0}")]
    Serve(jinabert_server::ServerError),
    /// Devices with wrong results.
    #[error("{0} of {1} checks failed")]
    Doctor(usize, usize),
}

impl CliError {
    /// True if the error may be about an option's value, and not about an input or a result.
    pub fn is_of_options(&self) -> bool {
        match self {
            Self::Engine(error) => matches!(
                error,
                Error::Read { .. }
                    | Error::Model(_)
                    | Error::Option(_)
                    | Error::NoGpu { .. }
                    | Error::Hub(_)
                    | Error::Network(_)
                    | Error::Cache { .. }
            ),
            #[cfg(feature = "server")]
            Self::Serve(_) => true,
            Self::Usage(_) => true,
            _ => false,
        }
    }

    /// Exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Engine(error) => error.exit_code(),
            #[cfg(feature = "server")]
            Self::Serve(_) => 69,
            Self::Doctor(..) => 1,
            Self::Usage(_) => 2,
            Self::Item { .. } | Self::Text { .. } | Self::File { .. } => 65,
            Self::Input { .. } => 66,
            Self::Create { .. } | Self::Spool { .. } => 73,
            Self::Write(_) => 74,
        }
    }
}

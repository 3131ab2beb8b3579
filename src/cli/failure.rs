use super::input::Place;
use crate::Error;
use std::{io, path::PathBuf};

/// Why a command ended.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The engine refused or failed.
    #[error(transparent)]
    Engine(#[from] Error),
    /// The options make no sense together.
    #[error("{0}")]
    Usage(String),
    /// One of the inputs cannot be embedded.
    #[error("{place}: {what}")]
    Item {
        /// Which one.
        place: Place,
        /// What is wrong with it.
        what: String,
    },
    /// A file's text is not what it should be.
    #[error("`{}`: {what}", path.display())]
    Text {
        /// Its name.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A line of a file is not what it should be.
    #[error("{}:{line}: {what}", path.display())]
    File {
        /// Its name.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// Input could not be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Input {
        /// Its name.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The output could not be created.
    #[error("cannot write `{}`: {source}", path.display())]
    Create {
        /// Its name.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The output could not be written to its end.
    #[error("writing failed: {0}")]
    Write(#[from] io::Error),
    /// Serving could not begin.
    #[cfg(feature = "server")]
    #[error("{0}")]
    Serve(crate::server::Failure),
    /// A device does not compute what it should.
    #[error("{0} of {1} checks failed")]
    Doctor(usize, usize),
}

impl Failure {
    /// The process exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Engine(error) => error.exit_code(),
            #[cfg(feature = "server")]
            Self::Serve(_) => 69,
            Self::Doctor(..) => 1,
            Self::Usage(_) => 2,
            Self::Item { .. } | Self::Text { .. } | Self::File { .. } => 65,
            Self::Input { .. } => 66,
            Self::Create { .. } => 73,
            Self::Write(_) => 74,
        }
    }
}

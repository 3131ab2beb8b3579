//! The one error type, and the table that every door maps it with.

use std::{io, path::PathBuf};

/// What can go wrong, from the caller's point of view.
///
/// Messages name the thing, the limit and the value; [`Error::exit_code`] gives the process exit
/// code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is missing or unreadable.  Check the path.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The model files are damaged, contradict each other, or are not JinaBERT.
    #[error("bad model: {0}")]
    Model(String),
    /// The caller's options contradict the model or each other.
    #[error("{0}")]
    Option(String),
    /// One of the caller's inputs cannot be embedded.
    #[error("input {index}: {what}")]
    Input {
        /// Position in the caller's list, from 0.
        index: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A text or token list is longer than the limit, and truncation was not asked for.
    #[error("input {index}: {tokens} tokens, over the limit of {limit}")]
    TooLong {
        /// Position in the caller's list, from 0.
        index: usize,
        /// Its length in tokens, special ones included.
        tokens: usize,
        /// The limit in tokens.
        limit: usize,
    },
    /// No adapter meets the requirements; `needs` says which one failed.
    #[error("no suitable GPU: {needs}")]
    NoGpu {
        /// The requirement that failed and what was found.
        needs: String,
    },
    /// The device was lost, gave no answer, or did not do what it was told; trying again did not
    /// help.
    #[error("device failure: {0}")]
    Gpu(String),
    /// The device has no room for what is asked, not even for one text at a time.
    #[error("out of memory: {0}")]
    Memory(String),
    /// What was computed is not a number.
    #[error("device failure: {0}")]
    NotFinite(String),
    /// Whoever watched the call ended it.
    #[error("cancelled after {done} of {total}")]
    Cancelled {
        /// Texts, sequences or bytes of a file that were done.
        done: usize,
        /// Those that were asked for.
        total: usize,
    },
    /// The hub has no such model, does not give it to this caller, or is not to be asked.
    #[error("{0}")]
    Hub(String),
    /// The hub cannot be reached, or answers what is of no use.  Try again later.
    #[error("{0}")]
    Network(String),
    /// The cache of the hub's models cannot be written.  Choose another, or make room.
    #[error("cannot write `{}`: {source}{}", path.display(), still_to_come(*.missing))]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
        /// Bytes that are still to be written, where room is what lacks.
        missing: Option<u64>,
    },
}

/// What a full disk means for a download.
fn still_to_come(missing: Option<u64>) -> String {
    let what = "bytes are still to come; what is there is kept, and the next pull goes on from it";
    missing.map_or_else(String::new, |bytes| format!("; {bytes} {what}"))
}

impl Error {
    /// The same of another position: what the caller knows input `index` as.
    pub fn moved(self, place: impl FnOnce(usize) -> usize) -> Self {
        match self {
            Self::Input { index, what } => Self::Input { index: place(index), what },
            Self::TooLong { index, tokens, limit } => {
                Self::TooLong { index: place(index), tokens, limit }
            }
            other => other,
        }
    }

    /// Whether the device is to blame, not what it was asked.
    pub fn is_of_device(&self) -> bool {
        matches!(self, Self::Gpu(_) | Self::Memory(_) | Self::NotFinite(_))
    }

    /// The process exit code: 2 bad options; after `sysexits.h`, 65 bad data, 66 missing or bad
    /// model, 69 no device or no hub, 73 nowhere to keep a model, 75 cancelled.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Option(_) => 2,
            Self::Input { .. } | Self::TooLong { .. } => 65,
            Self::Read { .. } | Self::Model(_) | Self::Hub(_) => 66,
            Self::NoGpu { .. } | Self::Gpu(_) | Self::Network(_) => 69,
            Self::Memory(_) | Self::NotFinite(_) => 69,
            Self::Cache { .. } => 73,
            Self::Cancelled { .. } => 75,
        }
    }
}

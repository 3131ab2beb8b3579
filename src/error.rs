//! The error type, and its table of exit codes for all front ends.

use std::{io, path::PathBuf};

/// Errors, classified from the caller's point of view.
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
        /// Error of the operating system.
        source: io::Error,
    },
    /// The model files are damaged, contradict each other, or are of another architecture.
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
        /// Description of the problem.
        what: String,
    },
    /// A text or token list is longer than the limit, and truncation is off.
    #[error("input {index}: {tokens} tokens, over the limit of {limit}")]
    TooLong {
        /// Position in the caller's list, from 0.
        index: usize,
        /// Its length in tokens, special tokens included; for texts of more than a megabyte, a
        /// lower bound.
        tokens: usize,
        /// The limit in tokens.
        limit: usize,
    },
    /// A query for reranking leaves no room for a document, and truncation is off.
    #[error("the query has {tokens} tokens, over the limit of {limit}")]
    QueryTooLong {
        /// Its length in tokens, with the special tokens of a pair.
        tokens: usize,
        /// Limit in tokens, for query and document together.
        limit: usize,
    },
    /// A query for reranking cannot be read.
    #[error("the query: {what}")]
    Query {
        /// Description of the problem.
        what: String,
    },
    /// No adapter meets the requirements.
    #[error("no suitable GPU: {needs}")]
    NoGpu {
        /// The unmet requirement, and the value found.
        needs: String,
    },
    /// The device was lost, hung, or skipped work, and the retries failed.
    #[error("device failure: {0}")]
    Gpu(String),
    /// The device's compiler refuses a kernel and all simpler variants of it.  Another device or
    /// driver version may work.
    #[error("device failure: the driver's compiler refuses kernel `{kernel}`: {message}")]
    Compile {
        /// The kernel's name, as in `shaders/`.
        kernel: &'static str,
        /// The compiler's message, with its location.
        message: String,
    },
    /// The device is out of memory even for one text at a time.
    #[error("out of memory: {0}")]
    Memory(String),
    /// A result is not finite.
    #[error("device failure: {0}")]
    NotFinite(String),
    /// The call was cancelled by its progress callback.
    #[error("cancelled after {done} of {total}")]
    Cancelled {
        /// Finished texts, sequences or bytes of a file.
        done: usize,
        /// Number of all of them.
        total: usize,
    },
    /// The hub has no such model, denies access to it, or is disabled.
    #[error("{0}")]
    Hub(String),
    /// The hub is unreachable, or its answer is unusable.  Try again later.
    #[error("{0}")]
    Network(String),
    /// The cache of the hub's models is not writable.  Choose another, or free disk space.
    #[error("cannot write `{}`: {source}{}", path.display(), missing_bytes(*.missing))]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
        /// Bytes still to be written, if the disk is full.
        missing: Option<u64>,
    },
}

/// Message for a full disk during a download.
fn missing_bytes(missing: Option<u64>) -> String {
    let what = "bytes are missing; the part that is there is kept, and the next pull resumes it";
    missing.map_or_else(String::new, |bytes| format!("; {bytes} {what}"))
}

impl Error {
    /// Replaces the index of an input by the caller's own.
    pub fn moved(self, place: impl FnOnce(usize) -> usize) -> Self {
        match self {
            Self::Input { index, what } => Self::Input { index: place(index), what },
            Self::TooLong { index, tokens, limit } => {
                Self::TooLong { index: place(index), tokens, limit }
            }
            other => other,
        }
    }

    /// The same error, of the query instead of an input.
    pub(crate) fn of_query(self) -> Self {
        match self {
            Self::Input { what, .. } => Self::Query { what },
            Self::TooLong { tokens, limit, .. } => Self::QueryTooLong { tokens, limit },
            other => other,
        }
    }

    /// True if the device is at fault, not its input.
    pub fn is_of_device(&self) -> bool {
        matches!(self, Self::Gpu(_) | Self::Compile { .. } | Self::Memory(_) | Self::NotFinite(_))
    }

    /// Process exit code: 2 bad options; after `sysexits.h`, 65 bad data, 66 missing or bad model,
    /// 69 no device or no hub, 73 cache not writable, 75 cancelled.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Option(_) => 2,
            Self::Input { .. } | Self::TooLong { .. } => 65,
            Self::Query { .. } | Self::QueryTooLong { .. } => 65,
            Self::Read { .. } | Self::Model(_) | Self::Hub(_) => 66,
            Self::NoGpu { .. } | Self::Gpu(_) | Self::Compile { .. } | Self::Network(_) => 69,
            Self::Memory(_) | Self::NotFinite(_) => 69,
            Self::Cache { .. } => 73,
            Self::Cancelled { .. } => 75,
        }
    }
}

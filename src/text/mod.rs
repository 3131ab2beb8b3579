//! Tokenisation of texts.

mod chunk;
mod long;
mod offsets;
mod pairs;
mod piece_model;
#[cfg(test)]
mod tests;
mod tokenizer;
mod tokens;
mod unigram;

pub use chunk::{Chunk, Chunked, Chunking, Unit};
#[cfg(not(feature = "internals"))]
pub(crate) use internals::*;
#[cfg(feature = "internals")]
pub use internals::*;
pub use tokens::{Piece, Tokenized};

/// Items for the other packages of this repository.
mod internals {
    pub use super::{
        tokenizer::Tokenizer,
        tokens::{Cut, Parts, each},
    };
}

//! Tokenisation of texts.

mod chunk;
mod long;
mod offsets;
#[cfg(test)]
mod tests;
mod tokenizer;
mod tokens;

pub use chunk::{Chunk, Chunked, Chunking, Unit};
pub use tokenizer::Tokenizer;
pub use tokens::{Cut, Parts, Piece, Tokenized, each};

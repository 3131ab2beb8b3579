//! From text to tokens.

mod chunk;
mod tokenizer;

pub use chunk::{Chunk, Chunked, Chunking};
pub use tokenizer::{Cut, Parts, Piece, Tokenized, Tokenizer, each};

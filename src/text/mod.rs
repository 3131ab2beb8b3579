//! From text to tokens.

mod tokenizer;

pub use tokenizer::{Tokenized, Tokenizer};

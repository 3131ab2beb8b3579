//! `jinabert rerank`, `multi-vector` and `fill-mask`

mod args;
pub mod fill_mask;
mod kept;
pub mod multi_vector;
mod ranked;
pub mod rerank;
mod texts;

pub use args::{FillMask, MultiVector, Rerank};

//! CPU twins: one function per kernel, same word, same argument order, plain loops.
//!
//! A twin is the definition that its shader and the CPU engine are tested against, so it is written
//! to be read, never to be fast.  Sums are taken in `f64`: a definition should add no rounding of
//! its own.

mod attention;
mod embed;
mod gather;
mod geglu;
mod key_norm;
mod layer_norm;
mod linear;
mod linear_geglu;
mod pool;

pub use attention::{Heads, Sequence, attention};
pub use embed::{Part, embed};
pub use gather::gather;
pub use geglu::{Activation, geglu};
pub use key_norm::key_norm;
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use linear_geglu::linear_geglu;
pub use pool::pool;

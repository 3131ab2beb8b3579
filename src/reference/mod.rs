//! CPU references: one function per kernel, same name, same argument order, plain loops.
//!
//! Each is the definition for the tests of its shader and of the CPU engine, so it is written to be
//! readable, not fast.  Sums are in `f64`: a definition should add no rounding of its own.

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
pub use geglu::geglu;
pub use key_norm::key_norm;
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use linear_geglu::linear_geglu;
pub use pool::pool;

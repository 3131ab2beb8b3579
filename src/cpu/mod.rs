//! The CPU device: runs a [`Recording`](crate::recording::Recording) with the twins of
//! [`reference`](crate::reference), or with blocked products on all cores.

mod attention;
mod engine;
mod gemm;

pub use engine::Engine;

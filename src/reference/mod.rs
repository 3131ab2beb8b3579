//! CPU references: one function per kernel, same name, same argument order, plain loops.
//!
//! Each is the definition for the tests of its shader and of the CPU engine, so it is written to be
//! readable, not fast.  Sums are in `f64`: a definition should add no rounding of its own.
//! [`run`] applies the function of a command's kernel to tensors in host memory.

mod attention;
mod command;
mod embed;
mod gather;
mod geglu;
mod key_norm;
mod layer_norm;
mod linear;
mod linear_geglu;
mod lora;
mod pool;
mod rope;
mod tensors;

use crate::recording::{Command, KernelId};
pub use attention::{Biases, Heads, Sequence, attention, store_context};
pub use command::{activation, elements, has_residual, is_set, rank};
pub use embed::{Part, embed};
pub use gather::gather;
pub use geglu::geglu;
pub use key_norm::key_norm;
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use linear_geglu::linear_geglu;
pub use lora::lora;
pub use pool::pool;
pub use rope::rope;
pub use tensors::Tensors;

/// Runs a command.
pub fn run(command: &Command, tensors: &mut Tensors) {
    match command.program.kernel {
        KernelId::Embed => embed::run(command, tensors),
        KernelId::Linear => linear::run(command, tensors),
        KernelId::LinearGeglu => linear_geglu::run(command, tensors),
        KernelId::Lora => lora::run(command, tensors),
        KernelId::Rope => rope::run(command, tensors),
        KernelId::KeyNorm => key_norm::run(command, tensors),
        KernelId::Attention => attention::run(command, tensors),
        KernelId::LayerNorm => layer_norm::run(command, tensors),
        KernelId::Pool => pool::run(command, tensors),
        KernelId::Gather => gather::run(command, tensors),
        kernel @ (KernelId::MultiplyAdd | KernelId::Copy) => {
            unreachable!("{kernel} measures GPUs only")
        }
    }
}

//! Properties of a command, for implementations on the CPU.

use crate::{
    activation::Activation,
    recording::{Command, Const},
};
use std::ops::Range;

/// Activation of a product.
pub fn activation(command: &Command) -> Activation {
    let name = command.program.import("activation");
    name.and_then(Activation::from_import).expect("a product imports its activation")
}

/// True if the kernel adds a residual.
pub fn has_residual(command: &Command) -> bool {
    command.program.constant("RESIDUAL") == Const::Bool(true)
}

/// Rank of a low-rank product.
pub fn rank(command: &Command) -> usize {
    match command.program.constant("R") {
        Const::U32(rank) => rank as usize,
        other => panic!("a rank is an integer, not {other:?}"),
    }
}

/// Element ranges of some rows, in matrices of the given widths.
pub fn elements<const N: usize>(rows: Range<u32>, widths: [u32; N]) -> [Range<usize>; N] {
    let [start, end] = [rows.start, rows.end].map(|row| row as usize);
    widths.map(|width| start * width as usize..end * width as usize)
}

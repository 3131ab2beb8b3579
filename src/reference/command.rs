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
    is_set(command, "RESIDUAL")
}

/// Constant of the kernel that is an integer.
pub fn integer(command: &Command, name: &str) -> usize {
    match command.program.constant(name) {
        Const::U32(value) => value as usize,
        other => panic!("`{name}` is an integer, not {other:?}"),
    }
}

/// Rank of a low-rank product.
pub fn rank(command: &Command) -> usize {
    integer(command, "R")
}

/// True if a constant of the kernel is set.
pub fn is_set(command: &Command, name: &str) -> bool {
    command.program.constant(name) == Const::Bool(true)
}

/// Element ranges of some rows, in matrices of the given widths.
pub fn elements<const N: usize>(rows: Range<u32>, widths: [u32; N]) -> [Range<usize>; N] {
    let [start, end] = [rows.start, rows.end].map(|row| row as usize);
    widths.map(|width| start * width as usize..end * width as usize)
}

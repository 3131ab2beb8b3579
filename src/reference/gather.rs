use super::Tensors;
use crate::{kernels::gather::Args, recording::Command};

/// `y_n = x_rows[n]`; the definition that `shaders/gather.wgsl` must match.
///
/// x: \[T, D\]; rows: \[n\]; y: \[n, D\].
pub fn gather(x: &[f32], rows: &[u32], y: &mut [f32]) {
    let Some(d) = y.len().checked_div(rows.len()) else { return };
    for (y, &row) in y.chunks_exact_mut(d).zip(rows) {
        y.copy_from_slice(&x[row as usize * d..][..d]);
    }
}

/// Runs a command of this kernel.
pub(super) fn run(command: &Command, tensors: &mut Tensors) {
    let args = Args::from(command);
    tensors.store(args.y, |all, y| gather(all.f32(args.x), all.u32(args.rows), y));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let mut y = [0.0; 6];
        gather(&[1.0, 2.0, 3.0, 4.0], &[1, 0, 1], &mut y);
        assert_eq!(y, [3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
        gather(&[1.0], &[], &mut []);
    }
}

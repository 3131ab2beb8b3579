use super::Tensors;
use crate::{kernels::rope::Args, recording::Command};

/// Rotates the pairs (j, j + E/2) of every head by the angle of the token's position; the
/// definition that `shaders/rope.wgsl` must match.
///
/// x, y: \[T, D\], D = H·E; table: \[P, E\], the cosines of a position and then its sines;
/// positions: \[T\].
pub fn rope(x: &[f32], table: &[f32], positions: &[u32], [d, e]: [usize; 2], y: &mut [f32]) {
    let half = e / 2;
    for (&position, (x, y)) in positions.iter().zip(x.chunks_exact(d).zip(y.chunks_exact_mut(d))) {
        let (cos, sin) = table[position as usize * e..][..e].split_at(half);
        for (x, y) in x.chunks_exact(e).zip(y.chunks_exact_mut(e)) {
            for j in 0..half {
                let [a, b] = [x[j], x[j + half]].map(f64::from);
                let [cos, sin] = [cos[j], sin[j]].map(f64::from);
                y[j] = (a * cos - b * sin) as f32;
                y[j + half] = (b * cos + a * sin) as f32;
            }
        }
    }
}

/// Runs a command of this kernel.
pub(super) fn run(command: &Command, tensors: &mut Tensors) {
    let args = Args::from(command);
    tensors.store(args.y, |all, y| {
        let sizes = [args.y, args.table].map(|tensor| tensor.shape2()[1] as usize);
        rope(&all.dense(args.x), all.f32(args.table), all.u32(args.positions), sizes, y);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // two tokens, two heads of width 4; position 1 turns by 90° and by 180°
        let table = [1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0];
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let mut y = [0.0; 16];
        rope(&[x, x].concat(), &table, &[1, 0], [8, 4], &mut y);
        assert_eq!(y[..8], [-3.0, -2.0, 1.0, -4.0, -7.0, -6.0, 5.0, -8.0]);
        assert_eq!(y[8..], x);
    }
}

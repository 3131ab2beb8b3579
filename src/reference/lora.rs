use super::{Tensors, command};
use crate::{kernels::lora::Args, recording::Command};

/// `y = B_kᵀ·(A_k·x)`, plus `r` if there is one, with the adapter `k` of each token; the definition
/// that `shaders/lora.wgsl` must match.
///
/// x: \[T, K\]; a: \[n·R, K\]; b: \[n·R, N\]; adapters: \[T\]; r, y: \[T, N\].
pub fn lora(
    x: &[f32],
    [a, b]: [&[f32]; 2],
    adapters: &[u32],
    r: Option<&[f32]>,
    [k, n, rank]: [usize; 3],
    y: &mut [f32],
) {
    for (t, (x, y)) in x.chunks_exact(k).zip(y.chunks_exact_mut(n)).enumerate() {
        let first = adapters[t] as usize * rank;
        let rows = a[first * k..].chunks_exact(k).take(rank);
        let dot = |row: &[f32]| -> f64 {
            row.iter().zip(x).map(|(&a, &x)| f64::from(a) * f64::from(x)).sum()
        };
        let z: Vec<f64> = rows.map(dot).collect();
        for (c, y) in y.iter_mut().enumerate() {
            let column = b[first * n + c..].iter().step_by(n);
            let sum: f64 = z.iter().zip(column).map(|(z, &b)| z * f64::from(b)).sum();
            *y = (sum + r.map_or(0.0, |r| f64::from(r[t * n + c]))) as f32;
        }
    }
}

/// Runs a command of this kernel.
pub(super) fn run(command: &Command, tensors: &mut Tensors) {
    let args = Args::from(command);
    let rank = command::rank(command);
    tensors.store(args.y, |all, y| {
        let [k, n] = [args.x, args.y].map(|tensor| tensor.shape2()[1] as usize);
        let factors = [args.a, args.b].map(|tensor| all.f32(tensor));
        let r = command::has_residual(command).then(|| all.f32(args.r));
        lora(all.f32(args.x), factors, all.u32(args.adapters), r, [k, n, rank], y);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // three tokens of width 2, two adapters of rank 2
        let a = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0];
        let b = [1.0, 2.0, 3.0, 0.0, 0.0, 10.0, 2.0, 1.0, 0.0, 5.0, 5.0, 5.0];
        let x = [1.0, 2.0, 1.0, 2.0, 0.0, 1.0];
        let mut y = [0.0; 9];
        lora(&x, [&a, &b], &[0, 1, 0], None, [2, 3, 2], &mut y);
        assert_eq!(y, [1.0, 2.0, 23.0, 6.0, 3.0, 0.0, 0.0, 0.0, 10.0]);
        lora(&x, [&a, &b], &[0, 1, 0], Some(&[1.0; 9]), [2, 3, 2], &mut y);
        assert_eq!(y, [2.0, 3.0, 24.0, 7.0, 4.0, 1.0, 1.0, 1.0, 11.0]);
    }
}

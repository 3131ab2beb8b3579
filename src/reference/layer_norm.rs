use super::{Tensors, command};
use crate::{
    kernels::layer_norm::{Args, Params},
    recording::Command,
};

/// `y = LN(x + r)`, or `LN(x)` without a residual; the definition that `shaders/layer_norm.wgsl`
/// must match.
///
/// x, r, y: \[T, D\]; gamma, beta: \[D\].  The variance is biased, as in `torch.nn.LayerNorm`.
/// `rms`: RMSNorm, in which the mean is left in.
pub fn layer_norm(
    x: &[f32],
    r: Option<&[f32]>,
    gamma: &[f32],
    beta: &[f32],
    (eps, rms): (f32, bool),
    y: &mut [f32],
) {
    let d = gamma.len();
    for t in 0..x.len() / d {
        let row = t * d..(t + 1) * d;
        let z: Vec<f64> =
            row.clone().map(|i| f64::from(x[i]) + r.map_or(0.0, |r| f64::from(r[i]))).collect();
        let mean = if rms { 0.0 } else { z.iter().sum::<f64>() / d as f64 };
        let variance = z.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / d as f64;
        let scale = 1.0 / (variance + f64::from(eps)).sqrt();
        for i in 0..d {
            y[row.start + i] =
                ((z[i] - mean) * scale * f64::from(gamma[i]) + f64::from(beta[i])) as f32;
        }
    }
}

/// Runs a command of this kernel.
pub(super) fn run(command: &Command, tensors: &mut Tensors) {
    let args = Args::from(command);
    let params: Params = command.params();
    tensors.store(args.y, |all, y| {
        let x = all.f32(args.x);
        let r = command::has_residual(command).then(|| all.f32(args.r));
        let norm = (params.eps, command::is_set(command, "RMS"));
        layer_norm(x, r, all.f32(args.gamma), all.f32(args.beta), norm, y);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // mean 2, variance 1: (1 - 2)/1 and (3 - 2)/1
        let mut y = [0.0; 2];
        layer_norm(&[0.0, 1.0], Some(&[1.0, 2.0]), &[2.0, 3.0], &[0.5, -1.0], (0.0, false), &mut y);
        assert_eq!(y, [-1.5, 2.0]);
    }

    #[test]
    fn the_root_mean_square_by_hand() {
        // √((1 + 49)/2) = 5
        let mut y = [0.0; 2];
        layer_norm(&[1.0, 7.0], None, &[5.0, 10.0], &[0.0, 1.0], (0.0, true), &mut y);
        assert_eq!(y, [1.0, 15.0]);
    }

    #[test]
    fn a_constant_row_is_beta() {
        let mut y = [0.0; 4];
        layer_norm(&[7.0; 4], None, &[3.0; 4], &[1.0, 2.0, 3.0, 4.0], (1e-12, false), &mut y);
        assert_eq!(y, [1.0, 2.0, 3.0, 4.0]);
    }
}

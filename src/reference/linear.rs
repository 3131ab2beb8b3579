use super::{Tensors, command};
use crate::{
    activation::Activation,
    kernels::linear::{Args, Params},
    recording::Command,
};

/// `y = activation(x·Wᵀ + bias)`, or `activation(x·Wᵀ + bias + r)` if there is a residual; the
/// definition that `shaders/linear.wgsl` must match.
///
/// x: \[T, K\]; w: \[N, K\] as PyTorch stores it; bias: \[N\]; r, y: \[T, N\].
pub fn linear(
    x: &[f32],
    w: &[f32],
    bias: &[f32],
    activation: Activation,
    r: Option<&[f32]>,
    y: &mut [f32],
) {
    let n = bias.len();
    let k = w.len() / n;
    for (t, (x, y)) in x.chunks_exact(k).zip(y.chunks_exact_mut(n)).enumerate() {
        for (c, ((w, bias), y)) in w.chunks_exact(k).zip(bias).zip(y).enumerate() {
            let sum: f64 = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
            let r = r.map_or(0.0, |r| f64::from(r[t * n + c]));
            *y = activation.of(sum + f64::from(*bias) + r) as f32;
        }
    }
}

/// Runs a command of this kernel.
pub(super) fn run(command: &Command, tensors: &mut Tensors) {
    let args = Args::from(command);
    let params: Params = command.params();
    let [xs, ys] = command::elements(params.first..params.rows, [params.inner, params.outer]);
    tensors.store(args.y, |all, y| {
        let x = &all.f32(args.x)[xs];
        let w = all.f32(args.w);
        let bias = all.f32(args.bias);
        let r = command::has_residual(command).then(|| &all.f32(args.r)[ys.clone()]);
        linear(x, w, bias, command::activation(command), r, &mut y[ys.clone()]);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let mut y = [0.0; 4];
        let x = [1.0, 2.0, 3.0, 4.0];
        let w = [5.0, 6.0, 7.0, 8.0];
        linear(&x, &w, &[0.5, -1.0], Activation::Identity, None, &mut y);
        assert_eq!(y, [17.5, 22.0, 39.5, 52.0]);
        linear(&x, &w, &[0.5, -25.0], Activation::Relu, Some(&[-30.0, 3.0, 1.0, 1.0]), &mut y);
        assert_eq!(y, [0.0, 1.0, 40.5, 29.0]);
        let r = [1.0, 2.0, 3.0, 4.0];
        linear(&x, &w, &[0.5, -1.0], Activation::Identity, Some(&r), &mut y);
        assert_eq!(y, [18.5, 24.0, 42.5, 56.0]);
    }
}

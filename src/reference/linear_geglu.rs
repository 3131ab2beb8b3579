use super::{Tensors, command, geglu, linear};
use crate::{
    activation::Activation,
    kernels::linear_geglu::{Args, Params},
    recording::Command,
};

/// `h = activation(x·W_gᵀ) ⊙ (x·W_uᵀ)`, the halves of W in either order; the definition that
/// `shaders/linear_geglu.wgsl` must match.  It is [`linear`] without bias, then [`geglu`].
///
/// x: \[T, K\]; w: \[2F, K\]; h: \[T, F\].
pub fn linear_geglu(
    x: &[f32],
    w: &[f32],
    activation: Activation,
    gate_first: bool,
    h: &mut [f32],
    f: usize,
) {
    let rows = h.len() / f;
    let mut gate_up = vec![0.0; rows * 2 * f];
    linear(x, w, &vec![0.0; 2 * f], Activation::Identity, None, &mut gate_up);
    geglu(&gate_up, activation, gate_first, h, f);
}

/// Runs a command of this kernel.
pub(super) fn run(command: &Command, tensors: &mut Tensors) {
    let args = Args::from(command);
    let params: Params = command.params();
    let f = params.outer / 2;
    let [xs, hs] = command::elements(params.first..params.rows, [params.inner, f]);
    tensors.store(args.h, |all, h| {
        let x = &all.f32(args.x)[xs];
        let w = all.f32(args.w);
        let gate_first = params.gate_first == 1;
        let activation = command::activation(command);
        linear_geglu(x, w, activation, gate_first, &mut h[hs], f as usize);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // K = 1, F = 2: gate (1, -1)·x, up (10, 20)·x
        let w = [1.0, -1.0, 10.0, 20.0];
        let mut h = [0.0; 4];
        linear_geglu(&[2.0, -3.0], &w, Activation::Relu, true, &mut h, 2);
        assert_eq!(h, [40.0, 0.0, 0.0, -180.0]);
        linear_geglu(&[2.0, -3.0], &w, Activation::Relu, false, &mut h, 2);
        assert_eq!(h, [40.0, -80.0, 0.0, 0.0]);
    }
}

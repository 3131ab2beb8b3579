use super::Tensors;
use crate::{
    kernels::pool::{Args, Params},
    recording::Command,
};

/// Mean over each span of tokens, truncated to the leading `dims`, optionally divided by its L2
/// norm; the definition that `shaders/pool.wgsl` must match.
///
/// x: \[T, D\]; spans: \[n\], first token and end, exclusive; y: \[n, dims\].
pub fn pool(x: &[f32], spans: &[[u32; 2]], d: usize, dims: usize, normalize: bool, y: &mut [f32]) {
    for (&[start, end], y) in spans.iter().zip(y.chunks_exact_mut(dims)) {
        let tokens = start as usize..end as usize;
        let count = tokens.len() as f64;
        let mean = |i: usize| tokens.clone().map(|t| f64::from(x[t * d + i])).sum::<f64>() / count;
        let e: Vec<f64> = (0..dims).map(mean).collect();
        let norm = e.iter().map(|e| e * e).sum::<f64>().sqrt();
        let scale = if normalize { 1.0 / norm.max(1e-12) } else { 1.0 };
        for (y, e) in y.iter_mut().zip(e) {
            *y = (e * scale) as f32;
        }
    }
}

/// Runs a command of this kernel.
pub(super) fn run(command: &Command, tensors: &mut Tensors) {
    let args = Args::from(command);
    let params: Params = command.params();
    let [_, d] = args.x.shape2();
    tensors.store(args.y, |all, y| {
        let x = all.f32(args.x);
        let (spans, _) = all.u32(args.spans).as_chunks();
        pool(x, spans, d as usize, params.dims as usize, params.normalize == 1, y);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let x = [1.0, 2.0, 9.0, 5.0, 6.0, 9.0, -8.0, 0.0, 9.0];
        let mut y = [0.0; 4];
        pool(&x, &[[0, 2], [2, 3]], 3, 2, false, &mut y);
        assert_eq!(y, [3.0, 4.0, -8.0, 0.0]);
        pool(&x, &[[0, 2], [2, 3]], 3, 2, true, &mut y);
        assert_eq!(y, [0.6, 0.8, -1.0, 0.0]);
    }

    #[test]
    fn the_zero_vector_stays_zero() {
        let mut y = [9.0; 2];
        pool(&[0.0; 4], &[[0, 2]], 2, 2, true, &mut y);
        assert_eq!(y, [0.0; 2]);
    }
}

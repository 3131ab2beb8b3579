use super::{Tensors, attention::tiles};
use crate::{kernels::key_norm::Args, recording::Command};

/// Maximum Euclidean norm of the keys of each tile and head; the definition that
/// `shaders/key_norm.wgsl` must match.
///
/// k: \[T, D\], D = H·E; norms: \[n, H\] for n tiles of consecutive tokens, each given by its
/// range.
pub fn key_norm(k: &[f32], d: usize, tiles: &[std::ops::Range<usize>], norms: &mut [f32]) {
    let heads = norms.len().checked_div(tiles.len()).unwrap_or(1);
    let e = d / heads;
    for (range, norms) in tiles.iter().zip(norms.chunks_exact_mut(heads)) {
        for (h, norm) in norms.iter_mut().enumerate() {
            let keys = range.clone().map(|j| &k[j * d + h * e..][..e]);
            let squares = keys.map(|k| k.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>());
            *norm = squares.fold(0.0, f64::max).sqrt() as f32;
        }
    }
}

/// Runs a command of this kernel.
pub(super) fn run(command: &Command, tensors: &mut Tensors) {
    let args = Args::from(command);
    tensors.store(args.norms, |all, norms| {
        let [_, d] = args.k.shape2();
        let tiles = tiles(all.u32(args.tiles), |[_, _, _, keys]| keys);
        key_norm(&all.dense(args.k), d as usize, &tiles, norms);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // two heads of width 2, tiles of one and two tokens
        let k = [3.0, 4.0, 0.0, 1.0, 1.0, 0.0, 6.0, 8.0, 0.0, 2.0, 0.0, 0.0];
        let mut norms = [0.0; 4];
        key_norm(&k, 4, &[0..1, 1..3], &mut norms);
        assert_eq!(norms, [5.0, 1.0, 2.0, 10.0]);
    }
}

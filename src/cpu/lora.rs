use super::simd::{self, Simd, WithSimd};
use rayon::prelude::*;

/// Rows in one unit of work.
const ROWS: usize = 16;

/// [`reference::lora`](crate::reference::lora) on all cores, in f32.
pub fn lora(
    x: &[f32],
    [a, b]: [&[f32]; 2],
    adapters: &[u32],
    r: Option<&[f32]>,
    [k, n, rank]: [usize; 3],
    y: &mut [f32],
) {
    let rows = y.par_chunks_exact_mut(n).zip(x.par_chunks_exact(k)).zip(adapters).enumerate();
    rows.with_min_len(ROWS).for_each(|(t, ((y, x), &adapter))| {
        match r {
            Some(r) => y.copy_from_slice(&r[t * n..][..n]),
            None => y.fill(0.0),
        }
        let [a, b] = [(a, k), (b, n)].map(|(factor, width)| {
            let part = width * rank;
            &factor[adapter as usize * part..][..part]
        });
        simd::widest(Row { x, a, b, y });
    });
}

/// `y = y + B·(A·x)` for one token.
struct Row<'a> {
    x: &'a [f32],
    /// \[R, K\]
    a: &'a [f32],
    /// \[R, N\]
    b: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, a, b, y } = self;
        // The rank is a multiple of four.
        let factors = a.chunks_exact(4 * x.len()).zip(b.chunks_exact(4 * y.len()));
        for (a, b) in factors {
            let z = dots(simd, x, a).map(|z| simd.splat_f32s(z));
            let width = y.len();
            let lanes = S::F32_LANES;
            for (n, y) in y.chunks_mut(lanes).enumerate() {
                let mut sum = simd.partial_load_f32s(y);
                for (j, &z) in z.iter().enumerate() {
                    let b = &b[j * width + n * lanes..][..y.len()];
                    sum = simd.mul_add_e_f32s(z, simd.partial_load_f32s(b), sum);
                }
                simd.partial_store_f32s(y, sum);
            }
        }
    }
}

/// Products of x with four rows.
#[inline(always)]
fn dots<S: Simd>(simd: S, x: &[f32], a: &[f32]) -> [f32; 4] {
    let width = x.len();
    let lanes = S::F32_LANES;
    let mut sums = [simd.splat_f32s(0.0); 4];
    for (n, x) in x.chunks(lanes).enumerate() {
        let value = simd.partial_load_f32s(x);
        for (j, sum) in sums.iter_mut().enumerate() {
            let a = &a[j * width + n * lanes..][..x.len()];
            *sum = simd.mul_add_e_f32s(simd.partial_load_f32s(a), value, *sum);
        }
    }
    sums.map(|sum| simd.reduce_sum_f32s(sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;

    #[test]
    fn equals_the_reference() {
        let wave = |n: usize, phase: f32| -> Vec<f32> {
            (0..n).map(|n| (n as f32 * 0.7 + phase).sin()).collect()
        };
        for (t, k, n, rank) in [(1, 4, 4, 4), (37, 20, 12, 8), (5, 68, 100, 4)] {
            let [x, r] = [wave(t * k, 0.0), wave(t * n, 1.0)];
            let [a, b] = [wave(3 * rank * k, 2.0), wave(3 * rank * n, 3.0)];
            let adapters: Vec<u32> = (0..t as u32).map(|t| t % 3).collect();
            for r in [None, Some(&r[..])] {
                let [mut y, mut expected] = [vec![f32::NAN; t * n], vec![0.0; t * n]];
                lora(&x, [&a, &b], &adapters, r, [k, n, rank], &mut y);
                reference::lora(&x, [&a, &b], &adapters, r, [k, n, rank], &mut expected);
                let mut pairs = y.iter().zip(&expected);
                assert!(pairs.all(|(y, x)| (y - x).abs() < 1e-4), "{y:?} {expected:?}");
            }
        }
    }
}

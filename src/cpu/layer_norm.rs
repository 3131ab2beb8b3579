use super::simd::{self, Simd, WithSimd};
use crate::{elements::TensorData, reference::Part};
use rayon::prelude::*;

/// Rows in one unit of work.
const ROWS: usize = 16;

/// [`reference::layer_norm`](crate::reference::layer_norm) on all cores, in f32.
pub fn layer_norm(
    x: &[f32],
    r: Option<&[f32]>,
    gamma: &[f32],
    beta: &[f32],
    (eps, rms): (f32, bool),
    y: &mut [f32],
) {
    let d = gamma.len();
    y.par_chunks_mut(ROWS * d).enumerate().for_each(|(n, y)| {
        let part = n * ROWS * d..n * ROWS * d + y.len();
        y.copy_from_slice(&x[part.clone()]);
        if let Some(r) = r {
            y.iter_mut().zip(&r[part]).for_each(|(y, r)| *y += r);
        }
        simd::widest(Norm { gamma, beta, eps, rms, y });
    });
}

/// [`reference::embed`](crate::reference::embed) on all cores, in f32.
#[expect(clippy::too_many_arguments, reason = "the shader's bindings, in its order")]
pub fn embed(
    ids: &[u32],
    type_ids: &[u32],
    word: &TensorData,
    kind: &[f32],
    gamma: &[f32],
    beta: &[f32],
    part: Part,
    eps: Option<f32>,
    x: &mut [f32],
) {
    let d = gamma.len();
    let rows = x.par_chunks_mut(d).zip(ids).zip(type_ids).with_min_len(ROWS);
    rows.filter(|((_, id), _)| (part.first..part.first + part.rows).contains(id)).for_each(
        |((x, &id), &type_id)| {
            word.read((id - part.first) as usize * d, x);
            let kind = &kind[type_id as usize * d..][..d];
            x.iter_mut().zip(kind).for_each(|(x, kind)| *x += kind);
            if let Some(eps) = eps {
                simd::widest(Norm { gamma, beta, eps, rms: false, y: x });
            }
        },
    );
}

/// LayerNorm or RMSNorm of rows in place.
struct Norm<'a> {
    gamma: &'a [f32],
    beta: &'a [f32],
    eps: f32,
    rms: bool,
    y: &'a mut [f32],
}

impl WithSimd for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { gamma, beta, eps, rms, y } = self;
        let d = gamma.len();
        for y in y.chunks_exact_mut(d) {
            // Deviations from a first mean: their own mean is its rounding error, and their squares
            // do not cancel.
            let [sum, square] = moments(simd, y, 0.0).map(|moment| moment / d as f32);
            let (mean, variance) = if rms {
                (0.0, square)
            } else {
                let [rest, squares] = moments(simd, y, sum).map(|moment| moment / d as f32);
                (sum + rest, (squares - rest * rest).max(0.0))
            };
            let mean = simd.splat_f32s(mean);
            let scale = simd.splat_f32s(1.0 / (variance + eps).sqrt());
            let lanes = S::F32_LANES;
            let affine = gamma.chunks(lanes).zip(beta.chunks(lanes));
            for (y, (gamma, beta)) in y.chunks_mut(lanes).zip(affine) {
                let z = simd.mul_f32s(simd.sub_f32s(simd.partial_load_f32s(y), mean), scale);
                let gamma = simd.partial_load_f32s(gamma);
                let beta = simd.partial_load_f32s(beta);
                simd.partial_store_f32s(y, simd.mul_add_e_f32s(z, gamma, beta));
            }
        }
    }
}

/// Sums of `y - from` and of its square.
#[inline(always)]
fn moments<S: Simd>(simd: S, y: &[f32], from: f32) -> [f32; 2] {
    /// Number of parallel sums: rounding error grows with the length of each.
    const WAYS: usize = 4;
    let minus = simd.splat_f32s(-from);
    let mut sums = [[simd.splat_f32s(0.0); WAYS]; 2];
    let (vectors, tail) = S::as_simd_f32s(y);
    for vectors in vectors.chunks(WAYS) {
        for (way, &y) in vectors.iter().enumerate() {
            let z = simd.add_f32s(y, minus);
            sums[0][way] = simd.add_f32s(sums[0][way], z);
            sums[1][way] = simd.mul_add_e_f32s(z, z, sums[1][way]);
        }
    }
    let mut moments = [0.0; 2];
    for (moment, [a, b, c, d]) in moments.iter_mut().zip(sums) {
        *moment = simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)));
    }
    for y in tail {
        moments[0] += y - from;
        moments[1] += (y - from) * (y - from);
    }
    moments
}

//! SIMD vectors of the `pulp` crate: the widest on this machine, chosen at run time.
//!
//! Functions that take a [`Simd`] must be inlined up to [`widest`], as only inlined code is
//! compiled for those vectors; hence `#[inline(always)]` on all of them.

use crate::activation::Activation;
pub use pulp::{Simd, WithSimd};
use std::{cell::RefCell, f32::consts::LN_2};

/// Runs `op` with the widest vectors.
pub fn widest<Op: WithSimd>(op: Op) -> Op::Output {
    pulp::Arch::new().dispatch(op)
}

/// 16 elements, a cache line: the alignment for loads of the widest vector.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Line([f32; 16]);

impl Line {
    /// Number of lines for `n` elements.
    pub fn count(n: usize) -> usize {
        n.div_ceil(16)
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Passes arrays of the given sizes, of undefined contents, to `work`; the thread keeps the memory
/// for the next call.
pub fn scratch<const N: usize, R>(sizes: [usize; N], work: impl FnOnce([&mut [f32]; N]) -> R) -> R {
    // Taken, not borrowed: rayon may run another unit on this thread during `work`.
    let mut lines = SCRATCH.take();
    let total = sizes.map(Line::count).iter().sum();
    if lines.len() < total {
        lines.resize(total, Line::default());
    }
    let mut rest = &mut lines[..];
    let result = work(sizes.map(|size| {
        let (lines, tail) = std::mem::take(&mut rest).split_at_mut(Line::count(size));
        rest = tail;
        &mut bytemuck::cast_slice_mut(lines)[..size]
    }));
    SCRATCH.set(lines);
    result
}

/// `a[0] + a[1]·x + a[2]·x² + …`
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, x: S::f32s, a: [f32; N]) -> S::f32s {
    let mut y = simd.splat_f32s(a[N - 1]);
    for &a in a[..N - 1].iter().rev() {
        y = simd.mul_add_e_f32s(y, x, simd.splat_f32s(a));
    }
    y
}

/// `max(x, least)`; NaN stays NaN, which not every processor's maximum guarantees.
#[inline(always)]
fn at_least<S: Simd>(simd: S, x: S::f32s, least: f32) -> S::f32s {
    let least = simd.splat_f32s(least);
    simd.select_f32s(simd.less_than_f32s(x, least), least, x)
}

/// `2^x` for x ≤ 127, with a relative error of 2⁻²³; 2⁻¹²⁶ for smaller results.
#[inline(always)]
pub fn exp2<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // 2^x = 2^n·2^f with |f| ≤ 1/2.  Adding 1.5·2²³ rounds to n, in the lowest bits.
    let x = at_least(simd, x, -126.0);
    let shift = simd.splat_f32s(12_582_912.0);
    let shifted = simd.add_f32s(x, shift);
    let f = simd.sub_f32s(x, simd.sub_f32s(shifted, shift));
    // minimax, to 2e-9
    let p = polynomial(
        simd,
        f,
        [1.0, LN_2, 0.240_226_48, 0.055_503_324, 0.009_618_437, 0.001_339_887_4, 1.535_336_2e-4],
    );
    let n = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(p), n))
}

/// `x·Φ(x)` with the error function: error within 4e-7·max(1, |x|), relative error within 4e-6 for
/// x ≥ -9, below which it nearly vanishes.
#[inline(always)]
pub fn gelu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // x·Φ(x) = max(x, 0) - t·Q(t) with t = |x| and Q(t) = exp(-t²/2)·h(1/(1 + 0.3·t)).
    let t = simd.abs_f32s(x);
    let one = simd.splat_f32s(1.0);
    let u = simd.div_f32s(one, simd.mul_add_e_f32s(t, simd.splat_f32s(0.3), one));
    // minimax of erfcx(t/√2)/2, relative error 1e-7 for t ≤ 12
    let h = polynomial(
        simd,
        u,
        [
            0.0,
            0.119_616_27,
            0.120_949_11,
            0.098_718_98,
            0.132_440_98,
            -0.060_921_43,
            0.214_134_41,
            -0.161_680_12,
            0.036_741_745,
        ],
    );
    let half = simd.splat_f32s(-0.5 * std::f32::consts::LOG2_E);
    let bell = exp2(simd, simd.mul_f32s(simd.mul_f32s(t, t), half));
    let tail = simd.mul_f32s(simd.mul_f32s(t, h), bell);
    simd.sub_f32s(at_least(simd, x, 0.0), tail)
}

/// Applies an activation.
#[inline(always)]
pub fn activate<S: Simd>(simd: S, activation: Activation, x: S::f32s) -> S::f32s {
    match activation {
        Activation::Identity => x,
        Activation::Gelu => gelu(simd, x),
        Activation::Relu => at_least(simd, x, 0.0),
    }
}

/// The largest integer n with 2ⁿ ≤ x, for normal x > 0.
#[inline(always)]
pub fn floor_log2<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // The exponent, biased by 127, as the lowest bits of a float with exponent 2²³.
    let bits = simd.wrapping_dyn_shr_u32s(simd.transmute_u32s_f32s(x), simd.splat_u32s(23));
    let float = simd.transmute_f32s_u32s(simd.or_u32s(bits, simd.splat_u32s(0x4b00_0000)));
    simd.sub_f32s(float, simd.splat_f32s(8_388_608.0 + 127.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies one of the functions here to every element of a slice.
    struct Each<'a>(&'a str, &'a mut [f32]);

    impl WithSimd for Each<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            for x in self.1.chunks_mut(S::F32_LANES) {
                let y = match self.0 {
                    "exp2" => exp2(simd, simd.partial_load_f32s(x)),
                    "gelu" => gelu(simd, simd.partial_load_f32s(x)),
                    _ => floor_log2(simd, simd.partial_load_f32s(x)),
                };
                simd.partial_store_f32s(x, y);
            }
        }
    }

    fn each(name: &str, x: &[f32]) -> Vec<(f64, f64)> {
        let mut y = x.to_vec();
        widest(Each(name, &mut y));
        x.iter().zip(y).map(|(&x, y)| (f64::from(x), f64::from(y))).collect()
    }

    #[test]
    fn exp2_is_within_its_stated_error() {
        let x: Vec<f32> = (-126_000..126_000).map(|n| n as f32 / 1000.0).collect();
        for (x, y) in each("exp2", &x) {
            assert!((y / x.exp2() - 1.0).abs() < 2f64.powi(-23), "{x}: {y}");
        }
        assert_eq!(each("exp2", &[0.0, -1e9])[0].1, 1.0);
        assert!(each("exp2", &[-1e9, f32::MIN])[1].1 < 2e-38);
        assert!(each("exp2", &[f32::NAN])[0].1.is_nan());
    }

    #[test]
    fn gelu_is_within_its_stated_error() {
        let x: Vec<f32> = (-12_000..12_000).map(|n| n as f32 / 1000.0).collect();
        for (x, y) in each("gelu", &x) {
            let exact = Activation::Gelu.of(x);
            assert!((y - exact).abs() < 4e-7 * x.abs().max(1.0), "{x}: {y}, not {exact}");
            assert!(x < -9.0 || (y - exact).abs() <= 4e-6 * exact.abs(), "{x}: {y}, not {exact}");
        }
        assert!(each("gelu", &[f32::NAN])[0].1.is_nan());
    }

    #[test]
    fn floor_log2_by_hand() {
        let values = each("log", &[1.0, 1.99, 2.0, 0.75, 1e30]);
        assert_eq!(values.iter().map(|(_, y)| *y).collect::<Vec<_>>(), [0.0, 0.0, 1.0, -1.0, 99.0]);
    }
}

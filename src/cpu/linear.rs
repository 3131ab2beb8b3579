//! Products with weights in [`Layout::Panels`](crate::kernels::Layout), and what follows each.

use super::{
    simd::{self, Simd, WithSimd},
    tile::{self, ROWS, Tile},
};
use crate::{kernels::PANEL, reference::Activation};
use rayon::prelude::*;
use std::{borrow::Cow, ops::Range};

/// Rows of x in one unit of work, at most: they stay in a core's cache with a panel.
const BLOCK: usize = 128;

/// Inner elements at a time, for the same reason.
const DEPTH: usize = 512;

/// [`reference::linear`](crate::reference::linear) on all cores, in f32.
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
    spread(y, n, |[row, column], y| {
        let width = y[0].len();
        y.iter_mut().for_each(|y| y.copy_from_slice(&bias[column..][..width]));
        let (x, w) = (&x[row * k..], &w[column * k..][..width * k]);
        simd::widest(Linear { x, k, w, activation, y });
        for (row, y) in (row..).zip(y.iter_mut()) {
            let Some(r) = r else { break };
            y.iter_mut().zip(&r[row * n + column..]).for_each(|(y, r)| *y += r);
        }
    });
}

/// [`reference::linear_geglu`](crate::reference::linear_geglu()) with each half of the weights in
/// panels by itself: the wide intermediate never leaves the registers.
pub fn linear_geglu(
    x: &[f32],
    w: &[f32],
    f: usize,
    activation: Activation,
    gate_first: bool,
    h: &mut [f32],
) {
    let k = w.len() / (2 * f);
    let (first, second) = w.split_at(f * k);
    let (gate, up) = if gate_first { (first, second) } else { (second, first) };
    spread(h, f, |[row, column], h| {
        let part = column * k..(column + h[0].len()) * k;
        let (gate, up) = (&gate[part.clone()], &up[part]);
        simd::widest(LinearGeglu { x: &x[row * k..], k, gate, up, activation, h });
    });
}

/// Cuts the rows of `y`, `n` elements each, into units of work for all cores.  `work` receives the
/// first row and column of a unit, and its piece of each row.
fn spread(y: &mut [f32], n: usize, work: impl Fn([usize; 2], &mut [&mut [f32]]) + Sync) {
    let (rows, threads) = (y.len() / n, rayon::current_num_threads());
    if rows == 0 {
        return;
    }
    // By rows as far as they go, so that they share the panels; a few rows by columns.
    let blocks = rows.div_ceil(BLOCK);
    let (blocks, groups) = match blocks < threads {
        true => (blocks, threads.div_ceil(blocks)),
        false => (blocks.next_multiple_of(threads), 1),
    };
    let height = rows.div_ceil(blocks).next_multiple_of(ROWS);
    let width = n.div_ceil(PANEL).div_ceil(groups) * PANEL;
    let mut units = Vec::new();
    for (b, y) in y.chunks_mut(height * n).enumerate() {
        let first = units.len();
        for y in y.chunks_exact_mut(n) {
            for (g, y) in y.chunks_mut(width).enumerate() {
                if units.len() == first + g {
                    units.push(([b * height, g * width], Vec::with_capacity(height)));
                }
                units[first + g].1.push(y);
            }
        }
    }
    units.into_par_iter().with_max_len(1).for_each(|(at, mut y)| work(at, &mut y));
}

/// \[K, 64\] of a packed matrix.
struct Panel<'a> {
    w: Cow<'a, [f32]>,
}

impl<'a> Panel<'a> {
    /// The panels of \[K, N\], or of a range of its inner elements.
    #[inline(always)]
    fn all(w: &'a [f32], k: usize, inner: Range<usize>) -> impl Iterator<Item = Self> {
        w.chunks(PANEL * k).map(move |w| {
            let width = w.len() / k;
            let w = &w[inner.start * width..inner.end * width];
            let w = if width < PANEL { Cow::Owned(widen(w, width)) } else { Cow::Borrowed(w) };
            Self { w }
        })
    }

    /// Products of M rows of x, `step` elements apart, with V vectors of columns.
    #[inline(always)]
    fn tile<S: Simd, const M: usize, const V: usize>(
        &self,
        simd: S,
        x: &[f32],
        step: usize,
        first: usize,
    ) -> Tile<S, M, V> {
        let (w, _) = S::as_simd_f32s(&self.w);
        let rows = w.chunks_exact(PANEL / S::F32_LANES);
        let w = rows.map(|row| row[first..].first_chunk().expect("a tile's columns"));
        let x = tile::Along::new(x, step, self.w.len() / PANEL);
        tile::accumulate(simd, x, w, [[simd.splat_f32s(0.0); V]; M])
    }
}

/// Rows of `width` columns as rows of a panel, filled up with zeros.
fn widen(w: &[f32], width: usize) -> Vec<f32> {
    let mut panel = vec![0.0; w.len() / width * PANEL];
    for (wide, row) in panel.chunks_exact_mut(PANEL).zip(w.chunks_exact(width)) {
        wide[..width].copy_from_slice(row);
    }
    panel
}

struct Linear<'a, 'y> {
    x: &'a [f32],
    k: usize,
    w: &'a [f32],
    activation: Activation,
    y: &'a mut [&'y mut [f32]],
}

impl WithSimd for Linear<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match tile::vectors::<S>() {
            2 => self.run::<S, 2>(simd),
            _ => self.run::<S, 4>(simd),
        }
    }
}

impl Linear<'_, '_> {
    /// `y = activation(y + x·Wᵀ)`
    #[inline(always)]
    fn run<S: Simd, const V: usize>(self, simd: S) {
        let Self { x, k, w, activation, y } = self;
        for from in (0..k).step_by(DEPTH) {
            let panels = Panel::all(w, k, from..k.min(from + DEPTH));
            for (column, panel) in (0..).step_by(PANEL).zip(panels) {
                for (n, y) in y.chunks_mut(ROWS).enumerate() {
                    let x = &x[n * ROWS * k + from..];
                    for first in (0..PANEL / S::F32_LANES).step_by(V) {
                        let column = column + first * S::F32_LANES;
                        tile::rows!(y.len(), M => {
                            let sums = panel.tile::<S, M, V>(simd, x, k, first);
                            for m in 0..M {
                                add(simd, y[m].get_mut(column..).unwrap_or_default(), sums[m]);
                            }
                        });
                    }
                }
            }
        }
        if activation == Activation::Identity {
            return;
        }
        for y in y.iter_mut().flat_map(|y| y.chunks_mut(S::F32_LANES)) {
            let value = simd::activate(simd, activation, simd.partial_load_f32s(y));
            simd.partial_store_f32s(y, value);
        }
    }
}

/// Adds vectors to the beginning of `y`, as far as it goes.
#[inline(always)]
fn add<S: Simd, const V: usize>(simd: S, y: &mut [f32], sums: [S::f32s; V]) {
    let mut chunks = y.chunks_mut(S::F32_LANES);
    for sum in sums {
        let Some(y) = chunks.next() else { return };
        let sum = simd.add_f32s(simd.partial_load_f32s(y), sum);
        simd.partial_store_f32s(y, sum);
    }
}

struct LinearGeglu<'a, 'y> {
    x: &'a [f32],
    k: usize,
    gate: &'a [f32],
    up: &'a [f32],
    activation: Activation,
    h: &'a mut [&'y mut [f32]],
}

impl WithSimd for LinearGeglu<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match tile::vectors::<S>() {
            2 => self.run::<S, 2>(simd),
            _ => self.run::<S, 4>(simd),
        }
    }
}

impl LinearGeglu<'_, '_> {
    #[inline(always)]
    fn run<S: Simd, const V: usize>(self, simd: S) {
        let Self { x, k, gate, up, activation, h } = self;
        let panels = Panel::all(gate, k, 0..k).zip(Panel::all(up, k, 0..k));
        for (column, (gate, up)) in (0..).step_by(PANEL).zip(panels) {
            for (n, h) in h.chunks_mut(ROWS).enumerate() {
                let x = &x[n * ROWS * k..];
                for first in (0..PANEL / S::F32_LANES).step_by(V) {
                    let column = column + first * S::F32_LANES;
                    tile::rows!(h.len(), M => {
                        let gates = gate.tile::<S, M, V>(simd, x, k, first);
                        let ups = up.tile::<S, M, V>(simd, x, k, first);
                        for m in 0..M {
                            let h = h[m].get_mut(column..).unwrap_or_default();
                            gated(simd, activation, gates[m], ups[m], h);
                        }
                    });
                }
            }
        }
    }
}

/// Vectors of `activation(gate) ⊙ up` at the beginning of `h`, as far as it goes.
#[inline(always)]
fn gated<S: Simd, const V: usize>(
    simd: S,
    activation: Activation,
    gates: [S::f32s; V],
    ups: [S::f32s; V],
    h: &mut [f32],
) {
    let mut chunks = h.chunks_mut(S::F32_LANES);
    for v in 0..V {
        let Some(h) = chunks.next() else { return };
        let gate = simd::activate(simd, activation, gates[v]);
        simd.partial_store_f32s(h, simd.mul_f32s(gate, ups[v]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Layout;
    use crate::reference;

    fn wave(n: usize, phase: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.7 + phase).sin()).collect()
    }

    fn close(a: &[f32], b: &[f32]) {
        for (n, (a, b)) in a.iter().zip(b).enumerate() {
            assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "element {n}: {a}, not {b}");
        }
    }

    /// \[N, K\] in panels.
    fn pack(w: &[f32], k: usize) -> Vec<f32> {
        let shape = [(w.len() / k) as u32, k as u32];
        Layout::Panels.arrange(w.into(), shape).1.widened().into_owned()
    }

    #[test]
    fn products_are_the_twins() {
        for (t, n, k) in [(1, 1, 1), (5, 70, 12), (7, 64, 600), (300, 130, 8)] {
            let (x, w, bias) = (wave(t * k, 0.0), wave(n * k, 1.0), wave(n, 2.0));
            let mut expected = vec![0.0; t * n];
            let (r, packed) = (wave(t * n, 3.0), pack(&w, k));
            for activation in [Activation::Identity, Activation::Gelu] {
                for r in [None, Some(&r[..])] {
                    let mut y = vec![f32::NAN; t * n];
                    linear(&x, &packed, &bias, activation, r, &mut y);
                    reference::linear(&x, &w, &bias, activation, r, &mut expected);
                    close(&y, &expected);
                }
            }
        }
    }

    #[test]
    fn the_fused_product_is_the_twins_one_after_the_other() {
        for (t, f, k) in [(1, 4, 4), (5, 70, 12), (300, 64, 20)] {
            let (x, w) = (wave(t * k, 0.0), wave(2 * f * k, 1.0));
            let packed = [&w[..f * k], &w[f * k..]].map(|half| pack(half, k)).concat();
            for activation in [Activation::Gelu, Activation::Relu] {
                for gate_first in [true, false] {
                    let mut expected = vec![0.0; t * f];
                    reference::linear_geglu(&x, &w, activation, gate_first, &mut expected, f);
                    let mut h = vec![f32::NAN; t * f];
                    linear_geglu(&x, &packed, f, activation, gate_first, &mut h);
                    close(&h, &expected);
                }
            }
        }
    }

    #[test]
    fn a_row_is_the_same_to_the_bit_wherever_it_is() {
        let (n, k) = (130, 600);
        let (x, w, bias) = (wave(300 * k, 0.0), pack(&wave(n * k, 1.0), k), wave(n, 2.0));
        let mut all = vec![0.0; 300 * n];
        linear(&x, &w, &bias, Activation::Identity, None, &mut all);
        for row in [0, 5, 131, 299] {
            let mut y = vec![0.0; n];
            linear(&x[row * k..][..k], &w, &bias, Activation::Identity, None, &mut y);
            assert_eq!(y, all[row * n..][..n], "row {row}");
        }
    }
}

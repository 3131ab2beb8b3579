//! Products with weights in [`Layout::Panels`](crate::kernels::Layout), with their epilogues.

use super::{
    panel::{FEW, Panel, SHORT, Weights, few},
    simd::{self, Simd, WithSimd},
    tile::{self, ROWS},
};
use crate::{activation::Activation, kernels::PANEL};
use rayon::prelude::*;

/// Maximum rows of x in one unit of work: they stay in a core's cache with a panel.
const BLOCK: usize = 128;

/// Inner elements at a time, for the same reason.
const DEPTH: usize = 512;

/// [`reference::linear`](crate::reference::linear) on all cores, in f32.
pub fn linear(
    x: &[f32],
    w: Weights,
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
        let x = &x[row * k..];
        let w = w.slice(column * k..(column + width) * k);
        simd::scratch([DEPTH.min(k) * PANEL, FEW * PANEL], |[room, sums]| {
            simd::widest(Linear { x, k, w, room, sums, y });
        });
        for (row, y) in (row..).zip(y.iter_mut()) {
            let Some(r) = r else { break };
            y.iter_mut().zip(&r[row * n + column..]).for_each(|(y, r)| *y += r);
        }
        if activation != Activation::Identity {
            simd::widest(Activate { activation, y });
        }
    });
}

/// [`reference::linear_geglu`](crate::reference::linear_geglu()) with separate panels for the
/// halves of the weights: the wide intermediate never leaves the registers.
pub fn linear_geglu(
    x: &[f32],
    w: Weights,
    f: usize,
    activation: Activation,
    gate_first: bool,
    h: &mut [f32],
) {
    let k = w.len() / (2 * f);
    let first = w.slice(0..f * k);
    let second = w.slice(f * k..2 * f * k);
    let (gate, up) = if gate_first { (first, second) } else { (second, first) };
    spread(h, f, |[row, column], h| {
        let part = column * k..(column + h[0].len()) * k;
        let halves = [gate, up].map(|half| half.slice(part.clone()));
        let sizes = [k * PANEL, k * PANEL, FEW * PANEL, FEW * PANEL];
        simd::scratch(sizes, |[gates, ups, s, t]| {
            let x = &x[row * k..];
            let room = [gates, ups];
            let sums = [s, t];
            simd::widest(LinearGeglu { x, k, halves, activation, room, sums, h });
        });
    });
}

/// Splits the rows of `y`, `n` elements each, into units of work for all cores.  `work` receives
/// the first row and column of a unit, and its part of each row.
fn spread(y: &mut [f32], n: usize, work: impl Fn([usize; 2], &mut [&mut [f32]]) + Sync) {
    let rows = y.len() / n;
    let threads = rayon::current_num_threads();
    if rows == 0 {
        return;
    }
    // Split by rows as far as possible, to share the panels; few rows are split by columns.
    let blocks = rows.div_ceil(BLOCK);
    let (blocks, groups) = if blocks < threads {
        (blocks, threads.div_ceil(blocks))
    } else {
        (blocks.next_multiple_of(threads), 1)
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

struct Linear<'a, 'y> {
    x: &'a [f32],
    k: usize,
    w: Weights<'a>,
    /// Scratch memory for a panel.
    room: &'a mut [f32],
    /// Scratch memory for the sums of a panel's columns.
    sums: &'a mut [f32],
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
    /// `y = y + x·Wᵀ`
    #[inline(always)]
    fn run<S: Simd, const V: usize>(self, simd: S) {
        let Self { x, k, w, room, sums, y } = self;
        for from in (0..k).step_by(DEPTH) {
            let inner = from..k.min(from + DEPTH);
            for (column, w) in w.panels(k) {
                let w = w.inner(k, inner.clone());
                if let (Weights::F16(_), 1..=FEW) = (w.elements, y.len()) {
                    let sums = &mut sums[..y.len() * PANEL];
                    let room = &mut room[..SHORT.min(DEPTH.min(k) * PANEL)];
                    few::<S, V>(simd, &x[from..], k, w, room, sums);
                    for (y, sums) in y.iter_mut().zip(sums.chunks_exact(PANEL)) {
                        y[column..].iter_mut().zip(sums).for_each(|(y, sum)| *y += sum);
                    }
                    continue;
                }
                let panel = Panel::new(w, room);
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
    }
}

/// An activation of rows in place.
struct Activate<'a, 'y> {
    activation: Activation,
    y: &'a mut [&'y mut [f32]],
}

impl WithSimd for Activate<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for y in self.y.iter_mut().flat_map(|y| y.chunks_mut(S::F32_LANES)) {
            let value = simd::activate(simd, self.activation, simd.partial_load_f32s(y));
            simd.partial_store_f32s(y, value);
        }
    }
}

/// Adds vectors to `y`, as far as it goes.
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
    /// Weights of the gate, and of the half that it multiplies.
    halves: [Weights<'a>; 2],
    activation: Activation,
    /// Scratch memory for a panel of each half.
    room: [&'a mut [f32]; 2],
    /// Scratch memory for the sums of the panel's columns.
    sums: [&'a mut [f32]; 2],
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
        let Self { x, k, halves: [gate, up], activation, room, sums, h } = self;
        let [gate_room, up_room] = room;
        let [gates, ups] = sums;
        for ((column, gate), (_, up)) in gate.panels(k).zip(up.panels(k)) {
            let [gate, up] = [gate, up].map(|w| w.inner(k, 0..k));
            if let (Weights::F16(_), 1..=FEW) = (gate.elements, h.len()) {
                let room = SHORT.min(k * PANEL);
                let gates = &mut gates[..h.len() * PANEL];
                let ups = &mut ups[..h.len() * PANEL];
                few::<S, V>(simd, x, k, gate, &mut gate_room[..room], gates);
                few::<S, V>(simd, x, k, up, &mut up_room[..room], ups);
                let (gates, _) = S::as_simd_f32s(gates);
                let (ups, _) = S::as_simd_f32s(ups);
                let row = PANEL / S::F32_LANES;
                let sums = gates.chunks_exact(row).zip(ups.chunks_exact(row));
                for (h, (gates, ups)) in h.iter_mut().zip(sums) {
                    let h = h[column..].chunks_mut(S::F32_LANES);
                    for (h, (gate, up)) in h.zip(gates.iter().zip(ups)) {
                        gated(simd, activation, [*gate], [*up], h);
                    }
                }
                continue;
            }
            let gate = Panel::new(gate, gate_room);
            let up = Panel::new(up, up_room);
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

/// Writes vectors of `activation(gate) ⊙ up` to `h`, as far as it goes.
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
    use crate::{
        elements::{TensorData, f16},
        kernels::Layout,
        reference,
    };

    fn wave(n: usize, phase: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.7 + phase).sin()).collect()
    }

    fn close(a: &[f32], b: &[f32]) {
        for (n, (a, b)) in a.iter().zip(b).enumerate() {
            assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "element {n}: {a}, not {b}");
        }
    }

    /// Packs \[N, K\] into panels.
    fn pack(w: &[f32], k: usize) -> Vec<f32> {
        let shape = [(w.len() / k) as u32, k as u32];
        Layout::Panels.arrange(w.into(), shape).1.widened().into_owned()
    }

    #[test]
    fn products_equal_the_reference() {
        for (t, n, k) in [(1, 1, 1), (5, 70, 12), (7, 64, 600), (300, 130, 8)] {
            let x = wave(t * k, 0.0);
            let w = wave(n * k, 1.0);
            let bias = wave(n, 2.0);
            let mut expected = vec![0.0; t * n];
            let r = wave(t * n, 3.0);
            let packed = pack(&w, k);
            for activation in [Activation::Identity, Activation::Gelu] {
                for r in [None, Some(&r[..])] {
                    let mut y = vec![f32::NAN; t * n];
                    linear(&x, Weights::F32(&packed), &bias, activation, r, &mut y);
                    reference::linear(&x, &w, &bias, activation, r, &mut expected);
                    close(&y, &expected);
                }
            }
        }
    }

    #[test]
    fn the_fused_product_equals_the_references_in_sequence() {
        for (t, f, k) in [(1, 4, 4), (5, 70, 12), (300, 64, 20)] {
            let x = wave(t * k, 0.0);
            let w = wave(2 * f * k, 1.0);
            let packed = [&w[..f * k], &w[f * k..]].map(|half| pack(half, k)).concat();
            for activation in [Activation::Gelu, Activation::Relu] {
                for gate_first in [true, false] {
                    let mut expected = vec![0.0; t * f];
                    reference::linear_geglu(&x, &w, activation, gate_first, &mut expected, f);
                    let mut h = vec![f32::NAN; t * f];
                    linear_geglu(&x, Weights::F32(&packed), f, activation, gate_first, &mut h);
                    close(&h, &expected);
                }
            }
        }
    }

    #[test]
    fn weights_of_f16_give_the_same_bits() {
        for (t, n, k) in [(1, 1, 1), (6, 70, 12), (13, 64, 600), (16, 130, 33), (17, 130, 33)] {
            let x = wave(t * k, 0.0);
            let bias = wave(n, 2.0);
            let mut halves = vec![f16::ZERO; 2 * n * k];
            TensorData::from(wave(2 * n * k, 1.0)).write_f16(&mut halves);
            halves.iter_mut().step_by(7).for_each(|w| *w = f16::from_bits(w.to_bits() & 0x83ff));
            let wide: Vec<f32> = halves.iter().map(|w| w.to_f32()).collect();
            let both = |end| [Weights::F32(&wide[..end]), Weights::F16(&halves[..end])];
            for activation in [Activation::Identity, Activation::Gelu] {
                let y = both(n * k).map(|w| {
                    let mut y = vec![f32::NAN; t * n];
                    linear(&x, w, &bias, activation, None, &mut y);
                    y
                });
                assert_eq!(y[0], y[1], "{t} × {n} × {k}");
                let h = both(2 * n * k).map(|w| {
                    let mut h = vec![f32::NAN; t * n];
                    linear_geglu(&x, w, n, activation, true, &mut h);
                    h
                });
                assert_eq!(h[0], h[1], "{t} × {n} × {k} gated");
            }
        }
    }

    #[test]
    fn a_row_is_the_same_to_the_bit_wherever_it_is() {
        let n = 130;
        let k = 600;
        let x = wave(300 * k, 0.0);
        let w = pack(&wave(n * k, 1.0), k);
        let bias = wave(n, 2.0);
        let w = Weights::F32(&w);
        let mut all = vec![0.0; 300 * n];
        linear(&x, w, &bias, Activation::Identity, None, &mut all);
        for row in [0, 5, 131, 299] {
            let mut y = vec![0.0; n];
            linear(&x[row * k..][..k], w, &bias, Activation::Identity, None, &mut y);
            assert_eq!(y, all[row * n..][..n], "row {row}");
        }
    }
}

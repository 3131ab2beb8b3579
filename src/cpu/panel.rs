//! Weight panels of a product, in stored form and as read by tiles.

use super::{
    simd::Simd,
    tile::{self, ROWS, Tile},
    widen::widen,
};
use crate::{elements::f16, kernels::PANEL};
use std::ops::Range;

/// Rows of x up to which f16 panels are widened during the product, in parts that fit the
/// first-level cache; for more rows, whole panels are widened first.
pub const FEW: usize = 16;

/// Elements of such a part.
pub const SHORT: usize = 32 * PANEL;

/// A weight matrix in [`Layout::Panels`](crate::kernels::Layout), or some of its panels.
#[derive(Clone, Copy)]
pub enum Weights<'a> {
    /// 32 bits.
    F32(&'a [f32]),
    /// 16 bits.
    F16(&'a [f16]),
}

/// A range of a panel's inner elements, \[k, width\].
#[derive(Clone, Copy)]
pub struct Inner<'a> {
    /// Elements, row-major.
    pub elements: Weights<'a>,
    width: usize,
}

impl<'a> Weights<'a> {
    /// Number of elements.
    pub fn len(self) -> usize {
        match self {
            Self::F32(w) => w.len(),
            Self::F16(w) => w.len(),
        }
    }

    /// A range of elements.
    #[inline(always)]
    pub fn slice(self, range: Range<usize>) -> Self {
        match self {
            Self::F32(w) => Self::F32(&w[range]),
            Self::F16(w) => Self::F16(&w[range]),
        }
    }

    /// Panels of \[K, N\], with the first column of each.
    #[inline(always)]
    pub fn panels(self, k: usize) -> impl Iterator<Item = (usize, Self)> {
        let n = self.len() / k;
        let panel = move |column| self.slice(column * k..n.min(column + PANEL) * k);
        (0..n).step_by(PANEL).map(move |column| (column, panel(column)))
    }

    /// A range of one panel's inner elements.
    #[inline(always)]
    pub fn inner(self, k: usize, range: Range<usize>) -> Inner<'a> {
        let width = self.len() / k;
        Inner { elements: self.slice(range.start * width..range.end * width), width }
    }
}

/// A panel in f32, \[k, 64\].
pub struct Panel<'a> {
    w: &'a [f32],
}

impl<'a> Panel<'a> {
    /// Widens into `room`, unless it is f32 already; missing columns become zeros.
    pub fn new(inner: Inner<'a>, room: &'a mut [f32]) -> Self {
        let Inner { elements, width } = inner;
        match elements {
            Weights::F32(w) if width == PANEL => Self { w },
            Weights::F16(w) if width == PANEL => {
                let room = &mut room[..w.len()];
                widen(w, room);
                Self { w: room }
            }
            _ => {
                let room = &mut room[..elements.len() / width * PANEL];
                room.fill(0.0);
                for (n, row) in room.chunks_exact_mut(PANEL).enumerate() {
                    match elements.slice(n * width..(n + 1) * width) {
                        Weights::F32(w) => row[..width].copy_from_slice(w),
                        Weights::F16(w) => widen(w, &mut row[..width]),
                    }
                }
                Self { w: room }
            }
        }
    }

    /// Products of M rows of x, `step` elements apart, with V vectors of columns.
    #[inline(always)]
    pub fn tile<S: Simd, const M: usize, const V: usize>(
        &self,
        simd: S,
        x: &[f32],
        step: usize,
        first: usize,
    ) -> Tile<S, M, V> {
        self.add(simd, x, step, first, [[simd.splat_f32s(0.0); V]; M])
    }

    /// Adds these products to sums.
    #[inline(always)]
    fn add<S: Simd, const M: usize, const V: usize>(
        &self,
        simd: S,
        x: &[f32],
        step: usize,
        first: usize,
        sums: Tile<S, M, V>,
    ) -> Tile<S, M, V> {
        let (w, _) = S::as_simd_f32s(self.w);
        let rows = w.chunks_exact(PANEL / S::F32_LANES);
        let w = rows.map(|row| row[first..].first_chunk().expect("a tile's columns"));
        let x = tile::Along::new(x, step, self.w.len() / PANEL);
        tile::accumulate(simd, x, w, sums)
    }
}

/// `sums = x·Wᵀ`, \[rows, 64\], for a panel that is widened part by part into `room`; every sum is
/// in the order of k, as in a tile.
#[inline(always)]
pub fn few<S: Simd, const V: usize>(
    simd: S,
    x: &[f32],
    step: usize,
    w: Inner,
    room: &mut [f32],
    sums: &mut [f32],
) {
    let deep = room.len() / PANEL;
    let k = w.elements.len() / w.width;
    sums.fill(0.0);
    for from in (0..k).step_by(deep) {
        let part = w.elements.inner(k, from..k.min(from + deep));
        let panel = Panel::new(part, room);
        for (n, sums) in sums.chunks_mut(ROWS * PANEL).enumerate() {
            let x = &x[n * ROWS * step + from..];
            let rows = sums.len() / PANEL;
            let (sums, _) = S::as_mut_simd_f32s(sums);
            let row = PANEL / S::F32_LANES;
            for first in (0..row).step_by(V) {
                tile::rows!(rows, M => {
                    let mut tile = [[simd.splat_f32s(0.0); V]; M];
                    for m in 0..M {
                        tile[m].copy_from_slice(&sums[m * row + first..][..V]);
                    }
                    let tile = panel.add::<S, M, V>(simd, x, step, first, tile);
                    for m in 0..M {
                        sums[m * row + first..][..V].copy_from_slice(&tile[m]);
                    }
                });
            }
        }
    }
}

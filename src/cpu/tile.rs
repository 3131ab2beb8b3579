//! The basic product of this module: a tile of sums in registers, used by all others.

use super::simd::Simd;

/// Rows of a tile.  Six rows of four vectors, and the four vectors of weights, nearly fill 32
/// registers; six rows of two nearly fill 16.
pub const ROWS: usize = 6;

/// Vectors per row of a tile.
pub const fn vectors<S: Simd>() -> usize {
    if S::REGISTER_COUNT < 32 { 2 } else { 4 }
}

/// Sums of M rows.
pub type Tile<S, const M: usize, const V: usize> = [[<S as Simd>::f32s; V]; M];

/// Evaluates an expression with the constant `$m` = min(`$rows`, [`ROWS`]), the number of rows that
/// it processes.
macro_rules! rows {
    ($rows:expr, $m:ident => $work:expr) => {
        match $rows {
            0 => unreachable!("a tile of no rows"),
            1 => $crate::cpu::tile::rows!(@ $m = 1, $work),
            2 => $crate::cpu::tile::rows!(@ $m = 2, $work),
            3 => $crate::cpu::tile::rows!(@ $m = 3, $work),
            4 => $crate::cpu::tile::rows!(@ $m = 4, $work),
            5 => $crate::cpu::tile::rows!(@ $m = 5, $work),
            _ => $crate::cpu::tile::rows!(@ $m = 6, $work),
        }
    };
    (@ $m:ident = $n:literal, $work:expr) => {{
        const $m: usize = $n;
        $work
    }};
}
pub(super) use rows;

/// `sums[m] += Σ_k x_k[m]·w_k`, in the order of k: the result of a row never depends on the rows
/// beside it.
#[inline(always)]
pub fn accumulate<'a, S: Simd, const M: usize, const V: usize>(
    simd: S,
    x: impl Iterator<Item = [f32; M]>,
    w: impl Iterator<Item = &'a [S::f32s; V]>,
    mut sums: Tile<S, M, V>,
) -> Tile<S, M, V>
where
    S::f32s: 'a,
{
    for (x, w) in x.zip(w) {
        let w = *w;
        for m in 0..M {
            let x = simd.splat_f32s(x[m]);
            for v in 0..V {
                sums[m][v] = simd.mul_add_e_f32s(x, w[v], sums[m][v]);
            }
        }
    }
    sums
}

/// Iterates over the elements of M rows, one of each row at a time.
pub struct Along<'a, const M: usize> {
    rows: [&'a [f32]; M],
    next: usize,
}

impl<'a, const M: usize> Along<'a, M> {
    /// Creates the iterator for rows of `k` elements with stride `step`.
    #[inline(always)]
    pub fn new(x: &'a [f32], step: usize, k: usize) -> Self {
        let mut rows = [x; M];
        for (m, row) in rows.iter_mut().enumerate() {
            *row = &x[m * step..][..k];
        }
        Self { rows, next: 0 }
    }
}

impl<const M: usize> Iterator for Along<'_, M> {
    type Item = [f32; M];

    #[inline(always)]
    fn next(&mut self) -> Option<[f32; M]> {
        let mut x = [0.0; M];
        for m in 0..M {
            x[m] = *self.rows[m].get(self.next)?;
        }
        self.next += 1;
        Some(x)
    }
}

/// Iterates over rows, with the first M elements of each.
pub struct Down<'a, const M: usize> {
    rows: std::slice::Chunks<'a, f32>,
}

impl<'a, const M: usize> Down<'a, M> {
    /// Creates the iterator for rows with stride `step`.
    #[inline(always)]
    pub fn new(x: &'a [f32], step: usize) -> Self {
        Self { rows: x.chunks(step) }
    }
}

impl<const M: usize> Iterator for Down<'_, M> {
    type Item = [f32; M];

    #[inline(always)]
    fn next(&mut self) -> Option<[f32; M]> {
        self.rows.next()?.first_chunk().copied()
    }
}

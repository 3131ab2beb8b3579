//! Bounds of key scores, per block of keys.

/// Keys per block of attention: scores, queries and output of 64 elements are 16 KiB each.
pub const KEYS: usize = 64;

/// Rows of some columns of a matrix: row r begins at `data[r * step]`.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// Elements, from the first of row 0.
    pub data: &'a [f32],
    /// Stride of the rows.
    pub step: usize,
}

impl<'a> Rows<'a> {
    /// Rows from a given row and column on.
    pub fn from(self, row: usize, column: usize) -> Self {
        Self { data: &self.data[row * self.step + column..], ..self }
    }
}

/// Bounds of the scores for the keys of one head and sequence.
pub struct SkipBound {
    /// c
    pub center: Vec<f32>,
    /// ‖c‖
    pub norm: f32,
    /// Prefix maximum of ‖k_j - c‖ over blocks of keys.
    pub before: Vec<f32>,
    /// Suffix maximum of ‖k_j - c‖ over blocks of keys.
    pub behind: Vec<f32>,
}

impl SkipBound {
    /// Computes the bounds of `keys` rows of `e` elements; empty if skipping is off or too costly.
    pub fn new(k: Rows, keys: usize, e: usize, skip: f32) -> Self {
        if keys <= 2 * KEYS || skip == f32::NEG_INFINITY {
            return Self { center: Vec::new(), norm: 0.0, before: Vec::new(), behind: Vec::new() };
        }
        let rows = || k.data.chunks(k.step).take(keys).map(|row| &row[..e]);
        let mut center = vec![0.0; e];
        for row in rows() {
            center.iter_mut().zip(row).for_each(|(c, k)| *c += k);
        }
        center.iter_mut().for_each(|c| *c /= keys as f32);
        let square = |row: &[f32]| row.iter().zip(&center).map(|(k, c)| (k - c) * (k - c)).sum();
        let squares: Vec<f32> = rows().map(square).collect();
        let most = |block: &[f32]| block.iter().copied().fold(0.0, f32::max).sqrt();
        let mut before: Vec<f32> = squares.chunks(KEYS).map(most).collect();
        let mut behind = before.clone();
        for b in 1..before.len() {
            before[b] = before[b].max(before[b - 1]);
        }
        for b in (1..behind.len()).rev() {
            behind[b - 1] = behind[b - 1].max(behind[b]);
        }
        let norm = center.iter().map(|c| c * c).sum::<f32>().sqrt();
        Self { center, norm, before, behind }
    }
}

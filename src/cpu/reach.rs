//! What bounds the scores of keys, a block of them at a time.

/// Keys that a unit of attention meets at a time: scores, queries and output of 64 elements are
/// 16 KiB each.
pub const KEYS: usize = 64;

/// Rows of some columns within a slice: row r begins at `data[r * step]`.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// From the first element of row 0.
    pub data: &'a [f32],
    /// From a row to the next.
    pub step: usize,
}

impl<'a> Rows<'a> {
    /// The part from an element on.
    pub fn from(self, row: usize, column: usize) -> Self {
        Self { data: &self.data[row * self.step + column..], ..self }
    }
}

/// How far the keys of one head and sequence can reach: what bounds their scores.
pub struct Reach {
    /// c
    pub center: Vec<f32>,
    /// ‖c‖
    pub norm: f32,
    /// Largest ‖k_j - c‖ of each block of keys and all before it.
    pub before: Vec<f32>,
    /// Of each block and all behind it.
    pub behind: Vec<f32>,
}

impl Reach {
    /// Of `keys` rows of `e` elements; of none if nothing may be left out, or is worth the trouble.
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

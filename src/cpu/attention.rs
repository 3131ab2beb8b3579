use super::gemm::{Matrix, multiply_add};
use crate::reference::Heads;
use rayon::prelude::*;

/// Queries in one unit of work, and keys that they meet at a time: a block of scores is 64 KiB,
/// well within a core's cache.
const QUERIES: usize = 64;
const KEYS: usize = 256;

/// [`reference::attention`](crate::reference::attention) by tiles: blocked products, online
/// softmax, and one unit of work per tile of queries and head.
pub fn attention(
    [q, k, v]: [&[f32]; 3],
    slopes: &[f32],
    cu_seqlens: &[u32],
    heads: Heads,
    context: &mut [f32],
) {
    let tokens = cu_seqlens[cu_seqlens.len() - 1] as usize;
    let Some(d) = q.len().checked_div(tokens) else { return };
    let e = d / heads.count;

    // Tiles of queries are consecutive rows, so each owns a piece of the result.
    let mut tiles = Vec::new();
    let mut rest = context;
    for sequence in cu_seqlens.windows(2) {
        let range = sequence[0] as usize..sequence[1] as usize;
        for first in range.clone().step_by(QUERIES) {
            let rows = QUERIES.min(range.end - first);
            let (piece, tail) = rest.split_at_mut(rows * d);
            rest = tail;
            tiles.push((range.clone(), first, piece));
        }
    }
    tiles.into_par_iter().for_each(|(keys, first, context)| {
        for (h, &slope) in slopes.iter().enumerate() {
            let rows = context.len() / d;
            let mut tile = Tile::new(first, rows, e, slope);
            let q = Matrix::new(&q[first * d + h * e..], rows, e, d);
            for j in keys.clone().step_by(KEYS) {
                let n = KEYS.min(keys.end - j);
                let k = Matrix::new(&k[j * d + h * e..], n, e, d);
                let v = Matrix::new(&v[j * d + h * e..], n, e, d);
                tile.visit(q, k, v, heads.scale, j);
            }
            tile.finish(|row, o| context[row * d + h * e..][..e].copy_from_slice(o));
        }
    });
}

/// Running maximum, sum and output of a tile of queries.
struct Tile {
    first: usize,
    e: usize,
    slope: f32,
    most: Vec<f32>,
    sum: Vec<f32>,
    o: Vec<f32>,
    scores: Vec<f32>,
}

impl Tile {
    fn new(first: usize, rows: usize, e: usize, slope: f32) -> Self {
        Self {
            first,
            e,
            slope,
            most: vec![f32::MIN; rows],
            sum: vec![0.0; rows],
            o: vec![0.0; rows * e],
            scores: Vec::new(),
        }
    }

    /// Adds the keys and values that start at token `j`.
    fn visit(&mut self, q: Matrix, k: Matrix, v: Matrix, scale: f32, j: usize) {
        let (rows, keys) = (self.most.len(), k.rows());
        self.scores.resize(rows * keys, 0.0);
        multiply_add(q, k.transposed(), scale, None, &mut self.scores, 1);
        for (row, scores) in self.scores.chunks_exact_mut(keys).enumerate() {
            let i = self.first + row;
            let mut most = self.most[row];
            for (n, s) in scores.iter_mut().enumerate() {
                *s -= self.slope * i.abs_diff(j + n) as f32;
                most = most.max(*s);
            }
            let keep = (self.most[row] - most).exp();
            self.most[row] = most;
            scores.iter_mut().for_each(|s| *s = (*s - most).exp());
            self.sum[row] = self.sum[row] * keep + scores.iter().sum::<f32>();
            self.o[row * self.e..][..self.e].iter_mut().for_each(|o| *o *= keep);
        }
        let p = Matrix::new(&self.scores, rows, keys, keys);
        multiply_add(p, v, 1.0, Some(1.0), &mut self.o, 1);
    }

    fn finish(mut self, mut store: impl FnMut(usize, &[f32])) {
        for (row, o) in self.o.chunks_exact_mut(self.e).enumerate() {
            o.iter_mut().for_each(|o| *o /= self.sum[row]);
            store(row, o);
        }
    }
}

//! ALiBi attention by tiles of queries and keys, which skips negligible keys.
//!
//! # Skipped keys
//!
//! A work item visits the keys around its queries first, then walks outward on either side, a
//! block of keys at a time.  It stops on a side when all remaining keys there weigh less than
//! 2^`skip` of every query's sum so far.  For a query i and any vector c, the score of key j is at
//! most
//!
//! ```text
//! s_ij = q_i·k_j - m·|i - j|  ≤  q_i·c + ‖q_i‖·‖k_j - c‖ - m·|i - j|
//! ```
//!
//! by Cauchy-Schwarz, hence at most `q_i·c + ‖q_i‖·κ - m·d` at distance d, where κ is the largest
//! ‖k_j - c‖ of the remaining keys.  These are at distances D, D + 1, …, one each, so their weights
//! sum up to at most
//!
//! ```text
//! exp(q_i·c + ‖q_i‖·κ - m·D)·min(1/(1 - exp(-m)), number of remaining keys)
//! ```
//!
//! by the geometric series.  The running sum of weights only grows, so it is a lower bound of the
//! final one.  Both sides together skip at most 2·2^`skip` of a query's sum, and its output moves
//! by at most twice that times the largest |v|: with 2^`skip` = ε/2, by 2·ε·max |v|.  c is the mean
//! of the sequence's keys: adding a vector to all keys changes no weight, and should not loosen the
//! bound either.  D grows and κ falls from block to block, so a stop is final.

use super::bias_rows::BiasRows;
use super::{
    simd::{self, Simd, WithSimd},
    skip_bound::{KEYS, Rows, SkipBound},
    tile::{self, ROWS},
};
use crate::reference::{Biases, Heads, Sequence};
use rayon::prelude::*;
use std::f32::consts::LOG2_E;

/// Queries in one item of work: four vectors of the largest width.
const QUERIES: usize = 64;

/// [`reference::attention`](crate::reference::attention) by tiles, in f32.
///
/// `skip` is the binary logarithm of the share that may be skipped on either side of a query,
/// relative to its sum of weights; -∞ to skip nothing.  Returns the visited share of all pairs of a
/// query and a key; 1 if there are none.
pub fn attention(
    [q, k, v]: [Rows; 3],
    biases: Biases,
    sequences: &[Sequence],
    heads: Heads,
    skip: f32,
    context: &mut [f32],
) -> f64 {
    let tokens = sequences.last().map_or(0, |sequence| sequence.queries.end);
    let Some(d) = context.len().checked_div(tokens) else { return 1.0 };
    let e = d / heads.count;
    let tables = BiasRows::of(biases, heads.count);

    let parts: Vec<_> =
        sequences.iter().flat_map(|s| (0..heads.count).map(move |h| (&s.keys, h))).collect();
    let bounds: Vec<SkipBound> = parts
        .into_par_iter()
        .map(|(keys, h)| SkipBound::new(k.from(keys.start, h * e), keys.len(), e, skip))
        .collect();

    let mut units = Vec::new();
    let mut rest = context;
    for (Sequence { queries, keys }, bounds) in sequences.iter().zip(bounds.chunks(heads.count)) {
        for first in queries.clone().step_by(QUERIES) {
            let rows = QUERIES.min(queries.end - first);
            let begin = units.len();
            for (h, bound) in bounds.iter().enumerate() {
                units.push(WorkItem {
                    q: q.from(first, h * e),
                    k: k.from(keys.start, h * e),
                    v: v.from(keys.start, h * e),
                    e,
                    keys: keys.len(),
                    first: first - keys.start,
                    scale: heads.scale * LOG2_E,
                    slope: biases.slope(h) * LOG2_E,
                    table: tables.get(h),
                    skip,
                    bound,
                    context: Vec::with_capacity(rows),
                });
            }
            let (piece, tail) = rest.split_at_mut(rows * d);
            rest = tail;
            for row in piece.chunks_exact_mut(d) {
                for (item, piece) in units[begin..].iter_mut().zip(row.chunks_exact_mut(e)) {
                    item.context.push(piece);
                }
            }
        }
    }
    // Longest first, to balance the threads.
    units.sort_by_cached_key(|item| std::cmp::Reverse(item.estimate()));
    let all: u64 = units.iter().map(|item| (item.context.len() * item.keys) as u64).sum();
    let kept = units.into_par_iter().with_max_len(1).map(|item| {
        simd::scratch([item.e * QUERIES, KEYS * QUERIES, item.e * QUERIES], |[q, p, o]| {
            simd::widest(Tiles { item, q, p, o }) as u64
        })
    });
    let kept: u64 = kept.sum();
    if all == 0 { 1.0 } else { kept as f64 / all as f64 }
}

/// Work item: some queries of one head and sequence; scores are in units of ln 2.
struct WorkItem<'a> {
    /// Queries, from the first of the item.
    q: Rows<'a>,
    /// Keys, from the first of the sequence.
    k: Rows<'a>,
    v: Rows<'a>,
    /// E
    e: usize,
    /// Number of keys of the sequence.
    keys: usize,
    /// Position of the first query, among the keys or after them.
    first: usize,
    /// Factor of q·k.
    scale: f32,
    slope: f32,
    /// Biases in place of the slope.
    table: Option<&'a BiasRows>,
    skip: f32,
    bound: &'a SkipBound,
    /// Output, a row for each query.
    context: Vec<&'a mut [f32]>,
}

impl WorkItem<'_> {
    /// Approximate number of scores to compute: those not skipped if all keys are about equal.
    fn estimate(&self) -> usize {
        let distance = (24.0 / self.slope.max(1e-9)) as usize;
        let from = self.first.saturating_sub(distance);
        let to = self.first + self.context.len() + distance;
        self.context.len() * to.min(self.keys).saturating_sub(from).max(1)
    }
}

/// Work item with its scratch memory.
struct Tiles<'a, 'm> {
    item: WorkItem<'a>,
    q: &'m mut [f32],
    p: &'m mut [f32],
    o: &'m mut [f32],
}

impl WithSimd for Tiles<'_, '_> {
    /// Number of visited pairs of a query and a key.
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        let Self { mut item, q, p, o } = self;
        let mut row = 0;
        let mut pairs = 0;
        while row < item.context.len() {
            let left = item.context.len() - row;
            let [rows, keys] = match tile::vectors::<S>() {
                4 if left > 2 * S::F32_LANES => State::<S, 4>::run(simd, &mut item, row, [q, p, o]),
                _ => State::<S, 2>::run(simd, &mut item, row, [q, p, o]),
            };
            row += rows;
            pairs += rows * keys;
        }
        pairs
    }
}

/// Running state of V vectors of queries.
struct State<'m, S: Simd, const V: usize> {
    /// Position of the first.
    first: usize,
    /// Positions in the sequence.
    at: [S::f32s; V],
    /// q_i·c and ‖q_i‖
    bound: [[S::f32s; V]; 2],
    /// Maximum score so far.
    most: [S::f32s; V],
    /// Sum of 2^(score - most).
    sum: [S::f32s; V],
    /// \[E, queries\], scaled
    q: &'m [[S::f32s; V]],
    /// \[keys, queries\]
    p: &'m mut [[S::f32s; V]],
    /// \[E, queries\]
    o: &'m mut [[S::f32s; V]],
}

impl<S: Simd, const V: usize> State<'_, S, V> {
    /// Processes the queries from `row` on; returns their number, and the number of visited keys.
    #[inline(always)]
    fn run(simd: S, item: &mut WorkItem, row: usize, [q, p, o]: [&mut [f32]; 3]) -> [usize; 2] {
        let width = V * S::F32_LANES;
        let rows = width.min(item.context.len() - row);
        let mut at = [0.0; QUERIES];
        let mut bound = [[0.0; QUERIES]; 2];
        at.iter_mut().enumerate().for_each(|(i, at)| *at = (item.first + row + i) as f32);
        q[..item.e * width].fill(0.0);
        for i in 0..rows {
            let row = &item.q.data[(row + i) * item.q.step..][..item.e];
            for (q, x) in q[i..].iter_mut().step_by(width).zip(row) {
                *q = x * item.scale;
            }
            if !item.bound.center.is_empty() {
                let pairs = row.iter().zip(&item.bound.center);
                let (dot, norm) = pairs.fold((0.0, 0.0), |(d, n), (q, c)| (d + q * c, n + q * q));
                bound[0][i] = dot * item.scale;
                bound[1][i] = norm.sqrt() * item.scale.abs();
            }
        }
        let mut state = State::<S, V> {
            first: item.first + row,
            at: vectors::<S, V>(&at),
            bound: [vectors::<S, V>(&bound[0]), vectors::<S, V>(&bound[1])],
            most: [simd.splat_f32s(f32::MIN); V],
            sum: [simd.splat_f32s(0.0); V],
            q: S::as_simd_f32s(q).0.as_chunks().0,
            p: S::as_mut_simd_f32s(p).0.as_chunks_mut().0,
            o: S::as_mut_simd_f32s(o).0.as_chunks_mut().0,
        };
        state.o[..item.e].fill([simd.splat_f32s(0.0); V]);

        let blocks = item.keys.div_ceil(KEYS);
        // Queries after the last key begin with its block.
        let near = ((item.first + row) / KEYS).min(blocks - 1)
            ..((item.first + row + rows - 1) / KEYS + 1).min(blocks);
        let mut keys = 0;
        for block in near.clone() {
            keys += state.visit(simd, item, block);
        }
        for block in (0..near.start).rev() {
            let count = (block + 1) * KEYS;
            let norm = item.bound.before.get(block);
            if state.may_stop(simd, item, count - 1, count, norm) {
                break;
            }
            keys += state.visit(simd, item, block);
        }
        for block in near.end..blocks {
            let count = item.keys - block * KEYS;
            let norm = item.bound.behind.get(block);
            if state.may_stop(simd, item, block * KEYS, count, norm) {
                break;
            }
            keys += state.visit(simd, item, block);
        }
        let one = simd.splat_f32s(1.0);
        for o in &mut state.o[..item.e] {
            for v in 0..V {
                o[v] = simd.mul_f32s(o[v], simd.div_f32s(one, state.sum[v]));
            }
        }
        for (i, context) in item.context[row..row + rows].iter_mut().enumerate() {
            for (c, o) in context.iter_mut().zip(o[i..].iter().step_by(width)) {
                *c = *o;
            }
        }
        [rows, keys]
    }

    /// True if the weight of the `count` keys from key `next` outward is negligible; `bound` is the
    /// maximum of their distances to c.
    #[inline(always)]
    fn may_stop(
        &self,
        simd: S,
        item: &WorkItem,
        next: usize,
        count: usize,
        bound: Option<&f32>,
    ) -> bool {
        let (Some(&bound), true) = (bound, item.slope >= 0.0) else { return false };
        // 1e-5 of all terms covers rounding, here and in the scores.
        let bound = simd.splat_f32s(bound + 1e-5 * (bound + item.bound.norm));
        let next = simd.splat_f32s(next as f32);
        let slope = simd.splat_f32s(-item.slope);
        let mut weight = simd.splat_f32s(f32::MIN);
        for v in 0..V {
            let center = self.bound[0][v];
            let norm = self.bound[1][v];
            let far = simd.mul_f32s(simd.abs_f32s(simd.sub_f32s(self.at[v], next)), slope);
            let score = simd.add_f32s(simd.mul_add_e_f32s(norm, bound, center), far);
            let mass = simd.add_f32s(self.most[v], simd::floor_log2(simd, self.sum[v]));
            weight = simd.max_f32s(weight, simd.sub_f32s(score, mass));
        }
        let series = 1.0 / (1.0 - (-item.slope).exp2());
        simd.reduce_max_f32s(weight) + series.min(count as f32).log2() <= item.skip
    }

    /// Adds a block of keys and values; returns the number of keys.
    #[inline(always)]
    fn visit(&mut self, simd: S, item: &WorkItem, block: usize) -> usize {
        let first = block * KEYS;
        let keys = KEYS.min(item.keys - first);
        let slope = simd.splat_f32s(-item.slope);
        let mut most = self.most;
        for (n, p) in self.p[..keys].chunks_mut(ROWS).enumerate() {
            let j = first + n * ROWS;
            let k = &item.k.data[j * item.k.step..];
            tile::rows!(p.len(), M => {
                let mut scores = [[slope; V]; M];
                for m in 0..M {
                    if let Some(table) = item.table {
                        scores[m] = vectors::<S, V>(table.from(self.first, j + m));
                        continue;
                    }
                    let j = simd.splat_f32s((j + m) as f32);
                    for v in 0..V {
                        let far = simd.abs_f32s(simd.sub_f32s(self.at[v], j));
                        scores[m][v] = simd.mul_f32s(far, slope);
                    }
                }
                let k = tile::Along::<M>::new(k, item.k.step, item.e);
                let scores = tile::accumulate(simd, k, self.q[..item.e].iter(), scores);
                for m in 0..M {
                    p[m] = scores[m];
                    for v in 0..V {
                        most[v] = simd.max_f32s(most[v], scores[m][v]);
                    }
                }
            });
        }
        self.raise(simd, most, item.e);
        for p in &mut self.p[..keys] {
            for v in 0..V {
                p[v] = simd::exp2(simd, simd.sub_f32s(p[v], most[v]));
                self.sum[v] = simd.add_f32s(self.sum[v], p[v]);
            }
        }
        let v = &item.v.data[first * item.v.step..];
        for (n, o) in self.o[..item.e].chunks_mut(ROWS).enumerate() {
            tile::rows!(o.len(), M => {
                let v = tile::Down::<M>::new(&v[n * ROWS..], item.v.step);
                let mut sums = [o[0]; M];
                sums.copy_from_slice(o);
                o.copy_from_slice(&tile::accumulate(simd, v, self.p[..keys].iter(), sums));
            });
        }
        keys
    }

    /// Sets new maxima and rescales the sums, which are relative to the old ones.
    #[inline(always)]
    fn raise(&mut self, simd: S, most: [S::f32s; V], e: usize) {
        let mut keep = most;
        let mut least = simd.splat_f32s(1.0);
        for v in 0..V {
            keep[v] = simd::exp2(simd, simd.sub_f32s(self.most[v], most[v]));
            self.sum[v] = simd.mul_f32s(self.sum[v], keep[v]);
            least = simd.min_f32s(least, keep[v]);
        }
        self.most = most;
        if simd.reduce_min_f32s(least) < 1.0 {
            for o in &mut self.o[..e] {
                for v in 0..V {
                    o[v] = simd.mul_f32s(o[v], keep[v]);
                }
            }
        }
    }
}

/// Splits the beginning of a slice into V vectors.
#[inline(always)]
fn vectors<S: Simd, const V: usize>(x: &[f32]) -> [S::f32s; V] {
    *S::as_simd_f32s(x).0.first_chunk().expect("as many elements")
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;

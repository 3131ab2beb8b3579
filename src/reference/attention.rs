use super::{Tensors, command};
use crate::{
    kernels::attention::{Args, Params, TILE},
    recording::Command,
};
use std::ops::Range;

/// Heads of an attention layer.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// H
    pub count: usize,
    /// Factor of q·k: 1/√E.
    pub scale: f32,
}

/// Biases of the scores.
#[derive(Clone, Copy, Debug)]
pub enum Biases<'a> {
    /// A slope for each head, \[H\]: the bias is -slope·|i - j|.
    Slopes(&'a [f32]),
    /// A number for each head and distance j - i from -reach to reach, \[H, 2·reach + 1\]; farther
    /// keys have that of reach.
    Table(&'a [f32], usize),
}

impl<'a> Biases<'a> {
    /// Biases of a command.
    pub fn of_command(command: &Command, numbers: &'a [f32]) -> Self {
        let import = command.program.import("bias");
        match import.and_then(|file| file.strip_prefix("bias_")) {
            Some("table") => Self::Table(numbers, command::integer(command, "REACH")),
            _ => Self::Slopes(numbers),
        }
    }

    /// Slope of a head; 0 with a table.
    pub fn slope(self, h: usize) -> f32 {
        match self {
            Self::Slopes(slopes) => slopes[h],
            Self::Table(..) => 0.0,
        }
    }

    /// Bias of head h, query i and key j.
    fn of(self, h: usize, i: usize, j: usize) -> f64 {
        match self {
            Self::Slopes(slopes) => -f64::from(slopes[h]) * i.abs_diff(j) as f64,
            Self::Table(table, reach) => {
                let place = (j + reach).saturating_sub(i).min(2 * reach);
                f64::from(table[h * (2 * reach + 1) + place])
            }
        }
    }
}

/// Tokens that attend to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// All tokens, as queries.
    pub queries: Range<usize>,
    /// Keys: the first tokens, at least one.
    pub keys: Range<usize>,
}

/// `context = softmax(q·kᵀ·scale + b_hij)·v` within each sequence; the definition that
/// `shaders/attention.wgsl` must match.
///
/// q, k, v, context: \[T, D\], D = H·E; i runs over a sequence's queries, j over its
/// keys.  Scores are of one query at a time: memory is linear in the longest sequence.
pub fn attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    biases: Biases,
    sequences: &[Sequence],
    heads: Heads,
    context: &mut [f32],
) {
    let tokens = sequences.last().map_or(0, |sequence| sequence.queries.end);
    let d = q.len().checked_div(tokens).unwrap_or(0);
    let e = d / heads.count;
    for Sequence { queries, keys } in sequences {
        for h in 0..heads.count {
            let at = |t: usize| t * d + h * e..t * d + h * e + e;
            for i in queries.clone() {
                let scores: Vec<f64> = keys
                    .clone()
                    .map(|j| {
                        let dot = dot(&q[at(i)], &k[at(j)]);
                        dot * f64::from(heads.scale) + biases.of(h, i, j)
                    })
                    .collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
                let sum: f64 = weights.iter().sum();

                let mut o = vec![0.0; e];
                for (j, p) in keys.clone().zip(&weights) {
                    for (o, &v) in o.iter_mut().zip(&v[at(j)]) {
                        *o += p / sum * f64::from(v);
                    }
                }
                for (c, o) in context[at(i)].iter_mut().zip(o) {
                    *c = o as f32;
                }
            }
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Runs a command of this kernel.
pub(super) fn run(command: &Command, tensors: &mut Tensors) {
    store_context(command, tensors, |all, args, sequences, heads, context| {
        let [q, k, v] = [args.q, args.k, args.v].map(|tensor| all.dense(tensor));
        let biases = Biases::of_command(command, all.f32(args.biases));
        attention(&q, &k, &v, biases, sequences, heads, context);
    });
}

/// Calls `compute` for all sequences of a command, and keeps the rows of the command's own tiles.
/// CPU engines set no limit, but a recording may have been split for another engine.
pub fn store_context<R>(
    command: &Command,
    tensors: &mut Tensors,
    compute: impl FnOnce(&Tensors, &Args, &[Sequence], Heads, &mut [f32]) -> R,
) -> R {
    let args = Args::from(command);
    let params: Params = command.params();
    let heads = Heads { count: params.heads as usize, scale: params.scale };
    tensors.store(args.context, |all, context| {
        let list = all.u32(args.tiles);
        let sequences = sequences(list);
        let tiles = tiles(list, |[_, end, ..]| end);
        let own = params.first as usize..params.tiles as usize;
        if own == (0..tiles.len()) {
            return compute(all, &args, &sequences, heads, context);
        }
        let mut whole = vec![0.0; context.len()];
        let result = compute(all, &args, &sequences, heads, &mut whole);
        for tile in &tiles[own] {
            let d = args.context.shape2()[1] as usize;
            let rows = tile.start * d..tile.end * d;
            context[rows.clone()].copy_from_slice(&whole[rows]);
        }
        result
    })
}

/// Token range of each entry of a tile list, up to its `end`.
pub(super) fn tiles(list: &[u32], end: impl Fn([u32; 4]) -> u32) -> Vec<Range<usize>> {
    let entries = list.as_chunks().0.iter();
    let range = |&tile: &[u32; 4]| {
        let [first, ..] = tile;
        first as usize..end(tile).min(first + TILE).max(first) as usize
    };
    entries.map(range).collect()
}

/// Sequences covered by a tile list.
fn sequences(list: &[u32]) -> Vec<Sequence> {
    let first = list.as_chunks().0.iter().filter(|[first, _, start, _]| first == start);
    let sequence = |&[first, end, _, keys]: &[u32; 4]| {
        let [first, end, keys] = [first, end, keys].map(|token| token as usize);
        Sequence { queries: first..end, keys: first..keys }
    };
    first.map(sequence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(tokens: Range<usize>) -> Sequence {
        Sequence { queries: tokens.clone(), keys: tokens }
    }

    #[test]
    fn by_hand() {
        // One head of width 1.  Sequence 0: two tokens whose scores differ only by the bias ln 3,
        // so weights 3:1. Sequence 1: a single token, whose context is its own value.
        let q = [0.0; 3];
        let k = [1.0; 3];
        let v = [4.0, 8.0, 5.0];
        let mut context = [0.0; 3];
        let heads = Heads { count: 1, scale: 1.0 };
        attention(
            &q,
            &k,
            &v,
            Biases::Slopes(&[3f32.ln()]),
            &[whole(0..2), whole(2..3)],
            heads,
            &mut context,
        );
        assert!((context[0] - 5.0).abs() < 1e-6 && (context[1] - 7.0).abs() < 1e-6);
        assert_eq!(context[2], 5.0);
    }

    #[test]
    fn query_only_tokens_attend_but_are_not_attended_to() {
        // Token 2 is ln 3 further from token 0 than from token 1, and is query-only.
        let q = [0.0; 3];
        let k = [1.0; 3];
        let v = [4.0, 8.0, f32::NAN];
        let mut context = [0.0; 3];
        let heads = Heads { count: 1, scale: 1.0 };
        let sequence = Sequence { queries: 0..3, keys: 0..2 };
        attention(&q, &k, &v, Biases::Slopes(&[3f32.ln()]), &[sequence], heads, &mut context);
        assert!(context.iter().zip([5.0, 7.0, 7.0]).all(|(c, e)| (c - e).abs() < 1e-6));
    }

    #[test]
    fn a_table_has_a_bias_for_each_distance() {
        // Keys before the query weigh 3, those after it 2, farther ones as the farthest.
        let table = [3f32.ln(), 0.0, 2f32.ln()];
        let v = [4.0, 8.0, 5.0];
        let mut context = [0.0; 3];
        let heads = Heads { count: 1, scale: 1.0 };
        let biases = Biases::Table(&table, 1);
        attention(&[0.0; 3], &[1.0; 3], &v, biases, &[whole(0..3)], heads, &mut context);
        let expected = [30.0 / 5.0, 30.0 / 6.0, 41.0 / 7.0];
        assert!(context.iter().zip(expected).all(|(c, e)| (c - e).abs() < 1e-6), "{context:?}");
    }

    #[test]
    fn weights_sum_to_one() {
        let q: Vec<f32> = (0..40).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
        let mut context = vec![0.0; 40];
        let heads = Heads { count: 2, scale: 0.5 };
        attention(
            &q,
            &q,
            &[1.0; 40],
            Biases::Slopes(&[0.5, 0.25]),
            &[whole(0..10)],
            heads,
            &mut context,
        );
        assert!(context.iter().all(|c| (c - 1.0).abs() < 1e-6));
    }
}

//! Packed batches of token lists: no padding, a token budget, longest first.

use std::ops::Range;

/// Adapter of a task in a model: the index among its adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Adapter(pub(crate) u32);

/// Input of the model for one sequence, special tokens included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Vocabulary ids.
    pub ids: Vec<u32>,
    /// Segment of each token: 0, or 1 for the second text of a pair.
    pub type_ids: Vec<u32>,
    /// Number of query-only tokens at the end: they attend to the other tokens, but no token
    /// attends to them, themselves included.  ColBERT pads queries with them.
    pub query_only: usize,
    /// Adapter of the sequence's task; none for the weights as they are.
    pub adapter: Option<Adapter>,
}

impl Tokens {
    /// Creates tokens of a single segment.
    pub fn new(ids: Vec<u32>) -> Self {
        Self { type_ids: vec![0; ids.len()], ids, ..Self::default() }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True if there is no token at all, not even a special one.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// Sequences laid end to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedBatch {
    /// \[T\]
    pub ids: Vec<u32>,
    /// \[T\]
    pub type_ids: Vec<u32>,
    /// \[B+1\]: first token of each sequence, and T.
    pub cu_seqlens: Vec<u32>,
    /// \[B\]: number of keys of each sequence, its first tokens.
    pub keys: Vec<u32>,
    /// \[B\]: adapter of each sequence.
    pub adapters: Vec<Option<Adapter>>,
    /// Spans to pool: first token and end, exclusive.
    pub spans: Vec<[u32; 2]>,
}

impl PackedBatch {
    /// Packs sequences in the given order, each as one span.  Each must have at least one key.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a Tokens>) -> Self {
        let mut batch = Self { cu_seqlens: vec![0], ..Self::default() };
        for tokens in sequences {
            assert!(tokens.query_only < tokens.len(), "a sequence without tokens has no vector");
            batch.ids.extend_from_slice(&tokens.ids);
            batch.type_ids.extend_from_slice(&tokens.type_ids);
            batch.cu_seqlens.push(batch.ids.len() as u32);
            batch.keys.push((tokens.len() - tokens.query_only) as u32);
            batch.adapters.push(tokens.adapter);
        }
        batch.spans = batch.cu_seqlens.windows(2).map(|range| [range[0], range[1]]).collect();
        batch
    }

    /// Replaces the spans by these of each sequence, relative to its first token, in order.  None
    /// may be empty or pass the end of its sequence.
    pub fn with_spans<'a>(mut self, spans: impl IntoIterator<Item = &'a [Range<u32>]>) -> Self {
        let sequences = self.cu_seqlens.windows(2).zip(spans);
        let spans = sequences.flat_map(|(range, spans)| {
            spans.iter().map(move |span| {
                let [start, end] = [span.start, span.end].map(|token| range[0] + token);
                assert!(start < end && end <= range[1], "span {span:?} of {range:?}");
                [start, end]
            })
        });
        self.spans = spans.collect();
        self
    }

    /// True if a sequence has an adapter.
    pub fn is_adapted(&self) -> bool {
        self.adapters.iter().any(Option::is_some)
    }

    /// T
    pub fn tokens(&self) -> u32 {
        self.ids.len() as u32
    }

    /// B
    pub fn sequences(&self) -> u32 {
        self.cu_seqlens.len() as u32 - 1
    }
}

/// Splits sequences of the given lengths into batches of at most `budget` tokens, longest first.
///
/// Returns indices.  A sequence over the budget gets a batch of its own.
pub fn make_batches(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&n| std::cmp::Reverse(lengths[n])); // stable: equal lengths keep their order
    split(order, |n| lengths[n], budget)
}

/// As [`make_batches`], of sequences in the given order.
pub fn split(
    order: impl IntoIterator<Item = usize>,
    length: impl Fn(usize) -> usize,
    budget: usize,
) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    for n in order {
        match batches.last_mut() {
            Some(batch) if length(n) <= room => {
                room -= length(n);
                batch.push(n);
            }
            _ => {
                room = budget.saturating_sub(length(n));
                batches.push(vec![n]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_by_hand() {
        let a = Tokens::new(vec![7, 8]);
        let b = Tokens { type_ids: vec![1], ..Tokens::new(vec![9]) };
        let batch = PackedBatch::new([&a, &b]);
        assert_eq!(batch.ids, [7, 8, 9]);
        assert_eq!(batch.type_ids, [0, 0, 1]);
        assert_eq!((&batch.cu_seqlens[..], &batch.keys[..]), (&[0, 2, 3][..], &[2, 1][..]));
        assert_eq!((batch.tokens(), batch.sequences()), (3, 2));
        assert_eq!(batch.spans, [[0, 2], [2, 3]]);
        let chunks: [&[Range<u32>]; 2] = [&[1..2, 0..2], &[0..1, 0..1]];
        let batch = batch.with_spans(chunks);
        assert_eq!(batch.spans, [[1, 2], [0, 2], [2, 3], [2, 3]]);
    }

    #[test]
    fn the_last_tokens_may_be_queries_only() {
        let tokens = Tokens { query_only: 2, ..Tokens::new(vec![7, 8, 4, 4]) };
        let batch = PackedBatch::new([&tokens, &Tokens::new(vec![7])]);
        assert_eq!((&batch.cu_seqlens[..], &batch.keys[..]), (&[0, 4, 5][..], &[2, 1][..]));
        assert_eq!(batch.spans, [[0, 4], [4, 5]]);
    }

    #[test]
    fn batches_are_within_the_budget_and_in_order() {
        let lengths = [3, 9, 3, 1, 4];
        assert_eq!(make_batches(&lengths, 8), [vec![1], vec![4, 0], vec![2, 3]]);
        assert!(make_batches(&[], 8).is_empty());
        assert_eq!(split([3, 1, 4, 0], |n| lengths[n], 8), [vec![3], vec![1], vec![4, 0]]);
    }
}

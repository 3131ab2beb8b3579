//! From token lists to packed batches: no padding, a token budget, longest first.

use std::ops::Range;

/// One sequence as the model reads it, special tokens included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Vocabulary ids.
    pub ids: Vec<u32>,
    /// Segment of each token: 0, or 1 for the second text of a pair.
    pub type_ids: Vec<u32>,
}

impl Tokens {
    /// A single segment.
    pub fn new(ids: Vec<u32>) -> Self {
        Self { type_ids: vec![0; ids.len()], ids }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no token at all, not even a special one.
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
    /// What is pooled: the first token of each span, and the one behind its last.
    pub spans: Vec<[u32; 2]>,
}

impl PackedBatch {
    /// Lays out sequences in the order given, each its own span.  None may be empty.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a Tokens>) -> Self {
        let mut batch = Self { cu_seqlens: vec![0], ..Self::default() };
        for tokens in sequences {
            assert!(!tokens.is_empty(), "a sequence without tokens has no vector");
            batch.ids.extend_from_slice(&tokens.ids);
            batch.type_ids.extend_from_slice(&tokens.type_ids);
            batch.cu_seqlens.push(batch.ids.len() as u32);
        }
        batch.spans = batch.cu_seqlens.windows(2).map(|range| [range[0], range[1]]).collect();
        batch
    }

    /// Has these spans of each sequence instead, counted from its first token, in that order.  None
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

    /// T
    pub fn tokens(&self) -> u32 {
        self.ids.len() as u32
    }

    /// B
    pub fn sequences(&self) -> u32 {
        self.cu_seqlens.len() as u32 - 1
    }
}

/// Sequence and first query of every tile of at most `height` queries: the work list of
/// `attention`.
pub fn tiles(cu_seqlens: &[u32], height: u32) -> Vec<[u32; 2]> {
    let mut tiles = Vec::new();
    for (sequence, range) in cu_seqlens.windows(2).enumerate() {
        let starts = (range[0]..range[1]).step_by(height as usize);
        tiles.extend(starts.map(|first| [sequence as u32, first]));
    }
    tiles
}

/// For every tile of [`tiles`], how many keys its queries face: those of its sequence.
pub fn tile_keys(cu_seqlens: &[u32], height: u32) -> Vec<u32> {
    let lengths = cu_seqlens.windows(2).map(|range| range[1] - range[0]);
    lengths.flat_map(|n| std::iter::repeat_n(n, n.div_ceil(height) as usize)).collect()
}

/// Splits sequences of the given lengths into batches of at most `budget` tokens, longest first.
///
/// Returns positions.  A sequence over the budget gets a batch of its own.
pub fn plan(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&n| std::cmp::Reverse(lengths[n])); // stable: equal lengths keep their order
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    for n in order {
        match batches.last_mut() {
            Some(batch) if lengths[n] <= room => {
                room -= lengths[n];
                batch.push(n);
            }
            _ => {
                room = budget.saturating_sub(lengths[n]);
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
        let (a, b) = (Tokens::new(vec![7, 8]), Tokens { ids: vec![9], type_ids: vec![1] });
        let batch = PackedBatch::new([&a, &b]);
        assert_eq!(batch.ids, [7, 8, 9]);
        assert_eq!(batch.type_ids, [0, 0, 1]);
        assert_eq!(batch.cu_seqlens, [0, 2, 3]);
        assert_eq!((batch.tokens(), batch.sequences()), (3, 2));
        assert_eq!(batch.spans, [[0, 2], [2, 3]]);
        let chunks: [&[Range<u32>]; 2] = [&[1..2, 0..2], &[0..1, 0..1]];
        let batch = batch.with_spans(chunks);
        assert_eq!(batch.spans, [[1, 2], [0, 2], [2, 3], [2, 3]]);
    }

    #[test]
    fn tiles_cover_each_sequence_alone() {
        assert_eq!(tiles(&[0, 5, 6, 14], 4), [[0, 0], [0, 4], [1, 5], [2, 6], [2, 10]]);
        assert!(tiles(&[0], 4).is_empty());
        assert_eq!(tile_keys(&[0, 5, 6, 14], 4), [5, 5, 1, 8, 8]);
    }

    #[test]
    fn plans_are_longest_first_within_the_budget() {
        assert_eq!(plan(&[3, 9, 3, 1, 4], 8), [vec![1], vec![4, 0], vec![2, 3]]);
        assert!(plan(&[], 8).is_empty());
    }
}

//! Host steps after the encoder: poolings that need every token, and the modules of a model.

use super::{EncodeOptions, Pooling};
use crate::model::{Modules, normalize};
use std::ops::Range;

impl Pooling {
    /// Tokens that count, of a text of `tokens`.
    pub(super) fn span(self, tokens: usize) -> Range<usize> {
        match self {
            Self::Cls => 0..1.min(tokens),
            Self::Last => tokens.saturating_sub(1)..tokens,
            _ => 0..tokens,
        }
    }

    /// The same pooling, if the host does it.
    pub(super) fn on_host(self) -> Option<HostPooling> {
        match self {
            Self::Max => Some(HostPooling::Max),
            Self::WeightedMean => Some(HostPooling::WeightedMean),
            Self::MeanSqrtLen => Some(HostPooling::MeanSqrtLen),
            Self::Auto | Self::Mean | Self::Cls | Self::Last => None,
        }
    }
}

/// Pooling on the host, from the outputs of all tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostPooling {
    Max,
    WeightedMean,
    MeanSqrtLen,
}

impl HostPooling {
    /// Part of a text's vector, from the outputs \[t, width\] of some
    /// of the text's `tokens`, the first of them at index `first`.
    pub(super) fn part(self, rows: &[f32], width: usize, first: usize, tokens: usize) -> Vec<f32> {
        let column = |n: usize| rows[n..].iter().step_by(width).map(|x| f64::from(*x));
        let count = tokens as f64;
        let of = |n: usize| match self {
            Self::Max => column(n).fold(f64::NEG_INFINITY, f64::max),
            Self::WeightedMean => {
                let weighted = column(n).zip(first + 1..).map(|(x, t)| x * t as f64);
                weighted.sum::<f64>() / (count * (count + 1.0) / 2.0)
            }
            Self::MeanSqrtLen => column(n).sum::<f64>() / count.sqrt(),
        };
        (0..width).map(|n| of(n) as f32).collect()
    }

    /// Joins a part to those before it; the vector is empty before the first.
    pub(super) fn join(self, vector: &mut Vec<f32>, part: Vec<f32>) {
        if vector.is_empty() {
            *vector = part;
            return;
        }
        for (x, part) in vector.iter_mut().zip(part) {
            *x = if self == Self::Max { x.max(part) } else { *x + part };
        }
    }
}

impl Modules {
    /// Applies the modules to a pooled vector, then cuts and normalises it as a call wants.
    pub(super) fn ready(&self, pooled: Vec<f32>, options: EncodeOptions) -> Vec<f32> {
        let mut vector = self.apply(pooled);
        vector.truncate(options.dimensions);
        if options.normalize {
            normalize(&mut vector);
        }
        vector
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poolings_by_hand() {
        let rows = [1.0, -4.0, 3.0, 2.0, 2.0, -1.0, 6.0, 1.0];
        for (pooling, expected) in [
            (HostPooling::Max, [6.0, 2.0]),
            (HostPooling::WeightedMean, [3.7, 0.1]),
            (HostPooling::MeanSqrtLen, [6.0, -1.0]),
        ] {
            assert_eq!(pooling.part(&rows, 2, 0, 4), expected, "{pooling:?}");
            let mut joined = Vec::new();
            for (first, rows) in [(0, &rows[..2]), (1, &rows[2..6]), (3, &rows[6..])] {
                pooling.join(&mut joined, pooling.part(rows, 2, first, 4));
            }
            let close = |(a, b): (&f32, f32)| (a - b).abs() < 1e-6;
            assert!(joined.iter().zip(expected).all(close), "{pooling:?}: {joined:?}");
        }
    }
}

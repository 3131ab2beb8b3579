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

    /// True if the host pools.
    pub(super) fn is_on_host(self) -> bool {
        matches!(self, Self::Max | Self::WeightedMean | Self::MeanSqrtLen)
    }

    /// Vector of a text's token outputs, \[T, width\].
    pub(super) fn of_rows(self, rows: &[f32], width: usize) -> Vec<f32> {
        let count = rows.len() / width;
        let column = |n: usize| rows[n..].iter().step_by(width).map(|x| f64::from(*x));
        let of = |n: usize| match self {
            Self::Max => column(n).fold(f64::NEG_INFINITY, f64::max),
            Self::WeightedMean => {
                let sum: f64 = column(n).zip(1..).map(|(x, t)| x * f64::from(t)).sum();
                sum / (count * (count + 1) / 2) as f64
            }
            Self::MeanSqrtLen => column(n).sum::<f64>() / (count as f64).sqrt(),
            Self::Cls => f64::from(rows[n]),
            Self::Last => f64::from(rows[rows.len() - width + n]),
            Self::Auto | Self::Mean => column(n).sum::<f64>() / count as f64,
        };
        (0..width).map(|n| of(n) as f32).collect()
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
            (Pooling::Max, [6.0, 2.0]),
            (Pooling::WeightedMean, [3.7, 0.1]),
            (Pooling::MeanSqrtLen, [6.0, -1.0]),
            (Pooling::Cls, [1.0, -4.0]),
            (Pooling::Last, [6.0, 1.0]),
            (Pooling::Mean, [3.0, -0.5]),
        ] {
            assert_eq!(pooling.of_rows(&rows, 2), expected, "{pooling}");
        }
    }
}

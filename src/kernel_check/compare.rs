//! Comparison of a device's results with the CPU reference.

use crate::recording::Format;
use std::fmt;

/// Allowed difference between a device and the reference.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Absolute part.
    pub atol: f32,
    /// Part relative to the reference's value.
    pub rtol: f32,
}

impl Tolerance {
    /// Adds the rounding of an output of a format: half a unit in the last place of f16 is 2⁻¹¹ of
    /// the value, and at least 2⁻²⁵.
    pub(super) fn rounded_to(self, output: Format) -> Self {
        let half = if output.half() { 1.0 } else { 0.0 };
        let atol = self.atol + half / (1 << 24) as f32;
        Self { atol, rtol: self.rtol + half / 2048.0 }
    }
}

/// Result of a comparison with the reference.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Largest absolute difference.
    pub error: f32,
    /// Number of elements outside the tolerance.
    pub wrong: usize,
    /// Number of elements compared.
    pub total: usize,
    /// The ten largest errors: index, computed, expected.
    pub worst: Vec<(usize, f32, f32)>,
}

/// Compares element by element; values that are not finite are wrong.
pub fn compare(
    actual: &[f32],
    expected: &[f32],
    Tolerance { atol, rtol }: Tolerance,
) -> Comparison {
    assert_eq!(actual.len(), expected.len(), "elements");
    let off = |a: f32, e: f32| if a.is_finite() { (a - e).abs() } else { f32::INFINITY };
    let pairs = || actual.iter().zip(expected).map(|(&a, &e)| (a, e)).enumerate();
    let wrong = pairs().filter(|(_, (a, e))| off(*a, *e) > atol + rtol * e.abs()).count();
    let error = pairs().map(|(_, (a, e))| off(a, e)).fold(0.0, f32::max);
    let mut worst: Vec<_> = pairs().map(|(n, (a, e))| (n, a, e)).collect();
    worst.sort_by(|x, y| off(y.1, y.2).total_cmp(&off(x.1, x.2)));
    worst.truncate(10);
    Comparison { error, wrong, total: actual.len(), worst }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} elements wrong, max |Δ| {:.3e}", self.wrong, self.total, self.error)?;
        if self.wrong > 0 {
            for (n, actual, expected) in &self.worst {
                write!(f, "\n  [{n}]: expected {expected:?}, got {actual:?}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_counts_what_is_not_finite() {
        let tolerance = Tolerance { atol: 0.1, rtol: 0.0 };
        let checked = compare(&[1.0, f32::NAN, 3.2], &[1.05, 2.0, 3.0], tolerance);
        assert_eq!((checked.wrong, checked.worst[0].0, checked.worst[1].0), (2, 1, 2));
    }
}

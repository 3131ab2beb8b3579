//! ALiBi head slopes: attention with linear biases.

/// Slope of each head, in head order (Press et al. 2022, arXiv:2108.12409, section 3 and its code).
///
/// For a power of two, slope h is 2^(-8(h+1)/H).  Otherwise the slopes of the next lower power of
/// two come first, then every other one of the next higher, as many as are missing: 12 heads have
/// 2⁻¹…2⁻⁸ and then 2^-0.5, 2^-1.5, 2^-2.5, 2^-3.5.
pub fn slopes(heads: usize) -> Vec<f32> {
    let geometric = |n: usize| (1..=n).map(move |h| (-8.0 * h as f64 / n as f64).exp2() as f32);
    if heads.is_power_of_two() {
        return geometric(heads).collect();
    }
    let below = heads.next_power_of_two() / 2;
    geometric(below).chain(geometric(2 * below).step_by(2)).take(heads).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two() {
        assert_eq!(slopes(8), [1, 2, 3, 4, 5, 6, 7, 8].map(|n| 0.5f32.powi(n)));
        assert_eq!(slopes(1), [0.5f32.powi(8)]);
        assert_eq!(slopes(16)[..2], [0.5f32.sqrt(), 0.5]);
    }

    #[test]
    fn twelve_heads() {
        let expected: Vec<f32> = (1..=8)
            .map(|n| 0.5f64.powi(n))
            .chain([0.5, 1.5, 2.5, 3.5].map(|n: f64| (-n).exp2()))
            .map(|slope| slope as f32)
            .collect();
        assert_eq!(slopes(12), expected);
    }
}

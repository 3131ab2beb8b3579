//! Random choices from a list of numbers.

use std::{ops::Range, slice};

/// Choices from given numbers: the same numbers give the same choices, and smaller numbers smaller
/// ones, so a property test that shrinks the numbers shrinks the case drawn from them.  When the
/// numbers are used up, each choice is the smallest.
pub struct Choices<'a>(slice::Iter<'a, u32>);

impl<'a> Choices<'a> {
    /// Choices from `numbers`, each uniform in the whole range of its type.
    pub fn new(numbers: &'a [u32]) -> Self {
        Self(numbers.iter())
    }

    fn next(&mut self) -> u32 {
        self.0.next().copied().unwrap_or(0)
    }

    /// A number of a range.
    pub fn integer(&mut self, range: Range<u32>) -> u32 {
        let span = u64::from(range.end - range.start);
        range.start + ((u64::from(self.next()) * span) >> 32) as u32
    }

    /// A number of a range.
    pub fn float(&mut self, range: Range<f32>) -> f32 {
        range.start + (range.end - range.start) * (self.next() as f32 / 2f32.powi(32))
    }

    /// True or false.
    pub fn flag(&mut self) -> bool {
        self.integer(0..2) == 1
    }

    /// One of some values.
    pub fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.integer(0..values.len() as u32) as usize]
    }

    /// A list of numbers of a range, whose length is of another range.
    pub fn list(&mut self, length: Range<u32>, range: Range<u32>) -> Vec<u32> {
        let length = self.integer(length);
        (0..length).map(|_| self.integer(range.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_cover_their_range_and_end_with_the_smallest() {
        let mut choices = Choices::new(&[0, u32::MAX, 1 << 31, u32::MAX]);
        assert_eq!(choices.integer(3..7), 3);
        assert_eq!(choices.integer(3..7), 6);
        assert_eq!(choices.one_of(&['a', 'b']), 'b');
        assert!(choices.flag());
        assert_eq!(choices.list(1..9, 5..6), [5]);
    }
}

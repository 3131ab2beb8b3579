//! Biases of a table, in the order in which attention reads them.

use crate::reference::Biases;
use std::f32::consts::LOG2_E;

/// Most queries that are read at once.
const QUERIES: usize = 64;

/// Biases of one head in units of ln 2, by the distance i - j: those of consecutive queries and one
/// key are consecutive.  The ends are repeated, so that every row of queries is inside.
pub struct BiasRows {
    numbers: Vec<f32>,
    reach: usize,
}

impl BiasRows {
    /// Rows of every head; none for slopes.
    pub fn of(biases: Biases, heads: usize) -> Vec<Self> {
        let Biases::Table(table, reach) = biases else { return Vec::new() };
        let rows = table.chunks_exact(2 * reach + 1).take(heads).map(|row| {
            // The table has keys after the query last.
            let place = |n: usize| (2 * reach + QUERIES).saturating_sub(n).min(2 * reach);
            let numbers = (0..2 * (reach + QUERIES) + 1).map(|n| row[place(n)] * LOG2_E);
            Self { numbers: numbers.collect(), reach }
        });
        rows.collect()
    }

    /// Biases of key j and the queries from i on.
    #[inline(always)]
    pub fn from(&self, i: usize, j: usize) -> &[f32] {
        let most = 2 * self.reach + QUERIES;
        let place = (i + self.reach + QUERIES).saturating_sub(j).min(most);
        &self.numbers[place..]
    }
}

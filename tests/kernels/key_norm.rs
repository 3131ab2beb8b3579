use super::Suite;
use jinabert::probe::Problem;
use proptest::{collection::vec, prelude::*, sample::select};

pub fn suite() -> Suite {
    let problem = |(lengths, heads, e)| Problem::KeyNorm { lengths, heads, e };
    Suite {
        hard: [
            (vec![1], 1, 64),
            (vec![1, 63, 64, 65, 128, 129], 12, 8),
            (vec![700, 2], 3, 128),
            (vec![1; 300], 2, 16),
        ]
        .map(problem)
        .into(),
        any: (vec(1..200u32, 1..6), 1..5u32, select(vec![4u32, 8, 20, 48, 64, 128]))
            .prop_map(problem)
            .boxed(),
        invariants: vec![],
    }
}

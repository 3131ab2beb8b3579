use super::Suite;
use jinabert::kernel_check::KernelCase;
use proptest::{collection::vec, prelude::*, sample::select};

pub fn suite() -> Suite {
    let case =
        |(lengths, query_only, heads, e)| KernelCase::KeyNorm { lengths, query_only, heads, e };
    Suite {
        hard: [
            (vec![1], 0, 1, 64),
            (vec![1, 63, 64, 65, 128, 129], 0, 12, 8),
            (vec![1, 63, 64, 65, 128, 129], 64, 12, 8), // tiles without any key
            (vec![700, 2], 0, 3, 128),
            (vec![1; 300], 0, 2, 16),
        ]
        .map(case)
        .into(),
        any: (vec(1..200u32, 1..6), 0..90u32, 1..5u32, select(vec![4u32, 8, 20, 48, 64, 128]))
            .prop_map(case)
            .boxed(),
        invariants: vec![],
    }
}

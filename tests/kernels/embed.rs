use super::Suite;
use jinabert::kernel_check::KernelCase;
use proptest::prelude::*;

pub fn suite() -> Suite {
    let case = |(t, d, vocab, parts)| KernelCase::Embed { t, d, vocab, parts };
    Suite {
        hard: [(1, 32, 5, 1), (37, 768, 300, 3), (513, 64, 1000, 7), (70_001, 32, 400, 1)]
            .map(case)
            .into(),
        any: (1..200u32, 1..40u32, 1..500u32, 1..4u32)
            .prop_map(move |(t, d4, vocab, parts)| case((t, 4 * d4, vocab, parts)))
            .boxed(),
        invariants: vec![],
    }
}

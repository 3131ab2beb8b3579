use super::Suite;
use jinabert::probe::Problem;
use proptest::prelude::*;

pub fn suite() -> Suite {
    let problem = |(t, d, vocab, parts)| Problem::Embed { t, d, vocab, parts };
    Suite {
        hard: [(1, 32, 5, 1), (37, 768, 300, 3), (513, 64, 1000, 7), (70_001, 32, 400, 1)]
            .map(problem)
            .into(),
        any: (1..200u32, 1..40u32, 1..500u32, 1..4u32)
            .prop_map(move |(t, d4, vocab, parts)| problem((t, 4 * d4, vocab, parts)))
            .boxed(),
        invariants: vec![],
    }
}

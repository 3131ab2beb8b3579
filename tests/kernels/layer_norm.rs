use super::Suite;
use jinabert::probe::Problem;
use proptest::prelude::*;

pub fn suite() -> Suite {
    let problem = |(t, d, residual, shift)| Problem::LayerNorm { t, d, residual, shift };
    Suite {
        hard: [
            (1, 512, true, 0.0),
            (37, 768, true, 0.0),
            (5, 20, false, 0.0),
            (33, 1024, false, 0.0),
            (9, 384, true, 1000.0), // a one-pass variance loses all digits here
            (70_001, 32, true, 0.0),
        ]
        .map(problem)
        .into(),
        any: (1..100u32, 1..300u32, any::<bool>(), -50.0..50f32)
            .prop_map(move |(t, d4, residual, shift)| problem((t, 4 * d4, residual, shift)))
            .boxed(),
        invariants: vec![],
    }
}

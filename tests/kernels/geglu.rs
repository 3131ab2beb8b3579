use super::Suite;
use jinabert::{probe::Problem, reference::Activation};
use proptest::prelude::*;

pub fn suite() -> Suite {
    let problem = |(t, f, gate_first, activation)| Problem::Geglu { t, f, gate_first, activation };
    let activations = || prop_oneof![Just(Activation::Gelu), Just(Activation::Relu)];
    Suite {
        hard: [
            (1, 4, true, Activation::Gelu),
            (37, 3072, true, Activation::Gelu),
            (37, 3072, true, Activation::Relu),
            (65, 100, false, Activation::Gelu),
            (65, 100, false, Activation::Relu),
            (70_001, 64, true, Activation::Gelu),
        ]
        .map(problem)
        .into(),
        any: (1..100u32, 1..200u32, any::<bool>(), activations())
            .prop_map(move |(t, f4, first, activation)| problem((t, 4 * f4, first, activation)))
            .boxed(),
        invariants: vec![],
    }
}

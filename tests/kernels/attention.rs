use super::Suite;
use jinabert::probe::Problem;
use proptest::{collection::vec, prelude::*, sample::select};

pub fn suite() -> Suite {
    let problem = |(lengths, heads, e, sharpness): (&[u32], u32, u32, f32)| Problem::Attention {
        lengths: lengths.to_vec(),
        heads,
        e,
        sharpness,
    };
    Suite {
        hard: [
            (&[1][..], 1, 64, 1.0),
            (&[1, 2, 31, 32, 33, 63, 64, 65], 12, 8, 1.0),
            (&[129, 1, 7], 3, 64, 1.0),
            (&[300], 8, 48, 1.0),
            (&[257, 65], 2, 32, 30.0), // scores far apart: softmax is nearly a maximum
            (&[100, 28], 2, 16, 100.0),
            (&[70, 5], 1, 128, 1.0),
            (&[1; 700], 3, 8, 1.0),
        ]
        .map(problem)
        .into(),
        any: (vec(1..140u32, 1..6), 1..5u32, select(vec![4u32, 8, 20, 48, 64, 128]), 0.0..40f32)
            .prop_map(|(lengths, heads, e, sharpness)| Problem::Attention {
                lengths,
                heads,
                e,
                sharpness,
            })
            .boxed(),
        invariants: vec![],
    }
}

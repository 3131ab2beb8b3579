use super::{Suite, run};
use jinabert::{
    kernels::{Tier, attention},
    probe::Problem,
    recording::{Engine, Recording},
};
use libtest_mimic::Failed;
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
        invariants: vec![("weights sum to 1", weights)],
    }
}

/// Where every value is 1, so is every context.
fn weights(engine: &mut dyn Engine, tier: Tier) -> Result<(), Failed> {
    let problem = Problem::Attention { lengths: vec![150, 3], heads: 3, e: 16, sharpness: 5.0 };
    let recorded = problem.record(engine, tier, 3)?;
    let ones = engine.upload([153, 48].into(), &[1.0; 153 * 48])?;
    let args = attention::Args::from(&recorded.recording.commands[0]);
    let kernel = attention::kernel(attention::Spec::new(tier, 16));
    let mut recording = Recording::new();
    attention::record(&mut recording, &kernel, attention::Args { v: &ones, ..args });
    let context = run(engine, &recording, &recorded.output)?;
    match context.iter().find(|c| c.is_nan() || (**c - 1.0).abs() > 2e-6) {
        None => Ok(()),
        Some(c) => Err(format!("a context of {c}").into()),
    }
}

use super::{Suite, run};
use jinabert::{
    kernels::{Tier, geglu},
    probe::Problem,
    recording::{Engine, Recording},
    reference::Activation,
};
use libtest_mimic::Failed;
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
        invariants: vec![("gelu is within its stated error", gelu)],
    }
}

/// `shaders/lib/gelu.wgsl` promises |gelu - exact| ≤ 4e-7·max(1, |x|) on [-12, 12].
fn gelu(engine: &mut dyn Engine, _: Tier) -> Result<(), Failed> {
    const ROWS: u32 = 1000;
    let x: Vec<f32> = (0..12 * ROWS).map(|n| n as f32 / 500.0 - 12.0).collect();
    // Rows of 12 gates, then 12 ones.
    let gate_up: Vec<f32> =
        x.chunks_exact(12).flat_map(|row| row.iter().copied().chain([1.0; 12])).collect();
    let gate_up = engine.upload([ROWS, 24].into(), &gate_up)?;
    let h = engine.alloc([ROWS, 12].into())?;
    let mut recording = Recording::new();
    let kernel = geglu::kernel(geglu::Spec::new(12, true, Activation::Gelu));
    geglu::record(&mut recording, &kernel, geglu::Args { gate_up: &gate_up, h: &h });
    for (x, y) in x.iter().zip(run(engine, &recording, &h)?) {
        let error = (f64::from(y) - Activation::Gelu.of(f64::from(*x))).abs();
        let bound = 4e-7 * f64::from(x.abs().max(1.0));
        if error.is_nan() || error > bound {
            return Err(format!("gelu({x}) is {y}: {error:e} off, over {bound:e}").into());
        }
    }
    Ok(())
}

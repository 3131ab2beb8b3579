use super::{Suite, run};
use jinabert::{
    kernel_check::KernelCase,
    kernels::{KernelVariant, layer_norm},
    recording::{Engine, Format, Recording},
};
use libtest_mimic::Failed;
use proptest::prelude::*;

pub fn suite() -> Suite {
    let case = |(t, d, residual, shift)| KernelCase::LayerNorm { t, d, residual, shift };
    Suite {
        hard: [
            (1, 512, true, 0.0),
            (37, 768, true, 0.0),
            (5, 20, false, 0.0),
            (33, 1024, false, 0.0),
            (9, 384, true, 1000.0), // a one-pass variance loses all digits here
            (70_001, 32, true, 0.0),
        ]
        .map(case)
        .into(),
        any: (1..100u32, 1..300u32, any::<bool>(), -50.0..50f32)
            .prop_map(move |(t, d4, residual, shift)| case((t, 4 * d4, residual, shift)))
            .boxed(),
        invariants: vec![("a constant row is beta", constant_row)],
    }
}

fn constant_row(engine: &mut dyn Engine, variant: KernelVariant) -> Result<(), Failed> {
    const D: u32 = 96;
    let beta: Vec<f32> = (0..D).map(|n| n as f32).collect();
    let x = engine.upload([2, D].into(), variant.stream(), (&[0.25; 2 * D as usize]).into())?;
    let gamma = engine.upload([D].into(), Format::F32, (&[3.0; D as usize]).into())?;
    let shift = engine.upload([D].into(), Format::F32, beta[..].into())?;
    let y = engine.alloc([2, D].into(), variant.wide())?;
    let mut recording = Recording::new();
    let spec = layer_norm::Spec { residual: true, ..layer_norm::Spec::wide(variant, D) };
    let kernel = layer_norm::kernel(spec);
    let args = layer_norm::Args { x: &x, r: &x, gamma: &gamma, beta: &shift, y: &y };
    layer_norm::record(&mut recording, &kernel, args, 1e-12);
    if run(engine, &recording, &y)? == [&beta[..], &beta].concat() {
        Ok(())
    } else {
        Err("gamma shows in a row without variance".into())
    }
}

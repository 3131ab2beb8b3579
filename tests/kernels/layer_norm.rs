use super::{Rule, run};
use jinabert::{
    kernels::{KernelVariant, layer_norm},
    recording::{Engine, Format, Recording},
};
use libtest_mimic::Failed;

pub const INVARIANTS: &[(&str, Rule)] = &[("a constant row is beta", constant_row)];

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

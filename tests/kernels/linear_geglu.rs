use super::{Rule, run};
use jinabert::{
    activation::Activation,
    kernels::{KernelVariant, Tier, linear_geglu},
    recording::{Engine, Recording},
};
use libtest_mimic::Failed;

pub const INVARIANTS: &[(&str, Rule)] = &[("gelu is within its stated error", gelu)];

/// `shaders/lib/gelu.wgsl` promises |gelu - exact| ≤ 4e-7·max(1, |x|) on [-12, 12].
fn gelu(engine: &mut dyn Engine, variant: KernelVariant) -> Result<(), Failed> {
    // This tier rounds its inputs; the function is the same as in the other tiers.
    if let Tier::Matrix { .. } = variant.tier {
        return Ok(());
    }
    const ROWS: u32 = 3000;
    let x: Vec<f32> = (0..4 * ROWS).map(|n| n as f32 / 500.0 - 12.0).collect();
    // h = gelu(x·I) ⊙ 1: K = 8, F = 4, the last four inputs of every row are ones.
    let input: Vec<f32> = x.chunks_exact(4).flat_map(|row| [row, &[1.0; 4]].concat()).collect();
    let unit = |n: usize| (0..8).map(move |k| if k == n { 1.0 } else { 0.0 });
    let w: Vec<f32> = (0..8).flat_map(unit).collect();
    let (shape, w) = linear_geglu::arrange(variant.tier, true, w.into(), [8, 8]);
    let w = engine.upload(shape, variant.weights(), w)?;
    let input = engine.upload([ROWS, 8].into(), variant.stream(), input[..].into())?;
    let h = engine.alloc([ROWS, 4].into(), variant.wide())?;
    let mut recording = Recording::new();
    let kernel = linear_geglu::kernel(linear_geglu::Spec::new(variant, true, Activation::Gelu));
    let args = linear_geglu::Args { x: &input, w: &w, h: &h };
    linear_geglu::record(&mut recording, &kernel, args);
    for (x, y) in x.iter().zip(run(engine, &recording, &h)?) {
        let error = (f64::from(y) - Activation::Gelu.of(f64::from(*x))).abs();
        // Half a unit in the last place of f16, and of its smallest numbers.
        let half = if variant.wide().half() { 1.0 } else { 0.0 };
        let rounding = half * (f64::from(y.abs()) / 2048.0 + 3e-8);
        let bound = 4e-7 * f64::from(x.abs().max(1.0)) + rounding;
        if error.is_nan() || error > bound {
            return Err(format!("gelu({x}) is {y}: {error:e} off, over {bound:e}").into());
        }
    }
    Ok(())
}

use super::{Rule, run};
use jinabert::{
    kernel_check::{KernelCase, LinearCase, compare},
    kernels::{KernelVariant, linear},
    recording::{Engine, Recording},
};
use libtest_mimic::Failed;

pub const INVARIANTS: &[(&str, Rule)] = &[("a row does not depend on its neighbours", lone_row)];

fn lone_row(engine: &mut dyn Engine, variant: KernelVariant) -> Result<(), Failed> {
    let case = LinearCase::new(70, 68, 64, false);
    let whole = case.record(engine, variant, 3)?;
    let y = run(engine, &whole.recording, &whole.output)?;

    let args = linear::Args::from(&whole.recording.commands[0]);
    let x = args.x.first(1);
    let first = args.y.first(1);
    let mut alone = Recording::new();
    let kernel = linear::kernel(linear::Spec::new(variant, false));
    linear::record(&mut alone, &kernel, linear::Args { x: &x, r: &x, y: &first, ..args });
    let checked = compare(&run(engine, &alone, &first)?, &y[..68], case.tolerance(variant));
    match checked.wrong {
        0 => Ok(()),
        _ => Err(format!("the first row alone, against the first of 70: {checked}").into()),
    }
}

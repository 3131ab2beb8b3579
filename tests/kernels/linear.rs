use super::{Suite, run};
use jinabert::{
    activation::Activation,
    kernel_check::{KernelCase, compare},
    kernels::linear,
    recording::Recording,
};
use proptest::prelude::*;

pub fn suite() -> Suite {
    let case = |(t, n, k, residual)| KernelCase::linear(t, n, k, residual);
    let activated =
        |(t, n, k, residual, activation)| KernelCase::Linear { t, n, k, activation, residual };
    let activation = prop_oneof![Just(Activation::Identity), Just(Activation::Gelu)];
    Suite {
        hard: [
            (1, 768, 768, false),
            (3, 4, 4, true),
            (63, 68, 20, false),
            (64, 64, 16, true),
            (65, 132, 48, true),
            (33, 36, 204, true),
            (130, 96, 3072, false),
            (66_000, 8, 8, true),
            (70_001, 4, 4, false),
        ]
        .map(case)
        .into_iter()
        .chain([
            activated((67, 132, 76, false, Activation::Gelu)),
            activated((1, 36, 48, true, Activation::Relu)),
        ])
        .collect(),
        any: (1..150u32, 1..40u32, 1..100u32, any::<bool>(), activation)
            .prop_map(move |(t, n4, k4, residual, activation)| {
                activated((t, 4 * n4, 4 * k4, residual, activation))
            })
            .boxed(),
        invariants: vec![("a row does not depend on its neighbours", |engine, variant| {
            let case = KernelCase::linear(70, 68, 64, false);
            let whole = case.record(engine, variant, 3).map_err(|e| e.to_string())?;
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
        })],
    }
}

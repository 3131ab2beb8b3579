use super::{Suite, run};
use jinabert::{
    kernels::linear,
    probe::{Problem, compare},
    recording::Recording,
};
use proptest::prelude::*;

pub fn suite() -> Suite {
    let problem = |(t, n, k, residual)| Problem::Linear { t, n, k, residual };
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
        .map(problem)
        .into(),
        any: (1..150u32, 1..40u32, 1..100u32, any::<bool>())
            .prop_map(move |(t, n4, k4, residual)| problem((t, 4 * n4, 4 * k4, residual)))
            .boxed(),
        invariants: vec![("a row does not depend on its neighbours", |engine, version| {
            let problem = Problem::Linear { t: 70, n: 68, k: 64, residual: false };
            let whole = problem.record(engine, version, 3).map_err(|e| e.to_string())?;
            let y = run(engine, &whole.recording, &whole.output)?;

            let args = linear::Args::from(&whole.recording.commands[0]);
            let (x, first) = (args.x.first(1), args.y.first(1));
            let mut alone = Recording::new();
            let kernel = linear::kernel(linear::Spec::new(version, false));
            linear::record(&mut alone, &kernel, linear::Args { x: &x, r: &x, y: &first, ..args });
            let checked =
                compare(&run(engine, &alone, &first)?, &y[..68], problem.tolerance(version));
            match checked.wrong {
                0 => Ok(()),
                _ => Err(format!("the first row alone, against the first of 70: {checked}").into()),
            }
        })],
    }
}

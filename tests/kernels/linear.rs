use super::{Suite, run};
use jinabert::{
    kernels::linear,
    probe::{Problem, compare},
    recording::Recording,
};
use proptest::prelude::*;

pub fn suite() -> Suite {
    let problem = |(t, n, k)| Problem::Linear { t, n, k };
    Suite {
        hard: [
            (1, 768, 768),
            (3, 4, 4),
            (63, 65, 20),
            (64, 64, 16),
            (65, 130, 48),
            (130, 96, 3072),
            (66_000, 8, 8),
            (70_001, 1, 4),
        ]
        .map(problem)
        .into(),
        any: (1..150u32, 1..150u32, 1..100u32)
            .prop_map(move |(t, n, k4)| problem((t, n, 4 * k4)))
            .boxed(),
        invariants: vec![("a row does not depend on its neighbours", |engine, tier| {
            let problem = Problem::Linear { t: 70, n: 65, k: 64 };
            let whole = problem.record(engine, tier, 3).map_err(|e| e.to_string())?;
            let y = run(engine, &whole.recording, &whole.output)?;

            let args = linear::Args::from(&whole.recording.commands[0]);
            let (x, first) = (args.x.first(1), args.y.first(1));
            let mut alone = Recording::new();
            let kernel = linear::kernel(linear::Spec::new(tier));
            linear::record(&mut alone, &kernel, linear::Args { x: &x, y: &first, ..args });
            let checked = compare(&run(engine, &alone, &first)?, &y[..65], problem.tolerance());
            match checked.wrong {
                0 => Ok(()),
                _ => Err(format!("the first row alone, against the first of 70: {checked}").into()),
            }
        })],
    }
}

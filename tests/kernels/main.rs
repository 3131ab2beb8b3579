//! Every kernel on every device and tier: GPU = CPU twin, on problems that hurt and on random ones.
//!
//! One trial per device × kernel × version; for products also one per tile that is for few rows.
//! Without an adapter the GPU trials are reported as ignored, never as passed;
//! `JINABERT_REQUIRE=llvmpipe,swiftshader` makes a missing adapter a failure.

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each test target uses a part")]
mod common;

mod attention;
mod embed;
mod gather;
mod key_norm;
mod layer_norm;
mod linear;
mod linear_geglu;
mod pool;

use common::{Device, ignored};
use jinabert::{
    kernels::{Tier, Tile, Version},
    probe::{Problem, Recorded},
    recording::{Engine, Recording, Tensor},
};
use libtest_mimic::{Arguments, Failed, Trial};
use proptest::{
    strategy::BoxedStrategy,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};

/// Fails where an engine breaks it.
type Rule = fn(&mut dyn Engine, Version) -> Result<(), Failed>;

/// Problems of one kernel.
struct Suite {
    /// Those that hurt: one row, sizes beside every tile edge, more rows than one grid dimension
    /// holds.
    hard: Vec<Problem>,
    /// Random ones.
    any: BoxedStrategy<Problem>,
    /// What must hold whatever the twin says.
    invariants: Vec<(&'static str, Rule)>,
}

fn main() {
    let arguments = Arguments::from_args();
    let (devices, mut trials) = common::devices();
    let suites = [
        ("embed", embed::suite as fn() -> Suite),
        ("linear", linear::suite),
        ("linear_geglu", linear_geglu::suite),
        ("key_norm", key_norm::suite),
        ("attention", attention::suite),
        ("layer_norm", layer_norm::suite),
        ("pool", pool::suite),
        ("gather", gather::suite),
    ];
    let words: Vec<_> = suites.iter().map(|(word, _)| *word).collect();
    let kernels: Vec<_> = jinabert::kernels::ALL.iter().map(|kernel| kernel.word).collect();
    assert_eq!(words, kernels, "every kernel has a suite");

    for (name, device) in &devices {
        for (word, suite) in &suites {
            for version in suite().hard[0].versions(&device.experimental_caps()) {
                let name = format!("{name}/{word}/{version}");
                let trials_of = trials_of(&name, device, version, *suite);
                trials.extend(trials_of.into_iter().map(|trial| match version.tier {
                    Tier::Twin => ignored(trial.name(), "this is the twin itself"),
                    _ => trial,
                }));
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn trials_of(name: &str, device: &Device, version: Version, suite: fn() -> Suite) -> Vec<Trial> {
    let usual = Tile::new(version.tier);
    let hard = suite().hard[0].tiles(version).into_iter().map(|tile| {
        let open = device.clone();
        let which = if tile == usual { String::new() } else { format!(" {tile:?}") };
        Trial::test(format!("{name}/hard{which}"), move || {
            let mut engine = open.open(version.tier);
            let mut problems = suite().hard.into_iter();
            problems.try_for_each(|problem| check(&problem, &mut *engine, version, tile, 1))
        })
    });
    let open = device.clone();
    let any = Trial::test(format!("{name}/any"), move || {
        let mut engine = open.open(version.tier);
        let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let engine = std::cell::RefCell::new(&mut engine);
        TestRunner::new_with_rng(config, rng)
            .run(&suite().any, |problem| {
                let mut engine = engine.borrow_mut();
                check(&problem, &mut ***engine, version, usual, 2)
                    .map_err(|e| TestCaseError::fail(e.message().unwrap_or_default().to_owned()))
            })
            .map_err(|e| Failed::from(e.to_string()))
    });
    let invariants = suite().invariants.into_iter().map(|(rule, holds)| {
        let open = device.clone();
        Trial::test(format!("{name}/{rule}"), move || holds(&mut *open.open(version.tier), version))
    });
    hard.chain([any]).chain(invariants).collect()
}

fn check(
    problem: &Problem,
    engine: &mut dyn Engine,
    version: Version,
    tile: Tile,
    seed: u64,
) -> Result<(), Failed> {
    let checked = problem.check_tiled(engine, version, tile, seed);
    let checked = checked.map_err(|e| format!("{problem}: {e}"))?;
    match checked.wrong {
        0 => Ok(()),
        _ => Err(format!("{problem}: {checked}").into()),
    }
}

/// The elements that a problem computes.
fn solve(problem: &Problem, engine: &mut dyn Engine, version: Version) -> Result<Vec<f32>, Failed> {
    let Recorded { recording, output } = problem.record(engine, version, 3)?;
    run(engine, &recording, &output)
}

/// The elements of `output` after a recording.
fn run(
    engine: &mut dyn Engine,
    recording: &Recording,
    output: &Tensor,
) -> Result<Vec<f32>, Failed> {
    Ok(engine.run(recording, output)?)
}

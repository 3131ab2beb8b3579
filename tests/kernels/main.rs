//! Every kernel on every device and tier, against the reference, on hard and random cases.
//!
//! One trial per device × kernel × variant; for products also one per tile for few rows.  Without
//! an adapter the GPU trials are reported as ignored, never as passed;
//! `JINABERT_REQUIRE=vulkan-llvmpipe,vulkan-swiftshader` makes a missing adapter a failure.

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each test target uses a part")]
mod common;

mod attention;
mod layer_norm;
mod linear;
mod linear_geglu;
mod poison;
mod pool;

use common::{Device, ignored};
use jinabert::{
    kernel_check::{self, Choices, KernelCase, Recorded, Suite},
    kernels::{KernelVariant, Tier, Tile},
    recording::{Engine, KernelId, Recording, Tensor},
};
use libtest_mimic::{Arguments, Failed, Trial};
use proptest::{
    collection::vec,
    prelude::{Strategy, any},
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};

/// Property of a kernel; an error if an engine violates it.
type Rule = fn(&mut dyn Engine, KernelVariant) -> Result<(), Failed>;

/// Properties of a kernel that hold independently of the reference.
fn invariants(kernel: KernelId) -> &'static [(&'static str, Rule)] {
    match kernel {
        KernelId::Linear => linear::INVARIANTS,
        KernelId::LinearGeglu => linear_geglu::INVARIANTS,
        KernelId::Attention => attention::INVARIANTS,
        KernelId::LayerNorm => layer_norm::INVARIANTS,
        KernelId::Pool => pool::INVARIANTS,
        _ => &[],
    }
}

fn main() {
    let arguments = Arguments::from_args();
    let (devices, mut trials) = common::devices();
    for (name, device) in &devices {
        for suite in kernel_check::ALL {
            for variant in (suite.sample)().variants(&device.experimental_caps()) {
                let name = format!("{name}/{}/{variant}", suite.kernel);
                let trials_of = trials_of(&name, device, variant, suite);
                trials.extend(trials_of.into_iter().map(|trial| match variant.tier {
                    Tier::Reference => ignored(trial.name(), "this is the reference itself"),
                    _ => trial,
                }));
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn trials_of(
    name: &str,
    device: &Device,
    variant: KernelVariant,
    suite: &'static Suite,
) -> Vec<Trial> {
    let usual = Tile::new(variant.tier);
    let hard = (suite.sample)().tiles(variant).into_iter().map(|tile| {
        let open = device.clone();
        let which = if tile == usual { String::new() } else { format!(" {tile:?}") };
        Trial::test(format!("{name}/hard{which}"), move || {
            let mut engine = open.open(variant.tier);
            let mut cases = (suite.hard)().into_iter();
            cases.try_for_each(|case| check(&*case, &mut *engine, variant, tile, 1))
        })
    });
    let open = device.clone();
    let any = Trial::test(format!("{name}/any"), move || {
        any_case(&mut *open.open(variant.tier), variant, suite)
    });
    let invariants = invariants(suite.kernel).iter().map(|&(rule, holds)| {
        let open = device.clone();
        Trial::test(format!("{name}/{rule}"), move || holds(&mut *open.open(variant.tier), variant))
    });
    let open = device.clone();
    let poison = Trial::test(format!("{name}/workgroup memory may hold anything"), move || {
        let mut engine = open.open(variant.tier);
        let mut cases = (suite.hard)().into_iter().take(3);
        cases.try_for_each(|case| {
            let tiles = case.tiles(variant);
            tiles.into_iter().try_for_each(|tile| poison(&*case, &mut *engine, variant, tile))
        })
    });
    let poison = (*device != Device::Cpu).then_some(poison);
    hard.chain([any]).chain(poison).chain(invariants).collect()
}

/// Random cases, more with `JINABERT_SLOW=1`; the first failing one is shrunk.
fn any_case(engine: &mut dyn Engine, variant: KernelVariant, suite: &Suite) -> Result<(), Failed> {
    let cases = if std::env::var_os("JINABERT_SLOW").is_some() { 96 } else { 12 };
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    // No case makes more choices.
    let cases =
        vec(any::<u32>(), 256).prop_map(|numbers| (suite.random)(&mut Choices::new(&numbers)));
    let engine = std::cell::RefCell::new(engine);
    TestRunner::new_with_rng(config, rng)
        .run(&cases, |case| {
            let mut engine = engine.borrow_mut();
            check(&*case, &mut **engine, variant, Tile::new(variant.tier), 2)
                .map_err(|e| TestCaseError::fail(e.message().unwrap_or_default().to_owned()))
        })
        .map_err(|e| Failed::from(e.to_string()))
}

/// The result does not depend on the initial contents of workgroup memory, bit for bit.
fn poison(
    case: &dyn KernelCase,
    engine: &mut dyn Engine,
    variant: KernelVariant,
    tile: Tile,
) -> Result<(), Failed> {
    let Recorded { recording, output } = case.record_tiled(engine, variant, tile, 4)?;
    let Some(poisoned) = poison::poisoned(&recording) else { return Ok(()) };
    let usual: Vec<u32> = run(engine, &recording, &output)?.into_iter().map(f32::to_bits).collect();
    let found: Vec<u32> = run(engine, &poisoned, &output)?.into_iter().map(f32::to_bits).collect();
    let apart = usual.iter().zip(&found).filter(|(usual, found)| usual != found).count();
    match apart {
        0 => Ok(()),
        _ => Err(format!("{case}: {apart} of {} elements differ", usual.len()).into()),
    }
}

fn check(
    case: &dyn KernelCase,
    engine: &mut dyn Engine,
    variant: KernelVariant,
    tile: Tile,
    seed: u64,
) -> Result<(), Failed> {
    let checked = case.check_tiled(engine, variant, tile, seed);
    let checked = checked.map_err(|e| format!("{case}: {e}"))?;
    match checked.wrong {
        0 => Ok(()),
        _ => Err(format!("{case}: {checked}").into()),
    }
}

/// Output elements of a case.
fn solve(
    case: &dyn KernelCase,
    engine: &mut dyn Engine,
    variant: KernelVariant,
) -> Result<Vec<f32>, Failed> {
    let Recorded { recording, output } = case.record(engine, variant, 3)?;
    run(engine, &recording, &output)
}

/// Output elements of a recording.
fn run(
    engine: &mut dyn Engine,
    recording: &Recording,
    output: &Tensor,
) -> Result<Vec<f32>, Failed> {
    Ok(engine.run(recording, output)?)
}

//! What must hold of every engine, whatever it runs.

mod common;

use common::Device;
use jinabert::{
    batch::{PackedBatch, Tokens},
    kernels::{Tier, linear},
    model::{Model, Output},
    probe::Problem,
    recording::{Kernel, Program, Recording},
};
use libtest_mimic::{Arguments, Trial};
use std::{error::Error, sync::Arc};

type Outcome = Result<(), Box<dyn Error>>;
type Rule = fn(&Device, Tier) -> Outcome;

fn main() {
    let arguments = Arguments::from_args();
    let (devices, mut trials) = common::devices();
    let rules: [(&str, Rule); 3] = [
        ("broken kernels are errors", broken),
        ("batches under way do not meet", under_way),
        ("a failure spoils nothing else", failure),
    ];
    for (name, device) in &devices {
        // The CPU compiles nothing, and cannot fail.
        let of_all = |rule: &str| *device != Device::Cpu || rule.starts_with("batches");
        for (rule, holds) in rules.into_iter().filter(|(rule, _)| of_all(rule)) {
            let device = device.clone();
            let holds = move || Ok(holds(&device, device.tier())?);
            trials.push(Trial::test(format!("{name}/{rule}"), holds));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// A product whose shader is not WGSL fails with the name of its file, compiled ahead or not, and
/// the engine goes on.
fn broken(device: &Device, tier: Tier) -> Outcome {
    let (good, bad) = products(tier);
    let problem = Problem::linear(5, 8, 8, false);
    let mut engine = device.open(tier);
    for ahead in [false, true] {
        let mut recorded = problem.record(&mut *engine, tier, 1)?;
        recorded.recording.commands[0].program = Arc::clone(&bad.program);
        if ahead {
            engine.prepare(vec![Arc::clone(&bad.program), Arc::clone(&good.program)]);
        }
        let error = engine.run(&recorded.recording, &recorded.output).err().ok_or("no error")?;
        let error = error.to_string();
        if !error.contains(&format!("shaders/{}:", bad.program.file)) {
            return Err(format!("{error}: no file").into());
        }
        let checked = problem.check(&mut *engine, tier, 1)?;
        if checked.wrong > 0 {
            return Err(format!("afterwards: {checked}").into());
        }
    }
    Ok(())
}

/// A product, and one whose shader is not WGSL.
fn products(tier: Tier) -> (Kernel<linear::Spec>, Kernel<linear::Spec>) {
    let good = linear::kernel(linear::Spec::new(tier, false));
    let text = good.program.text.replace("@compute", "@compote").leak();
    let program = Program { text, ..(*good.program).clone() };
    let bad = Kernel { spec: good.spec, program: Arc::new(program) };
    (good, bad)
}

/// Batches that grow, so that tensors are replaced while others are computed with, in one
/// submission each or in many; waited for in order, backwards, and not at all.
fn under_way(device: &Device, tier: Tier) -> Outcome {
    let dir = common::fixture("tiny-geglu-4h");
    let batches: Vec<PackedBatch> = [3, 200, 40, 900, 1, 1200]
        .map(|n| PackedBatch::new([&Tokens::new((0..n).map(|i| (i * 7 + n) % 400).collect())]))
        .into();
    let output = Output::Vectors { dims: 64, normalize: true };
    let alone = |batch| Model::open(&dir, device.open(tier), tier)?.forward(batch, output);
    let alone = batches.iter().map(alone).collect::<Result<Vec<_>, _>>()?;
    for dispatch_flops in [f64::MAX, 1e6] {
        let mut engine = device.open(tier);
        engine.limit_dispatches(dispatch_flops);
        let mut model = Model::open(&dir, engine, tier)?;
        for round in 0..3 {
            let submit = |batch| model.submit(batch, output);
            let running = batches.iter().map(submit).collect::<Result<Vec<_>, _>>()?;
            let mut running: Vec<_> = running.into_iter().zip(&alone).collect();
            match round {
                0 => running.reverse(),
                1 => running.truncate(2),
                _ => {}
            }
            for (n, (running, alone)) in running.into_iter().enumerate() {
                if running.wait()? != *alone {
                    return Err(format!("round {round}: batch {n} differs").into());
                }
            }
        }
    }
    Ok(())
}

/// Work before a failure comes out right, and so does work after it.
fn failure(device: &Device, tier: Tier) -> Outcome {
    let (_, bad) = products(tier);
    let problem = Problem::linear(100, 64, 64, false);
    let mut engine = device.open(tier);
    let good = problem.record(&mut *engine, tier, 1)?;
    let expected = engine.run(&good.recording, &good.output)?;
    let mut failing: Recording = good.recording.clone();
    failing.commands[0].program = bad.program;
    let before = engine.submit(&good.recording, &good.output)?;
    if engine.submit(&failing, &good.output).is_ok() {
        return Err("no error".into());
    }
    let after = engine.submit(&good.recording, &good.output)?;
    for (when, ticket) in [("after", after), ("before", before)] {
        if ticket.wait()? != expected {
            return Err(format!("what was submitted {when} a failure differs").into());
        }
    }
    Ok(())
}

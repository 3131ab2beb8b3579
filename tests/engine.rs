//! What must hold of every engine, whatever it runs.

mod common;

use common::{Device, REQUIRE};
use jinabert::{
    kernels::{Tier, linear},
    probe::Problem,
    recording::{Kernel, Program},
};
use libtest_mimic::{Arguments, Trial};
use std::{error::Error, sync::Arc};

type Outcome = Result<(), Box<dyn Error>>;
type Rule = fn(&Device, Tier) -> Outcome;

fn main() {
    let arguments = Arguments::from_args();
    let (devices, missing) = common::devices();
    let rules: [(&str, Rule); 1] = [("broken kernels are errors", broken)];
    let mut trials = Vec::new();
    for (name, device) in devices.iter().filter(|(_, device)| *device != Device::Cpu) {
        for (rule, holds) in rules {
            let device = device.clone();
            let holds = move || Ok(holds(&device, device.tier())?);
            trials.push(Trial::test(format!("{name}/{rule}"), holds));
        }
    }
    for name in missing {
        let message = format!("{REQUIRE} names `{name}`, which this machine does not have");
        trials.push(Trial::test(format!("{name}/required"), move || Err(message.into())));
    }
    if devices.len() == 1 {
        let trial = Trial::test("gpu/all: no adapter on this machine", || Ok(()));
        trials.push(trial.with_ignored_flag(true));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// A product whose shader is not WGSL fails with the name of its file, compiled ahead or not, and
/// the engine goes on.
fn broken(device: &Device, tier: Tier) -> Outcome {
    let good = linear::kernel(linear::Spec::new(tier, false));
    let text = good.program.text.replace("@compute", "@compote").leak();
    let program = Program { text, ..(*good.program).clone() };
    let bad: Kernel<_> = Kernel { spec: good.spec, program: Arc::new(program) };
    let problem = Problem::Linear { t: 5, n: 8, k: 8, residual: false };
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

//! The devices that tests run on.

use jinabert::{
    cpu, gpu,
    kernels::Tier,
    recording::{Caps, Engine},
};
use libtest_mimic::Trial;
use std::path::{Path, PathBuf};

/// The directory of a fixture.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A device under test: the CPU engine, or an adapter by its position.
#[derive(Clone, Debug, PartialEq)]
pub enum Device {
    Cpu,
    Adapter(usize, Caps), // with what must be asked for
}

impl Device {
    pub fn open(&self, tier: Tier) -> Box<dyn Engine> {
        match *self {
            Self::Cpu => Box::new(cpu::Engine::new(tier)),
            Self::Adapter(index, _) => {
                let gpu = match tier {
                    Tier::Matrix { .. } => gpu::open_experimental(index),
                    _ => gpu::open(index),
                };
                let gpu = gpu.unwrap_or_else(|e| panic!("adapter {index}: {e}"));
                Box::new(gpu::Engine::new(gpu))
            }
        }
    }

    pub fn caps(&self) -> Caps {
        Caps { matrix: None, ..self.experimental_caps() }
    }

    /// Those with what must be asked for.
    pub fn experimental_caps(&self) -> Caps {
        match self {
            Self::Cpu => cpu::Engine::new(Tier::Twin).caps().clone(),
            Self::Adapter(_, caps) => caps.clone(),
        }
    }

    /// The tier that runs by default.
    pub fn tier(&self) -> Tier {
        Tier::choose(&self.caps())
    }
}

/// Environment variable: adapters that must be there, parts of their names, comma-separated.
const REQUIRE: &str = "JINABERT_REQUIRE";

/// Every device of this machine with a short name, and trials for those that are not there: failed
/// where they are required, ignored where there is no adapter at all.
pub fn devices() -> (Vec<(String, Device)>, Vec<Trial>) {
    let mut found = vec![("cpu".to_owned(), Device::Cpu)];
    for (index, adapter) in gpu::adapters().into_iter().enumerate() {
        let name = adapter.name.split([' ', '(']).next().unwrap_or_default().to_lowercase();
        let device = Device::Adapter(index, adapter.experimental_caps());
        found.push((format!("{}-{name}", adapter.backend), device));
    }
    let required = std::env::var(REQUIRE).unwrap_or_default().to_lowercase();
    let missing = required
        .split(',')
        .filter(|part| !part.is_empty() && !found.iter().any(|(name, _)| name.contains(part)));
    let mut trials: Vec<_> = missing
        .map(|part| {
            let message = format!("{REQUIRE} names `{part}`, which this machine does not have");
            Trial::test(format!("{part}/required"), move || Err(message.into()))
        })
        .collect();
    if found.len() == 1 {
        trials.push(ignored("gpu/all", "no adapter on this machine"));
    }
    (found, trials)
}

/// A trial that is not run, with the reason in its name.
pub fn ignored(name: &str, why: &str) -> Trial {
    Trial::test(format!("{name}: {why}"), || Ok(())).with_ignored_flag(true)
}

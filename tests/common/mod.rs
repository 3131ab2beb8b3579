//! Devices that tests run on.

mod root;

use jinabert::{
    cpu,
    gpu::{self, Backend, Gpu},
    kernels::Tier,
    recording::{Caps, Engine},
};
use libtest_mimic::Trial;
pub use root::root;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{LazyLock, Mutex, PoisonError},
    thread::{self, ThreadId},
};

/// Directory of a fixture.
pub fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures").join(name)
}

/// Device under test: the CPU engine, or an adapter by its index.
#[derive(Clone, Debug, PartialEq)]
pub enum Device {
    Cpu,
    Adapter(usize, Caps), // including experimental capabilities
}

impl Device {
    pub fn open(&self, tier: Tier) -> Box<dyn Engine> {
        match *self {
            Self::Cpu => Box::new(cpu::Engine::new(tier)),
            Self::Adapter(index, _) => Box::new(gpu::Engine::new(opened(index, tier))),
        }
    }

    pub fn caps(&self) -> Caps {
        Caps { matrix: None, ..self.experimental_caps() }
    }

    /// Capabilities, including experimental ones.
    pub fn experimental_caps(&self) -> Caps {
        match self {
            Self::Cpu => cpu::Engine::new(Tier::Reference).caps().clone(),
            Self::Adapter(_, caps) => caps.clone(),
        }
    }

    /// Default tier of the device.
    pub fn tier(&self) -> Tier {
        Tier::choose(&self.caps())
    }
}

/// Open devices by thread, adapter, and whether cooperative matrices were enabled.
type Devices = HashMap<(ThreadId, usize, bool), Gpu>;

/// Device of an adapter: one for each thread that runs trials, so that its engines compile a kernel
/// once.  Not one for all: wgpu 30 panics sometimes if one thread waits for a device while another
/// submits work to it.  OpenGL has one context for each device, and its engines one each.  Devices
/// stay open until the process ends: if one is dropped with its thread, wgpu's thread-local values
/// are already gone, and it panics.
fn opened(index: usize, tier: Tier) -> Gpu {
    static OPEN: LazyLock<Mutex<Devices>> = LazyLock::new(Mutex::default);
    let matrix = matches!(tier, Tier::Matrix { .. });
    let key = (thread::current().id(), index, matrix);
    let open = || OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(gpu) = open().get(&key) {
        return gpu.clone();
    }
    let gpu = if matrix { gpu::open_experimental(index) } else { gpu::open(index) };
    let gpu = gpu.unwrap_or_else(|e| panic!("adapter {index}: {e}"));
    if gpu.summary.backend != Backend::Gl {
        open().insert(key, gpu.clone());
    }
    gpu
}

/// Environment variable: required adapters, as comma-separated parts of their names.
const REQUIRE: &str = "JINABERT_REQUIRE";

/// Devices of this machine with short names, and trials for missing ones: failed if required,
/// ignored if there is no adapter at all.
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

/// Ignored trial, with the reason in its name.
pub fn ignored(name: &str, why: &str) -> Trial {
    Trial::test(format!("{name}: {why}"), || Ok(())).with_ignored_flag(true)
}

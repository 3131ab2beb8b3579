//! The device under test, and its clock.

use super::{
    report,
    stats::{Limits, Spread},
};
use crate::{
    device::Device,
    error::Error,
    gpu,
    kernels::{Dtype, Tier},
    probe::Clock,
    recording::{Caps, Command, Engine, Format, Recording, Tensor},
};
use std::{
    fs,
    time::{Duration, Instant},
};

/// A device for one engine after another: every problem gets its own, so that memory comes back.
pub struct Target {
    adapter: Option<usize>,
    /// Open, and not lent to an engine.
    idle: Option<gpu::Gpu>,
    /// How times are taken.
    pub clock: Clock,
    /// What an empty submission takes, in milliseconds of the wall clock.
    pub submit_ms: f64,
}

/// An open device.
pub enum Open {
    /// The cores.
    Cpu(Box<dyn Engine>),
    /// An adapter.
    Gpu(Box<gpu::Engine>),
}

impl Target {
    /// What a device of the user's words is; its clock may be measured afterwards.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn find(device: Device) -> Result<Self, Error> {
        let (mut adapter, mut idle, mut clock) = (device.adapter()?, None, Clock::Wall);
        if let Some(index) = adapter {
            match gpu::open(index) {
                Ok(gpu) => {
                    if gpu.summary.timestamps {
                        clock = Clock::Timestamps;
                    }
                    idle = Some(gpu);
                }
                Err(_) if device == Device::Auto => adapter = None,
                Err(error) => return Err(error),
            }
        }
        Ok(Self { adapter, idle, clock, submit_ms: 0.0 })
    }

    /// The same device, exactly.
    pub fn device(&self) -> Device {
        self.adapter.map_or(Device::Cpu, Device::Index)
    }

    /// Opens it; the tier matters to the CPU alone.
    ///
    /// # Errors
    /// As [`gpu::open`].
    pub fn open(&mut self, tier: Tier) -> Result<Open, Error> {
        let Some(index) = self.adapter else {
            return Ok(Open::Cpu(Device::Cpu.open(Some(tier), Dtype::F32)?.engine));
        };
        let gpu = self.idle.take().map_or_else(|| gpu::open(index), Ok)?;
        Ok(Open::Gpu(Box::new(gpu::Engine::new(gpu))))
    }

    /// Keeps the device of an engine that did not fail for the next.
    pub fn close(&mut self, open: Open) {
        if let Open::Gpu(engine) = open {
            self.idle = Some(engine.into_gpu());
        }
    }

    /// What it is, and what it allows.
    ///
    /// # Errors
    /// As [`gpu::open`].
    pub fn about(&mut self) -> Result<(report::Device, Caps), Error> {
        let threads = rayon::current_num_threads();
        let mut open = self.open(Tier::Blocked)?;
        let device = match &open {
            Open::Cpu(_) => report::Device {
                name: processor(),
                backend: "cpu".to_owned(),
                kind: "cpu".to_owned(),
                driver: String::new(),
                threads,
            },
            Open::Gpu(engine) => report::Device {
                name: engine.summary().name.clone(),
                backend: engine.summary().backend.to_string(),
                kind: engine.summary().kind.to_owned(),
                driver: engine.summary().driver.clone(),
                threads,
            },
        };
        let caps = open.engine().caps().clone();
        self.close(open);
        Ok((device, caps))
    }

    /// Times a recording on an engine.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn time(
        &self,
        open: &mut Open,
        recording: &Recording,
        limits: Limits,
    ) -> Result<Spread, Error> {
        let output = open.engine().alloc([4].into(), Format::F32)?;
        if self.clock == Clock::Timestamps
            && let Open::Gpu(engine) = open
        {
            let run = || Ok(engine.profile(recording)?.iter().map(|span| span.time).sum());
            return warm(run, limits);
        }
        // Often enough that the submission hardly counts.
        let first = wall(open, recording, &output)?.max(wall(open, recording, &output)?);
        let least = 10.0 * self.submit_ms.max(0.02);
        let times = (least / (1e3 * first.as_secs_f64()).max(1e-4)).ceil().clamp(1.0, 256.0);
        let many = repeated(&recording.commands, times as usize);
        let spread = warm(|| wall(open, &many, &output), limits)?;
        Ok(spread.less(self.submit_ms).scaled(1.0 / times))
    }
}

/// The processor, as Linux names it; elsewhere its architecture.
fn processor() -> String {
    let listed = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = listed.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_owned()
}

impl Open {
    /// As any other engine.
    pub fn engine(&mut self) -> &mut dyn Engine {
        match self {
            Self::Cpu(engine) => &mut **engine,
            Self::Gpu(engine) => &mut **engine,
        }
    }
}

/// The same dispatches over and over.
pub fn repeated(commands: &[Command], times: usize) -> Recording {
    let commands = std::iter::repeat_n(commands, times).flatten().cloned().collect();
    Recording { commands, ..Recording::new() }
}

/// From submitting to the end of waiting.  `output` is read back: a small one.
///
/// # Errors
/// Those of the engine.
pub fn wall(open: &mut Open, recording: &Recording, output: &Tensor) -> Result<Duration, Error> {
    let start = Instant::now();
    open.engine().run(recording, output)?;
    Ok(start.elapsed())
}

/// Runs once for nothing, then within the limits.
fn warm(mut run: impl FnMut() -> Result<Duration, Error>, limits: Limits) -> Result<Spread, Error> {
    run()?;
    limits.repeat(run)
}

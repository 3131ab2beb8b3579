//! Device under test, and its clock.

use super::stats::{Limits, Spread};
use jinabert::{
    Device, Error, gpu,
    kernel_check::Clock,
    kernels::{Dtype, Tier},
    recording::{Caps, Command, Engine, Format, Recording, Tensor},
};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    time::{Duration, Instant},
};

/// Description of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Name as given by the driver.
    pub name: String,
    /// API: "vulkan", …; "cpu" for the CPU.
    pub backend: String,
    /// "discrete", "integrated", "virtual", "software", "other"; "cpu" for the CPU.
    pub kind: String,
    /// Driver name and version.
    pub driver: String,
    /// Number of threads of this process, for the CPU device and for work on the host.
    pub threads: usize,
}

/// Device that is opened for one engine after another: one for each problem, to release memory.
pub struct Target {
    adapter: Option<usize>,
    /// Open device that no engine uses.
    idle: Option<gpu::Gpu>,
    /// Clock for timings.
    pub clock: Clock,
    /// Duration of an empty submission, in milliseconds of the wall clock.
    pub submit_ms: f64,
}

/// Open device.
pub enum Open {
    /// CPU device.
    Cpu(Box<dyn Engine>),
    /// GPU device.
    Gpu(Box<gpu::Engine>),
}

impl Target {
    /// Resolves a device that the user named; its clock may be measured afterwards.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn find(device: Device) -> Result<Self, Error> {
        let mut adapter = device.adapter()?;
        let mut idle = None;
        let mut clock = Clock::Wall;
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

    /// The exact device.
    pub fn device(&self) -> Device {
        self.adapter.map_or(Device::Cpu, Device::Index)
    }

    /// Opens the device; the tier matters only on the CPU.
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

    /// Keeps the device of an engine that did not fail, for the next engine.
    pub fn close(&mut self, open: Open) {
        if let Open::Gpu(engine) = open {
            self.idle = Some(engine.into_gpu());
        }
    }

    /// Description of the device, and its capabilities.
    ///
    /// # Errors
    /// As [`gpu::open`].
    pub fn about(&mut self) -> Result<(DeviceInfo, Caps), Error> {
        let threads = rayon::current_num_threads();
        let mut open = self.open(Tier::Blocked)?;
        let device = match &open {
            Open::Cpu(_) => DeviceInfo {
                name: processor(),
                backend: "cpu".to_owned(),
                kind: "cpu".to_owned(),
                driver: String::new(),
                threads,
            },
            Open::Gpu(engine) => DeviceInfo {
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
    /// Errors of the engine.
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
        // Repeated often enough to make the cost of the submission negligible.
        let first = wall(open, recording, &output)?.max(wall(open, recording, &output)?);
        let least = 10.0 * self.submit_ms.max(0.02);
        let times = (least / (1e3 * first.as_secs_f64()).max(1e-4)).ceil().clamp(1.0, 256.0);
        let many = repeated(&recording.commands, times as usize);
        let spread = warm(|| wall(open, &many, &output), limits)?;
        Ok(spread.less(self.submit_ms).scaled(1.0 / times))
    }
}

/// Processor name from Linux; elsewhere the architecture.
fn processor() -> String {
    let listed = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = listed.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_owned()
}

impl Open {
    /// The engine.
    pub fn engine(&mut self) -> &mut dyn Engine {
        match self {
            Self::Cpu(engine) => &mut **engine,
            Self::Gpu(engine) => &mut **engine,
        }
    }
}

/// Recording with the same dispatches `times` times.
pub fn repeated(commands: &[Command], times: usize) -> Recording {
    let commands = std::iter::repeat_n(commands, times).flatten().cloned().collect();
    Recording { commands, ..Recording::new() }
}

/// Duration from submission to the end of the wait.  `output`, which is small, is read back.
///
/// # Errors
/// Errors of the engine.
pub fn wall(open: &mut Open, recording: &Recording, output: &Tensor) -> Result<Duration, Error> {
    let start = Instant::now();
    open.engine().run(recording, output)?;
    Ok(start.elapsed())
}

/// Runs once as a warm-up, then within the limits.
fn warm(mut run: impl FnMut() -> Result<Duration, Error>, limits: Limits) -> Result<Spread, Error> {
    run()?;
    limits.repeat(run)
}

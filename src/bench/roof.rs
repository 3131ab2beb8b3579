//! The device's own limits: arithmetic, memory, and the cost of asking.
//!
//! On a GPU, by the shaders in `shaders/roof/`; on the CPU, by its own product and a copy on
//! all cores.

use super::{
    stats::{Limits, Spread},
    target::{Open, Target, repeated, wall},
};
use crate::{
    error::Error,
    kernels::{Interface, Tier},
    probe::{Clock, Problem},
    recording::{Access, Binding, Const, Engine, Format, Kernel, Program, Recording, Tensor, grid},
};
use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    mem::offset_of,
    sync::Arc,
    time::{Duration, Instant},
};

/// A limit, and how it was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// 10⁹ operations, or bytes, a second, in the fastest run: a roof is what can be reached.
    pub giga_per_s: f64,
    /// What was run.
    pub by: String,
    /// What it took, in milliseconds.
    pub ms: Spread,
}

/// What bounds everything that runs on a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roof {
    /// Floating-point operations; a multiply-add is two.
    pub compute: Limit,
    /// Bytes read and written by a copy.
    pub memory: Limit,
    /// Submitting one small dispatch and waiting for it, in milliseconds of the wall clock.
    pub submit_ms: Spread,
    /// Each further dispatch of the same pass, in microseconds of the wall clock.
    pub dispatch_us: f64,
}

/// Which of the limits applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// Arithmetic.
    Compute,
    /// Moving bytes.
    Memory,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compute => "compute",
            Self::Memory => "memory",
        })
    }
}

impl Roof {
    /// Operations a byte where the two limits meet.
    pub fn ridge(&self) -> f64 {
        self.compute.giga_per_s / self.memory.giga_per_s
    }

    /// Which limit applies at so many operations a byte.
    pub fn bound(&self, intensity: f64) -> Bound {
        if intensity < self.ridge() { Bound::Memory } else { Bound::Compute }
    }

    /// GFLOP/s that the device allows at so many operations a byte.
    pub fn gflops(&self, intensity: f64) -> f64 {
        (intensity * self.memory.giga_per_s).min(self.compute.giga_per_s)
    }
}

// ---- The two shaders ----

const MULTIPLY_ADD: &[Access] = &[Access::Write];
const COPY: &[Access] = &[Access::Read, Access::Write];
const FMA_WG: u32 = 64;
const COPY_WG: u32 = 256;
const COPY_PER: u32 = 4;

/// Operations of one invocation of `multiply_add` in one round.
const ROUND_FLOPS: f64 = 256.0;

/// `Params` of `multiply_add`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct FmaParams {
    rounds: u32,
    m: f32,
    c: f32,
}

/// `Params` of `copy`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct CopyParams {
    n: u32,
}

/// What `tests/abi.rs` holds against the shaders; they have no twin and are no part of the model.
pub const INTERFACES: &[Interface] = &[
    Interface {
        word: "multiply_add",
        params: &[
            ("rounds", offset_of!(FmaParams, rounds)),
            ("m", offset_of!(FmaParams, m)),
            ("c", offset_of!(FmaParams, c)),
        ],
        params_bytes: size_of::<FmaParams>(),
        bindings: &[("y", Access::Write)],
        programs: || [true, false].map(|fused| (*multiply_add(fused).program).clone()).to_vec(),
    },
    Interface {
        word: "copy",
        params: &[("n", offset_of!(CopyParams, n))],
        params_bytes: size_of::<CopyParams>(),
        bindings: &[("x", Access::Read), ("y", Access::Write)],
        programs: || vec![(*copy().program).clone()],
    },
];

fn bindings(access: &[Access]) -> Vec<Binding> {
    access.iter().map(|&access| Binding { access, format: Format::F32 }).collect()
}

fn multiply_add(fused: bool) -> Kernel<()> {
    let program = Program {
        word: "multiply_add",
        file: "roof/multiply_add.wgsl",
        text: include_str!("../../shaders/roof/multiply_add.wgsl"),
        imports: Vec::new(),
        constants: vec![("WG", Const::U32(FMA_WG)), ("FUSED", Const::Bool(fused))],
        bindings: bindings(MULTIPLY_ADD),
        params_bytes: size_of::<FmaParams>() as u32,
    };
    Kernel { spec: (), program: Arc::new(program) }
}

fn copy() -> Kernel<()> {
    let program = Program {
        word: "copy",
        file: "roof/copy.wgsl",
        text: include_str!("../../shaders/roof/copy.wgsl"),
        imports: Vec::new(),
        constants: vec![("WG", Const::U32(COPY_WG)), ("PER", Const::U32(COPY_PER))],
        bindings: bindings(COPY),
        params_bytes: size_of::<CopyParams>() as u32,
    };
    Kernel { spec: (), program: Arc::new(program) }
}

fn record_copy(kernel: &Kernel<()>, x: &Tensor, y: &Tensor) -> Recording {
    let n = (x.shape.len() / 4) as u32;
    let mut recording = Recording::new();
    let groups = n.div_ceil(COPY_WG * COPY_PER);
    recording.dispatch(kernel, CopyParams { n }, &[*x, *y], grid(groups), f64::from(n));
    recording
}

// ---- Measuring ----

/// How much time and memory the roof may take.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// A run of arithmetic goes on for this long at the least.
    pub run: Duration,
    /// Bytes of each of the two sides of a copy, at most.
    pub copy_bytes: u64,
    /// How often everything is repeated.
    pub limits: Limits,
}

/// Finds the roof, and sets the clock of `target`.
///
/// # Errors
/// Those of the device.
pub fn measure(target: &mut Target, budget: Budget) -> Result<Roof, Error> {
    let mut open = target.open(Tier::Blocked)?;
    let (submit_ms, dispatch_us) = latency(&mut open, budget)?;
    target.submit_ms = submit_ms.median;
    let (compute, memory) = match &mut open {
        Open::Cpu(_) => (product(target, &mut open, budget)?, core_copy(budget)?),
        Open::Gpu(_) => {
            settle_clock(target, &mut open)?;
            let memory = gpu_copy(target, &mut open, budget)?;
            (gpu_compute(target, &mut open, budget)?, memory)
        }
    };
    target.close(open);
    Ok(Roof { compute, memory, submit_ms, dispatch_us })
}

/// A submission with one small dispatch; and each of 200 more.
fn latency(open: &mut Open, budget: Budget) -> Result<(Spread, f64), Error> {
    const MORE: usize = 200;
    let four = [4].into();
    let recording = match open {
        Open::Cpu(engine) => {
            let small = Problem::LayerNorm { t: 1, d: 32, residual: false, shift: 0.0 };
            small.record(&mut **engine, Tier::Blocked, 1)?.recording
        }
        Open::Gpu(engine) => {
            let (x, y) = (
                engine.upload(four, Format::F32, (&[1.0; 4]).into())?,
                engine.alloc(four, Format::F32)?,
            );
            record_copy(&copy(), &x, &y)
        }
    };
    let output = open.engine().alloc(four, Format::F32)?;
    let many = repeated(&recording.commands, 1 + MORE);
    let mut time = |recording| {
        wall(open, recording, &output)?; // compiles
        budget.limits.repeat(|| wall(open, recording, &output))
    };
    let (one, many) = (time(&recording)?, time(&many)?);
    Ok((one, (1e3 * (many.median - one.median) / MORE as f64).max(0.0)))
}

/// Some drivers offer timestamps that do not move; then the wall clock is used.
fn settle_clock(target: &mut Target, open: &mut Open) -> Result<(), Error> {
    let engine = open.engine();
    let shape = [1 << 20].into();
    let (x, y) = (engine.alloc(shape, Format::F32)?, engine.alloc(shape, Format::F32)?);
    let recording = record_copy(&copy(), &x, &y);
    let once = Limits { least: 2, most: 2, time: Duration::ZERO };
    if target.clock == Clock::Timestamps && target.time(open, &recording, once)?.median <= 0.0 {
        target.clock = Clock::Wall;
    }
    Ok(())
}

fn gpu_copy(target: &Target, open: &mut Open, budget: Budget) -> Result<Limit, Error> {
    const LEAST: u64 = 1 << 20;
    let engine = open.engine();
    let mut bytes = budget.copy_bytes.min(engine.caps().max_binding_bytes) & !(LEAST - 1);
    let (x, y) = loop {
        let shape = [(bytes / 4) as u32].into();
        let mut alloc = || engine.alloc(shape, Format::F32);
        match alloc().and_then(|x| Ok((x, alloc()?))) {
            Err(_) if bytes > LEAST => bytes /= 2, // there may be less memory than a binding takes
            pair => break pair?,
        }
    };
    let ms = target.time(open, &record_copy(&copy(), &x, &y), budget.limits)?;
    Ok(memory_limit(bytes, "copy.wgsl", ms))
}

fn memory_limit(bytes: u64, by: &str, ms: Spread) -> Limit {
    let by = format!("{by}, {} MiB", bytes >> 20);
    Limit { giga_per_s: 2e-6 * bytes as f64 / ms.min, by, ms }
}

/// The better of fused and separate multiply-adds, in runs long enough to time.
fn gpu_compute(target: &Target, open: &mut Open, budget: Budget) -> Result<Limit, Error> {
    const GROUPS: u32 = 4096;
    let invocations = GROUPS * FMA_WG;
    let y = open.engine().alloc([invocations, 4].into(), Format::F32)?;
    let mut best: Option<Limit> = None;
    for fused in [true, false] {
        let kernel = multiply_add(fused);
        let flops = |rounds| ROUND_FLOPS * f64::from(invocations) * f64::from(rounds);
        let record = |rounds| {
            let mut recording = Recording::new();
            let params = FmaParams { rounds, m: 0.75, c: 0.5 };
            recording.dispatch(&kernel, params, &[y], grid(GROUPS), flops(rounds));
            recording
        };
        let once = Limits { least: 1, most: 1, time: Duration::ZERO };
        let mut rounds = 4;
        let enough = 1e3 * budget.run.as_secs_f64();
        while rounds < 1 << 20 && target.time(open, &record(rounds), once)?.median < enough {
            rounds *= 2;
        }
        let ms = target.time(open, &record(rounds), budget.limits)?;
        let by = if fused { "fma(a, m, c)" } else { "a * m + c" };
        let limit = Limit {
            giga_per_s: 1e-6 * flops(rounds) / ms.min,
            by: format!("multiply_add.wgsl, {by}"),
            ms,
        };
        if best.as_ref().is_none_or(|best| best.giga_per_s < limit.giga_per_s) {
            best = Some(limit);
        }
    }
    Ok(best.expect("two were tried"))
}

fn product(target: &Target, open: &mut Open, budget: Budget) -> Result<Limit, Error> {
    let problem = Problem::linear(1024, 1024, 1024, false);
    let recorded = problem.record(open.engine(), Tier::Blocked, 1)?;
    let ms = target.time(open, &recorded.recording, budget.limits)?;
    let by = "product of 1024³, of this device itself".to_owned();
    Ok(Limit { giga_per_s: 1e-6 * problem.work(Tier::Blocked).flops / ms.min, by, ms })
}

fn core_copy(budget: Budget) -> Result<Limit, Error> {
    const PART: usize = 1 << 18;
    let bytes = budget.copy_bytes;
    let x = vec![1.0_f32; bytes as usize / 4];
    let mut y = vec![0.5_f32; x.len()];
    let ms = budget.limits.repeat(|| -> Result<_, Error> {
        let start = Instant::now();
        y.par_chunks_mut(PART).zip(x.par_chunks(PART)).for_each(|(y, x)| y.copy_from_slice(x));
        std::hint::black_box(&mut y);
        Ok(start.elapsed())
    })?;
    Ok(memory_limit(bytes, "copy on all cores", ms))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// 100 GFLOP/s and 10 GB/s: the ridge is at 10 operations a byte.
    pub fn roof() -> Roof {
        let ms = Spread::of([Duration::from_millis(1)]);
        let limit = |giga_per_s| Limit { giga_per_s, by: "hand".into(), ms };
        Roof { compute: limit(100.0), memory: limit(10.0), submit_ms: ms, dispatch_us: 1.0 }
    }

    #[test]
    fn the_roof_is_the_lower_limit() {
        let roof = roof();
        assert_eq!(roof.ridge(), 10.0);
        for (intensity, gflops, bound) in [
            (0.5, 5.0, Bound::Memory),
            (9.99, 99.9, Bound::Memory),
            (10.0, 100.0, Bound::Compute),
            (1e6, 100.0, Bound::Compute),
        ] {
            assert!((roof.gflops(intensity) - gflops).abs() < 1e-9, "{intensity}");
            assert_eq!(roof.bound(intensity), bound, "{intensity}");
        }
    }
}

//! Limits of the device: arithmetic, memory bandwidth, and the cost of a submission.
//!
//! On a GPU they are measured by the shaders in `shaders/roof/`; on the CPU, by its own matrix
//! product and a copy on all cores.

use super::{
    stats::{Limits, Spread, digits, giga_per_s},
    target::{Open, Target, repeated, wall},
};
use jinabert::{
    Error,
    kernel_check::{Clock, KernelCase, LayerNormCase, LinearCase, roof as shaders},
    kernels::Tier,
    recording::{Engine, Format, Recording, Tensor},
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    time::{Duration, Instant},
};

/// Limit, and its measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Rate in 10⁹ operations, or bytes, a second, of the fastest run: a roof is an upper bound.
    pub giga_per_s: f64,
    /// Name of the benchmark.
    pub by: String,
    /// Durations in milliseconds.
    pub ms: Spread,
    /// First measurement, if a kernel exceeded it and a later measurement was higher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<f64>,
}

impl Limit {
    /// Limit from `amount` operations or bytes in the fastest run.
    fn new(amount: f64, by: String, ms: Spread) -> Result<Self, Error> {
        let rate = giga_per_s(amount, ms.min).or(giga_per_s(amount, ms.median));
        let giga_per_s = rate.filter(|rate| *rate > 0.0).ok_or_else(|| {
            Error::Gpu(format!("{by} took {} ms by the device's own clock", ms.median))
        })?;
        Ok(Self { giga_per_s, by, ms, first: None })
    }

    /// Replaces the figure by that of a later measurement if that is higher by more than 1 %.
    fn raise(&mut self, later: Self) -> bool {
        let raised = later.giga_per_s > 1.01 * self.giga_per_s;
        if raised {
            let first = self.first.unwrap_or(self.giga_per_s);
            *self = Self { first: Some(first), ..later };
        }
        raised
    }
}

/// Limits of everything that runs on a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roof {
    /// Floating-point operations; a multiply-add counts as two.
    pub compute: Limit,
    /// Bytes read and written by a copy.
    pub memory: Limit,
    /// Time to submit one small dispatch and wait for it, in milliseconds of the wall clock.
    pub submit_ms: Spread,
    /// Time of each further dispatch of the same pass, in microseconds of the wall clock.
    pub dispatch_us: f64,
}

/// Limit that applies to a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// Arithmetic.
    Compute,
    /// Memory bandwidth.
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
    /// Operations per byte at which the two limits meet.
    pub fn ridge(&self) -> f64 {
        self.compute.giga_per_s / self.memory.giga_per_s
    }

    /// Limit that applies at `intensity` operations per byte.
    pub fn bound(&self, intensity: f64) -> Bound {
        if intensity < self.ridge() { Bound::Memory } else { Bound::Compute }
    }

    /// Figure of a limit.
    pub fn limit(&self, bound: Bound) -> &Limit {
        match bound {
            Bound::Compute => &self.compute,
            Bound::Memory => &self.memory,
        }
    }

    /// `rate`, in 10⁹ operations or bytes a second, as a percentage of a limit.
    pub fn percent(&self, bound: Bound, rate: f64) -> f64 {
        100.0 * rate / self.limit(bound).giga_per_s
    }

    /// GFLOP/s that the roof allows at `intensity` operations per byte.
    pub fn gflops(&self, intensity: f64) -> f64 {
        (intensity * self.memory.giga_per_s).min(self.compute.giga_per_s)
    }
}

// ---- Measuring ----

/// Limits on time and memory for measuring the roof.
#[derive(Clone, Copy, Debug)]
pub struct RoofBudget {
    /// Minimum duration of a run of arithmetic.
    pub run: Duration,
    /// Maximum bytes of the source of a copy, and of its destination.
    pub copy_bytes: u64,
    /// Limits for the repetitions of each measurement.
    pub limits: Limits,
}

/// Measures the roof, and sets the clock of `target`.
///
/// # Errors
/// Errors of the device.
pub fn measure(target: &mut Target, budget: RoofBudget) -> Result<Roof, Error> {
    let mut open = target.open(Tier::Blocked)?;
    let (submit_ms, dispatch_us) = latency(&mut open, budget)?;
    target.submit_ms = submit_ms.median;
    settle_clock(target, &mut open)?;
    let memory = limit(target, &mut open, Bound::Memory, budget)?;
    let compute = limit(target, &mut open, Bound::Compute, budget)?;
    target.close(open);
    Ok(Roof { compute, memory, submit_ms, dispatch_us })
}

fn limit(
    target: &Target,
    open: &mut Open,
    bound: Bound,
    budget: RoofBudget,
) -> Result<Limit, Error> {
    match (bound, &open) {
        (Bound::Compute, Open::Cpu(_)) => product(target, open, budget),
        (Bound::Compute, Open::Gpu(_)) => gpu_compute(target, open, budget),
        (Bound::Memory, Open::Cpu(_)) => core_copy(budget),
        (Bound::Memory, Open::Gpu(_)) => gpu_copy(target, open, budget),
    }
}

/// Repeated measurement of limits that kernels exceed: if the machine was busy during the first
/// measurement, its figure is too low.
pub struct Again {
    budget: RoofBudget,
    /// Remaining measurements of each limit: with data in a cache, kernels always exceed the copy.
    left: [u8; 2],
}

impl Again {
    /// For a roof that was measured with this budget.
    pub fn new(budget: RoofBudget) -> Self {
        Self { budget, left: [2; 2] }
    }

    /// Measures a limit again if a kernel reached `percent` of it, and keeps the higher figure;
    /// returns a message if it changed.  A failure of the device leaves the roof as it is.
    pub fn check(
        &mut self,
        target: &mut Target,
        roof: &mut Roof,
        bound: Bound,
        percent: Option<f64>,
    ) -> Option<String> {
        let passed = percent.is_some_and(|percent| percent > 100.0);
        let left = &mut self.left[bound as usize];
        if !passed || *left == 0 {
            return None;
        }
        *left -= 1;
        let measured = target.open(Tier::Blocked).and_then(|mut open| {
            let limit = limit(target, &mut open, bound, self.budget)?;
            target.close(open);
            Ok(limit)
        });
        let (limit, unit) = match bound {
            Bound::Compute => (&mut roof.compute, "GFLOP/s"),
            Bound::Memory => (&mut roof.memory, "GB/s"),
        };
        let before = limit.giga_per_s;
        let raised = limit.raise(measured.ok()?);
        raised.then(|| {
            format!(
                "  {bound} measured again, as a kernel passed it: {} {unit}, before {}; % above are of the latter\n",
                digits(limit.giga_per_s),
                digits(before),
            )
        })
    }
}

/// Duration of a submission with one small dispatch, and of each of 200 more dispatches.
fn latency(open: &mut Open, budget: RoofBudget) -> Result<(Spread, f64), Error> {
    const MORE: usize = 200;
    let four = [4].into();
    let recording = match open {
        Open::Cpu(engine) => {
            let small = LayerNormCase { t: 1, d: 32, residual: false, rms: false, shift: 0.0 };
            small.record(&mut **engine, Tier::Blocked.into(), 1)?.recording
        }
        Open::Gpu(engine) => {
            let x = engine.upload(four, Format::F32, (&[1.0; 4]).into())?;
            let y = engine.alloc(four, Format::F32)?;
            shaders::copy(&x, &y)
        }
    };
    let output = open.engine().alloc(four, Format::F32)?;
    let many = repeated(&recording.commands, 1 + MORE);
    let one = warm_wall(open, &recording, &output, budget.limits)?;
    let all = warm_wall(open, &many, &output, budget.limits)?;
    Ok((one, (1e3 * (all.median - one.median) / MORE as f64).max(0.0)))
}

/// Durations of a recording by the wall clock, after a first run.
fn warm_wall(
    open: &mut Open,
    recording: &Recording,
    output: &Tensor,
    limits: Limits,
) -> Result<Spread, Error> {
    wall(open, recording, output)?; // compiles the pipelines
    limits.repeat(|| wall(open, recording, output))
}

/// Switches from timestamps to the wall clock if they do not move.
fn settle_clock(target: &mut Target, open: &mut Open) -> Result<(), Error> {
    if target.clock == Clock::Wall {
        return Ok(());
    }
    let shape = [1 << 20].into();
    let x = open.engine().alloc(shape, Format::F32)?;
    let y = open.engine().alloc(shape, Format::F32)?;
    let recording = shaders::copy(&x, &y);
    let sink = open.engine().alloc([4].into(), Format::F32)?;
    wall(open, &recording, &sink)?; // compiles the pipelines
    let took = wall(open, &recording, &sink)?;
    if let Open::Gpu(engine) = open {
        let timestamps = engine.profile(&recording)?.iter().map(|span| span.time).sum();
        target.clock = Clock::working(took, timestamps);
    }
    Ok(())
}

fn gpu_copy(target: &Target, open: &mut Open, budget: RoofBudget) -> Result<Limit, Error> {
    const LEAST: u64 = 1 << 20;
    let engine = open.engine();
    let mut bytes = budget.copy_bytes.min(engine.caps().max_binding_bytes) & !(LEAST - 1);
    let (x, y) = loop {
        match copy_tensors(engine, bytes) {
            Err(_) if bytes > LEAST => bytes /= 2, // memory may be smaller than the largest binding
            pair => break pair?,
        }
    };
    let ms = target.time(open, &shaders::copy(&x, &y), budget.limits)?;
    memory_limit(bytes, "copy.wgsl", ms)
}

/// Source and destination of a copy.
fn copy_tensors(engine: &mut dyn Engine, bytes: u64) -> Result<(Tensor, Tensor), Error> {
    let shape = [(bytes / 4) as u32].into();
    Ok((engine.alloc(shape, Format::F32)?, engine.alloc(shape, Format::F32)?))
}

fn memory_limit(bytes: u64, by: &str, ms: Spread) -> Result<Limit, Error> {
    let by = format!("{by}, {} MiB", bytes >> 20);
    Limit::new(2.0 * bytes as f64, by, ms)
}

/// Higher rate of fused and separate multiply-adds, in runs long enough to time.
fn gpu_compute(target: &Target, open: &mut Open, budget: RoofBudget) -> Result<Limit, Error> {
    let y = open.engine().alloc([shaders::FMA_ELEMENTS].into(), Format::F32)?;
    let fused = multiply_adds(target, open, budget, true, &y)?;
    let separate = multiply_adds(target, open, budget, false, &y)?;
    Ok(if fused.giga_per_s < separate.giga_per_s { separate } else { fused })
}

/// Rate of fused or separate multiply-adds of the elements of `y`.
fn multiply_adds(
    target: &Target,
    open: &mut Open,
    budget: RoofBudget,
    fused: bool,
    y: &Tensor,
) -> Result<Limit, Error> {
    let once = Limits { least: 1, most: 1, time: Duration::ZERO };
    let enough = 1e3 * budget.run.as_secs_f64();
    let mut rounds = 4;
    let mut recording = shaders::multiply_add(fused, rounds, y);
    while rounds < 1 << 20 && target.time(open, &recording, once)?.median < enough {
        rounds *= 2;
        recording = shaders::multiply_add(fused, rounds, y);
    }
    let ms = target.time(open, &recording, budget.limits)?;
    let by = if fused { "fma(a, m, c)" } else { "a * m + c" };
    Limit::new(shaders::multiply_add_flops(rounds), format!("multiply_add.wgsl, {by}"), ms)
}

fn product(target: &Target, open: &mut Open, budget: RoofBudget) -> Result<Limit, Error> {
    let problem = LinearCase::new(1024, 1024, 1024, false);
    let recorded = problem.record(open.engine(), Tier::Blocked.into(), 1)?;
    let ms = target.time(open, &recorded.recording, budget.limits)?;
    let by = "product of 1024³, of this device itself".to_owned();
    Limit::new(problem.work(Tier::Blocked.into()).flops, by, ms)
}

fn core_copy(budget: RoofBudget) -> Result<Limit, Error> {
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
    memory_limit(bytes, "copy on all cores", ms)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// 100 GFLOP/s and 10 GB/s: the ridge is at 10 operations per byte.
    pub fn roof() -> Roof {
        let ms = Spread::of([Duration::from_millis(1)]);
        let limit = |giga_per_s| Limit { giga_per_s, by: "hand".into(), ms, first: None };
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
        assert_eq!([Bound::Compute, Bound::Memory].map(|b| roof.percent(b, 4.0)), [4.0, 40.0]);
    }

    #[test]
    fn a_limit_is_raised_and_never_lowered() {
        let ms = Spread::of([2, 4].map(Duration::from_millis));
        let limit = |amount| Limit::new(amount, "hand".into(), ms).expect("a rate");
        let mut compute = limit(2e8);
        assert_eq!((compute.giga_per_s, compute.first), (100.0, None));
        assert!(!compute.raise(limit(1.9e8)) && !compute.raise(limit(2.01e8)));
        assert_eq!((compute.giga_per_s, compute.first), (100.0, None));
        assert!(compute.raise(limit(3e8)) && compute.raise(limit(4e8)));
        assert_eq!((compute.giga_per_s, compute.first), (200.0, Some(100.0)));
        // A clock that does not move gives an error, not an infinite limit.
        let still = Limit::new(2e8, "hand".into(), Spread::of([Duration::ZERO]));
        assert!(matches!(still, Err(Error::Gpu(_))), "{still:?}");
    }

    #[test]
    fn a_limit_that_was_exceeded_is_measured_again() {
        let ms = Duration::from_millis;
        let limits = Limits { least: 1, most: 1, time: ms(0) };
        let budget = RoofBudget { run: ms(1), copy_bytes: 1 << 20, limits };
        let mut target = Target::find(jinabert::Device::Cpu).expect("the cores");
        let mut roof = roof();
        let mut again = Again::new(budget);
        // So low that a copy on any machine is faster.
        roof.memory.giga_per_s = 1e-6;
        let mut check =
            |roof: &mut Roof, percent| again.check(&mut target, roof, Bound::Memory, percent);
        assert_eq!(check(&mut roof, Some(100.0)), None);
        assert_eq!(check(&mut roof, None), None);
        let line = check(&mut roof, Some(101.0)).expect("a higher figure");
        assert!(line.contains("memory measured again") && line.contains("GB/s"), "{line}");
        assert!(line.chars().count() <= 101, "{line}");
        assert!(roof.memory.giga_per_s > 1e-3 && roof.memory.first == Some(1e-6));
        // The number of repeated measurements is limited.
        roof.memory.giga_per_s = 1e-6;
        assert!(check(&mut roof, Some(101.0)).is_some());
        roof.memory.giga_per_s = 1e-6;
        assert_eq!(check(&mut roof, Some(101.0)), None);
    }
}

//! The tuning search.

use super::{
    Key, Sizes, Stored,
    tuned_kernel::{Choice, TUNED_KERNELS, TunedKernel},
};
use crate::{
    activation::Activation,
    error::Error,
    gpu,
    kernel_check::{Clock, KernelCase, Recorded, compare},
    kernels::{KernelConfig, KernelVariant, Tier, attention, linear, linear_geglu},
    recording::{Engine, Format, Recording, Tensor},
};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// One measured candidate.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Name of the kernel, with `+r` for a residual.
    pub kernel: &'static str,
    /// Number of rows that were timed.
    pub rows: u32,
    /// Tier of the candidate.
    pub tier: Tier,
    /// Tile of the candidate, human-readable.
    pub tile: String,
    /// Result.
    pub verdict: Verdict,
}

/// Result of a candidate.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Correct, with its time.
    Right {
        /// Time of one dispatch, the minimum of a few.
        time: Duration,
        /// Speed in 10⁹ operations per second.
        gflops: f64,
    },
    /// Differs from the reference, or the device failed.
    Wrong(String),
}

/// Result of a search.
#[derive(Clone, Debug)]
pub struct Found {
    /// Fastest configuration found.
    pub config: KernelConfig,
    /// True if there was time for all candidates.
    pub complete: bool,
    /// Source of measured times.
    pub clock: Clock,
    /// Time of all products and attention at the largest size: default, found.
    pub totals: [Duration; 2],
}

/// Row counts for timing the tiles for many rows: enough to fill a large GPU, or little enough for
/// a slow device.
const MANY: [u32; 3] = [4096, 1024, 256];

/// Maximum time of a kernel; it is timed on the most rows within it.
const SOON: Duration = Duration::from_millis(30);

/// Compile-time limit, in multiples of the budget: a compiler may take a second per kernel, and
/// only compiled kernels can be timed.
const COMPILING: u32 = 5;

/// Maximum ratio of a candidate's time to the default's: smaller gains are noise.
const GAIN: f64 = 0.97;

/// Time ratio for few rows above which a tier is not timed for many rows.
const HOPELESS: f64 = 3.0;

/// Progress of a search, stored after each step so that a later search can continue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Fastest configuration so far.
    pub config: KernelConfig,
    /// Number of finished steps, one per kernel and number of rows.
    pub steps: usize,
    /// Number of searches so far.
    pub searches: u32,
    /// True if all steps are finished.
    pub complete: bool,
}

/// Searches for the fastest configuration on adapter number `index`, the key's, for about `budget`
/// plus compile time, and reports each trial.  Continues `from` an earlier search, and passes its
/// progress to `keep` after each step.
///
/// # Errors
/// [`Error::NoGpu`] if it cannot be opened.  A candidate that makes the device fail is rejected.
pub fn search(
    index: usize,
    key: &Key,
    budget: Duration,
    from: Option<Progress>,
    keep: impl FnMut(&Progress),
    report: impl FnMut(&Trial),
) -> Result<Found, Error> {
    let gpu = gpu::open(index)?;
    let clock = if gpu.summary.timestamps { Clock::Timestamps } else { Clock::Wall };
    let deadline = Instant::now() + budget;
    let engine = gpu::Engine::cached(gpu);
    let compiling = budget * COMPILING;
    let stored = key.stored();
    let sizes = key.sizes();
    let many = 256;
    let searches = 1 + from.as_ref().map_or(0, |from| from.searches);
    let mut search =
        Search { engine, clock, stored, sizes, deadline, compiling, many, searches, keep, report };
    search.run(from)
}

struct Search<K, R> {
    engine: gpu::Engine,
    clock: Clock,
    stored: Stored,
    sizes: Sizes,
    deadline: Instant,
    /// Remaining compile time.
    compiling: Duration,
    /// Row count for timing the tiles for many rows.
    many: u32,
    /// Number of searches, this one included.
    searches: u32,
    keep: K,
    report: R,
}

impl<K: FnMut(&Progress), R: FnMut(&Trial)> Search<K, R> {
    fn run(&mut self, from: Option<Progress>) -> Result<Found, Error> {
        let caps = self.engine.caps().clone();
        let usual = Tier::choose(&caps);
        let e = self.sizes.head_width();
        if usual == Tier::Naive {
            // A device with a single tier leaves no choice.
            let config = KernelConfig::usual_on(&caps, usual, e);
            let clock = self.clock;
            return Ok(Found { config, complete: true, clock, totals: [Duration::ZERO; 2] });
        }
        let bench = self.bench(TunedKernel::Linear, usual, 256)?;
        self.clock = self.working_clock(&bench)?;
        self.many = self.rows_in_time(&bench)?;
        if let Some(Progress { config, steps, .. }) = from {
            let total = self.total(config.tier, f64::INFINITY)?;
            return self.search_tiles(config, steps, [total, total]);
        }
        let mut tiers = Tier::of(&caps);
        tiers.retain(|tier| *tier != usual && *tier != Tier::Naive);
        let mut best = (KernelConfig::usual_on(&caps, usual, e), self.total(usual, f64::INFINITY)?);
        let before = best.1;
        for tier in tiers {
            let variant = self.variant(tier);
            if !variant.suits(&caps) || self.late() {
                continue;
            }
            if let Some(total) = self.total(tier, before.few.as_secs_f64() * HOPELESS)?.many
                && best.1.many.is_none_or(|many| total < many)
            {
                best = (
                    KernelConfig::usual_on(&caps, tier, e),
                    Total { few: before.few, many: Some(total) },
                );
            }
        }
        let (config, total) = best;
        self.search_tiles(config, 0, [before, total])
    }

    /// Searches the tiles of each kernel and number of rows, all rows first, skipping the first
    /// `steps` of them.
    fn search_tiles(
        &mut self,
        mut config: KernelConfig,
        mut steps: usize,
        [before, total]: [Total; 2],
    ) -> Result<Found, Error> {
        let last = config.products.len() - 1;
        let rows = std::iter::once(last).chain(0..last);
        let all: Vec<_> = rows.flat_map(|n| TUNED_KERNELS.map(|kernel| (n, kernel))).collect();
        let mut saved = Duration::ZERO;
        let searches = self.searches;
        for (step, &(n, kernel)) in all.iter().enumerate().skip(steps) {
            if self.late() {
                break;
            }
            saved += self.tiles(&mut config, n, kernel)?;
            if self.late() && step + 1 < all.len() {
                break; // this step may be incomplete
            }
            steps = step + 1;
            let complete = steps == all.len();
            (self.keep)(&Progress { config: config.clone(), steps, searches, complete });
        }
        let complete = steps == all.len();
        (self.keep)(&Progress { config: config.clone(), steps, searches, complete });
        let many = |total: Total| total.many.unwrap_or_default();
        let totals = [many(before), many(total).saturating_sub(saved)];
        Ok(Found { config, complete, clock: self.clock, totals })
    }

    /// Device timestamps, if they exist and advance.
    fn working_clock(&mut self, bench: &Bench) -> Result<Clock, Error> {
        let recording = &bench.large.recording;
        if self.clock == Clock::Wall {
            return Ok(Clock::Wall);
        }
        self.engine.run(recording, &bench.sink)?; // compiles
        let start = Instant::now();
        self.engine.run(recording, &bench.sink)?;
        let wall = start.elapsed();
        let ticks: Duration = self.engine.profile(recording)?.iter().map(|span| span.time).sum();
        Ok(Clock::working(wall, ticks))
    }

    /// Maximum rows of a product within the time limit, starting from those of `bench`.
    fn rows_in_time(&mut self, bench: &Bench) -> Result<u32, Error> {
        let time = self.time(&bench.large.recording, &bench.sink)?;
        let soon = |rows: &&u32| time * (**rows / bench.rows) <= SOON;
        Ok(*MANY.iter().find(soon).unwrap_or(&256))
    }

    /// Row count for timing tiles for at most `most` rows.
    fn timed_rows(&self, most: u32) -> u32 {
        most.min(self.many)
    }

    /// Compiles candidates on all cores, as the search has no time to compile them one by one.
    fn compile(&mut self, bench: &Bench, choices: &[Choice]) {
        let start = Instant::now();
        for some in choices.chunks(8) {
            let left = self.compiling.saturating_sub(start.elapsed());
            if left.is_zero() {
                break; // the other candidates would take search time
            }
            let recordings =
                some.iter().map(|choice| bench.retiled(&bench.large.recording, *choice));
            let programs = recordings.flat_map(|recording| recording.commands);
            self.engine.compile(programs.map(|command| command.program).collect());
        }
        let took = start.elapsed();
        self.compiling = self.compiling.saturating_sub(took);
        self.deadline += took;
    }

    fn variant(&self, tier: Tier) -> KernelVariant {
        let Stored { dtype, half_weights } = self.stored;
        KernelVariant::new(tier, dtype).for_weights(half_weights, self.engine.caps())
    }

    fn late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Times the default tiles of a tier, for few rows and, unless those take longer than `most`
    /// seconds, for many.
    fn total(&mut self, tier: Tier, most: f64) -> Result<Total, Error> {
        let usual = KernelConfig::usual_on(self.engine.caps(), tier, self.sizes.head_width());
        let few_rows = self.timed_rows(usual.products[0].rows);
        let few = self.sum(&usual, 0, few_rows)?;
        let hopeless = few.as_secs_f64() > most;
        let last = usual.products.len() - 1;
        let many = if hopeless {
            None
        } else {
            Some(self.sum(&usual, last, self.timed_rows(u32::MAX))?)
        };
        Ok(Total { few, many })
    }

    fn sum(&mut self, config: &KernelConfig, n: usize, rows: u32) -> Result<Duration, Error> {
        let mut sum = Duration::ZERO;
        for kernel in TUNED_KERNELS {
            let bench = self.bench(kernel, config.tier, rows)?;
            sum += self.trial(&bench, kernel.choice(config, n)).unwrap_or(Duration::MAX / 8);
        }
        Ok(sum)
    }

    /// Finds a kernel's tile for entry `n` of the products; for attention, with the last entry.
    /// Returns the time saved.
    fn tiles(
        &mut self,
        config: &mut KernelConfig,
        n: usize,
        kernel: TunedKernel,
    ) -> Result<Duration, Error> {
        let most = config.products[n].rows;
        let last = n + 1 == config.products.len();
        let candidates = kernel.candidates(config.tier, most, self.sizes.head_width());
        if candidates.len() < 2 || !last && kernel == TunedKernel::Attention {
            return Ok(Duration::ZERO);
        }
        let bench = self.bench(kernel, config.tier, self.timed_rows(most))?;
        self.compile(&bench, &candidates);
        let mut times = Vec::new();
        for &candidate in &candidates {
            if self.late() && !times.is_empty() {
                break;
            }
            times.extend(self.trial(&bench, candidate).map(|time| (time, candidate)));
        }
        times.sort_by_key(|(time, _)| *time);
        let Some(&(_, best)) = times.first().filter(|(_, best)| *best != candidates[0]) else {
            return Ok(Duration::ZERO);
        };
        // Other load may have disturbed the times: measure the two again, alternating.
        let [usual, time] = self.duel(&bench, [candidates[0], best])?;
        if time.as_secs_f64() >= GAIN * usual.as_secs_f64() {
            return Ok(Duration::ZERO);
        }
        kernel.choose(config, n, best);
        Ok(if last { usual - time } else { Duration::ZERO })
    }

    /// Creates a case of the model's size, and a small one with its reference result.
    fn bench(&mut self, kernel: TunedKernel, tier: Tier, rows: u32) -> Result<Bench, Error> {
        let variant = self.variant(tier);
        let case = kernel.case(self.sizes, rows);
        let large = case.record(&mut self.engine, variant, 1)?;
        let sample = kernel.sample(self.sizes);
        let mut reference = crate::cpu::Engine::new(Tier::Reference);
        let reference_variant = KernelVariant { tier: Tier::Reference, ..variant };
        let expected = sample.record(&mut reference, reference_variant, 2)?;
        let answer = reference.run(&expected.recording, &expected.output)?;
        let small = sample.record(&mut self.engine, variant, 2)?;
        let sink = self.engine.alloc([4].into(), Format::F32)?;
        let activation = self.sizes.activation;
        Ok(Bench { kernel, activation, rows, variant, case, large, sample, small, answer, sink })
    }

    /// Checks and times a candidate; `None` if it is wrong.
    fn trial(&mut self, bench: &Bench, choice: Choice) -> Option<Duration> {
        let timed = bench.check(&mut self.engine, choice).and_then(|()| {
            let recording = bench.retiled(&bench.large.recording, choice);
            self.time(&recording, &bench.sink).map_err(|error| error.to_string())
        });
        let verdict = match &timed {
            Err(what) => Verdict::Wrong(what.clone()),
            Ok(time) => {
                let flops = bench.case.work(bench.variant).flops;
                Verdict::Right { time: *time, gflops: 1e-9 * flops / time.as_secs_f64() }
            }
        };
        (self.report)(&Trial {
            kernel: bench.kernel.name(),
            rows: bench.rows,
            tier: bench.variant.tier,
            tile: choice.to_string(),
            verdict,
        });
        timed.ok()
    }

    /// Minimum time of several runs of each of two candidates, alternating.
    fn duel(&mut self, bench: &Bench, choices: [Choice; 2]) -> Result<[Duration; 2], Error> {
        let recordings = choices.map(|choice| bench.retiled(&bench.large.recording, choice));
        let mut best = [Duration::MAX; 2];
        for _ in 0..3 {
            for (best, recording) in best.iter_mut().zip(&recordings) {
                *best = self.time(recording, &bench.sink)?.min(*best);
            }
        }
        Ok(best)
    }

    /// Minimum time of a few runs, after a warm-up run.
    fn time(&mut self, recording: &Recording, sink: &Tensor) -> Result<Duration, Error> {
        let mut once = || match self.clock {
            Clock::Timestamps => {
                Ok::<_, Error>(self.engine.profile(recording)?.iter().map(|span| span.time).sum())
            }
            Clock::Wall => {
                let start = Instant::now();
                self.engine.run(recording, sink)?;
                Ok(start.elapsed())
            }
        };
        once()?;
        let start = Instant::now();
        let mut best = Duration::MAX;
        for _ in 0..5 {
            best = best.min(once()?);
            if start.elapsed() > Duration::from_millis(60) {
                break;
            }
        }
        Ok(best.max(Duration::from_nanos(1)))
    }
}

/// Times of all kernels with default tiles.
#[derive(Clone, Copy)]
struct Total {
    few: Duration,
    many: Option<Duration>,
}

/// A case set up for timing candidates.
struct Bench {
    kernel: TunedKernel,
    /// Activation of the gate.
    activation: Activation,
    rows: u32,
    variant: KernelVariant,
    case: Box<dyn KernelCase>,
    large: Recorded,
    sample: Box<dyn KernelCase>,
    small: Recorded,
    /// Reference result of `small`.
    answer: Vec<f32>,
    /// Small tensor to read back.
    sink: Tensor,
}

impl Bench {
    fn check(&self, engine: &mut gpu::Engine, choice: Choice) -> Result<(), String> {
        let recording = self.retiled(&self.small.recording, choice);
        let actual = engine.run(&recording, &self.small.output).map_err(|e| e.to_string())?;
        let checked = compare(&actual, &self.answer, self.sample.tolerance(self.variant));
        if checked.wrong > 0 { Err(checked.to_string()) } else { Ok(()) }
    }

    /// The same dispatches, with another tile in the last one.
    fn retiled(&self, recording: &Recording, choice: Choice) -> Recording {
        let mut out = recording.clone();
        let command = out.commands.pop().expect("a case has a dispatch");
        match (self.kernel, choice) {
            (TunedKernel::Linear | TunedKernel::LinearAdd, Choice::Product(tile)) => {
                let residual = self.kernel == TunedKernel::LinearAdd;
                let spec = linear::Spec { tile, ..linear::Spec::new(self.variant, residual) };
                let kernel = linear::kernel(spec);
                linear::record(&mut out, &kernel, linear::Args::from(&command));
            }
            (TunedKernel::LinearGeglu, Choice::Product(tile)) => {
                let params: linear_geglu::Params = command.params();
                let gate_first = params.gate_first == 1;
                let usual = linear_geglu::Spec::new(self.variant, gate_first, self.activation);
                let kernel = linear_geglu::kernel(linear_geglu::Spec { tile, ..usual });
                linear_geglu::record(&mut out, &kernel, linear_geglu::Args::from(&command));
            }
            (TunedKernel::Attention, Choice::Attention(tile)) => {
                let params: attention::Params = command.params();
                let e = (1.0 / params.scale.powi(2)).round() as u32;
                let spec = attention::Spec { tile, ..attention::Spec::new(self.variant, e) };
                let args = attention::Args::from(&command);
                let keys = vec![attention::TILE; params.tiles as usize]; // no slices here
                attention::record(
                    &mut out,
                    &attention::kernel(spec),
                    args,
                    [params.scale, params.skip],
                    &keys,
                );
            }
            (kernel, choice) => unreachable!("{choice:?} of {kernel:?}"),
        }
        out
    }
}

//! The search itself.

use super::Sizes;
use crate::{
    error::Error,
    gpu,
    kernels::{Dtype, Plan, Tier, Tile, Version, attention, linear, linear_geglu},
    probe::{Clock, Problem, Recorded, compare},
    recording::{Engine, Format, Recording, Tensor},
};
use std::{
    fmt,
    time::{Duration, Instant},
};

/// A candidate that was tried.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The kernel's word, and `+r` with a residual.
    pub word: &'static str,
    /// Rows it was timed on.
    pub rows: u32,
    /// Its tier.
    pub tier: Tier,
    /// Its tile, for people.
    pub tile: String,
    /// How it did.
    pub verdict: Verdict,
}

/// How a candidate did.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is right and takes so long.
    Right {
        /// One dispatch, the fastest of a few.
        time: Duration,
        /// 10⁹ operations a second.
        gflops: f64,
    },
    /// It computes something else than its twin, or the device failed.
    Wrong(String),
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The fastest of what was tried.
    pub plan: Plan,
    /// Whether there was time for all.
    pub complete: bool,
    /// How times were taken.
    pub clock: Clock,
    /// Time of all products and attention at the largest size, usual and found.
    pub totals: [Duration; 2],
}

/// Rows at which tiles for so many rows at most are timed: what fills a tile of any candidate, and
/// is soon done on a slow device.
fn timed_rows(most: u32) -> u32 {
    most.min(256)
}

/// A candidate must be this much faster than the usual one: less is noise.
const GAIN: f64 = 0.97;

/// A tier that takes so many times as long for few rows is not timed for many.
const HOPELESS: f64 = 3.0;

/// The kernels that have tiles to choose.
const WORDS: [Word; 4] = [Word::Linear, Word::LinearAdd, Word::LinearGeglu, Word::Attention];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Word {
    Linear,
    LinearAdd,
    LinearGeglu,
    Attention,
}

/// A tile of either kind.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Choice {
    Product(Tile),
    Attention(attention::Tile),
}

/// Looks for the fastest plan on adapter number `index`, for about as long as `budget`, and tells
/// of each trial.
///
/// # Errors
/// [`Error::NoGpu`] if it cannot be opened.  A candidate on which the device fails has lost.
pub fn search(
    index: usize,
    dtype: Dtype,
    sizes: Sizes,
    budget: Duration,
    report: impl FnMut(&Trial),
) -> Result<Found, Error> {
    let gpu = gpu::open(index)?;
    let clock = if gpu.summary.timestamps { Clock::Timestamps } else { Clock::Wall };
    let deadline = Instant::now() + budget;
    let engine = gpu::Engine::cached(gpu);
    let mut search = Search { engine, clock, dtype, sizes, deadline, report };
    search.run()
}

struct Search<R> {
    engine: gpu::Engine,
    clock: Clock,
    dtype: Dtype,
    sizes: Sizes,
    deadline: Instant,
    report: R,
}

impl<R: FnMut(&Trial)> Search<R> {
    fn run(&mut self) -> Result<Found, Error> {
        let caps = self.engine.caps().clone();
        let usual = Tier::choose(&caps);
        let e = self.sizes.head_width();
        if usual == Tier::Naive {
            // A device that can do no more has nothing to choose from.
            let (plan, clock) = (Plan::usual(usual, e), self.clock);
            return Ok(Found { plan, complete: true, clock, totals: [Duration::ZERO; 2] });
        }
        let mut tiers = Tier::of(&caps);
        tiers.retain(|tier| *tier != usual && *tier != Tier::Naive);
        let mut best = (Plan::usual(usual, e), self.total(usual, f64::INFINITY)?);
        let before = best.1;
        for tier in tiers {
            let version = Version { tier, dtype: self.dtype };
            if !version.suits(&caps) || self.late() {
                continue;
            }
            if let Some(total) = self.total(tier, before.few.as_secs_f64() * HOPELESS)?.many
                && best.1.many.is_none_or(|many| total < many)
            {
                best = (Plan::usual(tier, e), Total { few: before.few, many: Some(total) });
            }
        }
        let (mut plan, total) = best;
        let mut saved = Duration::ZERO;
        let last = plan.products.len() - 1;
        for n in std::iter::once(last).chain(0..last) {
            saved += self.tiles(&mut plan, n)?;
        }
        let many = |total: Total| total.many.unwrap_or_default();
        let found = many(total).saturating_sub(saved);
        let totals = [many(before), found];
        Ok(Found { plan, complete: !self.late(), clock: self.clock, totals })
    }

    fn late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// The usual tiles of a tier, for few rows and, unless those take longer than `most` seconds,
    /// for many.
    fn total(&mut self, tier: Tier, most: f64) -> Result<Total, Error> {
        let usual = Plan::usual(tier, self.sizes.head_width());
        let few = timed_rows(usual.products[0].rows);
        let few = self.sum(&usual, 0, few)?;
        let hopeless = few.as_secs_f64() > most;
        let last = usual.products.len() - 1;
        let many = match hopeless {
            true => None,
            false => Some(self.sum(&usual, last, timed_rows(u32::MAX))?),
        };
        Ok(Total { few, many })
    }

    fn sum(&mut self, plan: &Plan, n: usize, rows: u32) -> Result<Duration, Error> {
        let mut sum = Duration::ZERO;
        for word in WORDS {
            let bench = self.bench(word, plan.tier, rows)?;
            sum += self.trial(&bench, word.choice(plan, n)).unwrap_or(Duration::MAX / 8);
        }
        Ok(sum)
    }

    /// Finds the tiles for entry `n` of the plan's products, and with the last those of attention.
    /// Returns how much time they save together.
    fn tiles(&mut self, plan: &mut Plan, n: usize) -> Result<Duration, Error> {
        let most = plan.products[n].rows;
        let last = n + 1 == plan.products.len();
        let mut saved = Duration::ZERO;
        for word in WORDS.into_iter().filter(|word| last || *word != Word::Attention) {
            let candidates = word.candidates(plan.tier, most, self.sizes.head_width());
            if candidates.len() < 2 || self.late() {
                continue;
            }
            let bench = self.bench(word, plan.tier, timed_rows(most))?;
            let mut times = Vec::new();
            for &candidate in &candidates {
                if self.late() && !times.is_empty() {
                    break;
                }
                times.extend(self.trial(&bench, candidate).map(|time| (time, candidate)));
            }
            times.sort_by_key(|(time, _)| *time);
            let Some(&(_, best)) = times.first().filter(|(_, best)| *best != candidates[0]) else {
                continue;
            };
            // Something else may have kept the device busy meanwhile: the two again, in turns.
            let [usual, time] = self.duel(&bench, [candidates[0], best])?;
            if time.as_secs_f64() < GAIN * usual.as_secs_f64() {
                word.choose(plan, n, best);
                saved += if last { usual - time } else { Duration::ZERO };
            }
        }
        Ok(saved)
    }

    /// A problem of the model's size, and a small one with its answer.
    fn bench(&mut self, word: Word, tier: Tier, rows: u32) -> Result<Bench, Error> {
        let version = Version { tier, dtype: self.dtype };
        let problem = word.problem(self.sizes, rows);
        let large = problem.record(&mut self.engine, version, 1)?;
        let sample = word.sample(self.sizes);
        let mut twin = crate::cpu::Engine::new(Tier::Twin);
        let twin_version = Version { tier: Tier::Twin, ..version };
        let answer = sample.record(&mut twin, twin_version, 2)?;
        let answer = twin.run(&answer.recording, &answer.output)?;
        let small = sample.record(&mut self.engine, version, 2)?;
        let sink = self.engine.alloc([4].into(), Format::F32)?;
        Ok(Bench { word, rows, version, problem, large, sample, small, answer, sink })
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
                let flops = bench.problem.work(bench.version).flops;
                Verdict::Right { time: *time, gflops: 1e-9 * flops / time.as_secs_f64() }
            }
        };
        (self.report)(&Trial {
            word: bench.word.name(),
            rows: bench.rows,
            tier: bench.version.tier,
            tile: choice.to_string(),
            verdict,
        });
        timed.ok()
    }

    /// The fastest of some runs of each of two, in turns.
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

    /// The fastest of a few runs, after one for nothing.
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

/// Times of all kernels in usual tiles.
#[derive(Clone, Copy)]
struct Total {
    few: Duration,
    many: Option<Duration>,
}

/// A problem set up for candidates.
struct Bench {
    word: Word,
    rows: u32,
    version: Version,
    problem: Problem,
    large: Recorded,
    sample: Problem,
    small: Recorded,
    /// What the twin says of `small`.
    answer: Vec<f32>,
    /// Something small to read back.
    sink: Tensor,
}

impl Bench {
    fn check(&self, engine: &mut gpu::Engine, choice: Choice) -> Result<(), String> {
        let recording = self.retiled(&self.small.recording, choice);
        let actual = engine.run(&recording, &self.small.output).map_err(|e| e.to_string())?;
        let checked = compare(&actual, &self.answer, self.sample.tolerance(self.version));
        if checked.wrong > 0 { Err(checked.to_string()) } else { Ok(()) }
    }

    /// The same dispatches, the last in another tile.
    fn retiled(&self, recording: &Recording, choice: Choice) -> Recording {
        let mut out = recording.clone();
        let command = out.commands.pop().expect("a problem has a dispatch");
        match (self.word, choice) {
            (Word::Linear | Word::LinearAdd, Choice::Product(tile)) => {
                let residual = self.word == Word::LinearAdd;
                let spec = linear::Spec { tile, ..linear::Spec::new(self.version, residual) };
                let kernel = linear::kernel(spec);
                linear::record(&mut out, &kernel, linear::Args::from(&command));
            }
            (Word::LinearGeglu, Choice::Product(tile)) => {
                let Problem::LinearGeglu { gate_first, activation, .. } = self.problem else {
                    unreachable!("made for this word")
                };
                let usual = linear_geglu::Spec::new(self.version, gate_first, activation);
                let kernel = linear_geglu::kernel(linear_geglu::Spec { tile, ..usual });
                linear_geglu::record(&mut out, &kernel, linear_geglu::Args::from(&command));
            }
            (Word::Attention, Choice::Attention(tile)) => {
                let params: attention::Params = command.params();
                let e = (1.0 / params.scale.powi(2)).round() as u32;
                let spec = attention::Spec { tile, ..attention::Spec::new(self.version, e) };
                let args = attention::Args::from(&command);
                let keys = vec![attention::TILE; params.tiles as usize]; // nothing is sliced here
                attention::record(&mut out, &attention::kernel(spec), args, params.skip, &keys);
            }
            (word, choice) => unreachable!("{choice:?} of {word:?}"),
        }
        out
    }
}

impl Word {
    fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::LinearAdd => "linear +r",
            Self::LinearGeglu => "linear_geglu",
            Self::Attention => "attention",
        }
    }

    fn problem(self, sizes: Sizes, t: u32) -> Problem {
        let Sizes { hidden: d, intermediate: f, heads, .. } = sizes;
        let (gate_first, activation) = (true, sizes.activation());
        let (e, skip_eps) = (sizes.head_width(), attention::SKIP_EPS);
        match self {
            Self::Linear => Problem::linear(t, 3 * d, d, false),
            Self::LinearAdd => Problem::linear(t, d, f, true),
            Self::LinearGeglu => Problem::LinearGeglu { t, f, k: d, gate_first, activation },
            Self::Attention => Problem::Attention {
                lengths: vec![t],
                unseen: 0,
                heads,
                e,
                sharpness: 1.0,
                skip_eps,
            },
        }
    }

    /// A small problem beside every tile's edge.
    fn sample(self, sizes: Sizes) -> Problem {
        let (gate_first, activation) = (true, sizes.activation());
        let (e, skip_eps) = (sizes.head_width(), attention::SKIP_EPS);
        match self {
            Self::Linear => Problem::linear(67, 132, 76, false),
            Self::LinearAdd => Problem::linear(67, 132, 76, true),
            Self::LinearGeglu => {
                Problem::LinearGeglu { t: 67, f: 68, k: 76, gate_first, activation }
            }
            Self::Attention => {
                let lengths = vec![70, 9, 1];
                Problem::Attention { lengths, unseen: 0, heads: 2, e, sharpness: 1.0, skip_eps }
            }
        }
    }

    fn candidates(self, tier: Tier, rows: u32, e: u32) -> Vec<Choice> {
        match self {
            Self::Attention => {
                let tiles = attention::Spec::candidates(tier, e).into_iter();
                tiles.map(Choice::Attention).collect()
            }
            _ => Tile::candidates(tier, rows).into_iter().map(Choice::Product).collect(),
        }
    }

    fn choice(self, plan: &Plan, n: usize) -> Choice {
        let tiles = plan.products[n];
        match self {
            Self::Linear => Choice::Product(tiles.linear),
            Self::LinearAdd => Choice::Product(tiles.linear_add),
            Self::LinearGeglu => Choice::Product(tiles.linear_geglu),
            Self::Attention => Choice::Attention(plan.attention),
        }
    }

    fn choose(self, plan: &mut Plan, n: usize, choice: Choice) {
        let tiles = &mut plan.products[n];
        match (self, choice) {
            (Self::Linear, Choice::Product(tile)) => tiles.linear = tile,
            (Self::LinearAdd, Choice::Product(tile)) => tiles.linear_add = tile,
            (Self::LinearGeglu, Choice::Product(tile)) => tiles.linear_geglu = tile,
            (Self::Attention, Choice::Attention(tile)) => plan.attention = tile,
            (word, choice) => unreachable!("{choice:?} of {word:?}"),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Product(tile) => tile.fmt(f),
            Self::Attention(tile) => tile.fmt(f),
        }
    }
}

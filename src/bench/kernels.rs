//! Every kernel in every tier, at the sizes of published models, next to the roof.

use super::{
    roof::{Bound, Roof},
    stats::{Limits, Spread},
    target::{Open, Target},
};
use crate::{
    error::Error,
    kernels::{Version, attention::SKIP_EPS, linear_geglu::Activation},
    probe::Problem,
    recording::Caps,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What was found about a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The kernel's word.
    pub kernel: String,
    /// Which version of it; the first of those that share it.
    pub tier: String,
    /// The model that has such sizes.
    pub size: String,
    /// The sizes, without the number of tokens.
    pub shape: String,
    /// T
    pub tokens: u32,
    /// The problem in full.
    pub problem: String,
    /// Whether it computes what its twin does.
    pub check: Check,
    /// Missing where it is wrong or the device failed.
    pub timing: Option<Timing>,
}

/// A comparison with the twin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// On how many tokens.
    pub tokens: u32,
    /// Largest absolute difference.
    pub error: f32,
    /// What is wrong, if anything is.
    pub fault: Option<String>,
}

/// How fast a kernel is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// One dispatch, in milliseconds.
    pub ms: Spread,
    /// Operations that it must do.
    pub flops: f64,
    /// Bytes that it must move.
    pub bytes: f64,
    /// Operations a byte.
    pub intensity: f64,
    /// 10⁹ operations a second.
    pub gflops: f64,
    /// 10⁹ bytes a second.
    pub gbps: f64,
    /// Which limit of the device applies.
    pub bound: Bound,
    /// Percent of that limit; over 100 where data stay in a cache that the copy did not fit.
    pub percent: f64,
}

impl Timing {
    fn new(problem: &Problem, version: Version, ms: Spread, roof: &Roof) -> Self {
        let work = problem.work(version);
        let (intensity, gflops) = (work.flops / work.bytes, 1e-6 * work.flops / ms.median);
        Self {
            ms,
            flops: work.flops,
            bytes: work.bytes,
            intensity,
            gflops,
            gbps: 1e-6 * work.bytes / ms.median,
            bound: roof.bound(intensity),
            percent: 100.0 * gflops / roof.gflops(intensity),
        }
    }
}

/// How much time the kernels may take.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// A run should not take longer: fewer tokens otherwise.
    pub run: Duration,
    /// How often each is repeated.
    pub limits: Limits,
}

/// Sizes of a published model.
struct Size {
    name: &'static str,
    d: u32,
    heads: u32,
    f: u32,
}

/// jina-embeddings-v2-small-en and -base-en.
const SIZES: &[Size] = &[
    Size { name: "small", d: 512, heads: 8, f: 2048 },
    Size { name: "base", d: 768, heads: 12, f: 3072 },
];
const VOCABULARY: u32 = 30_528;

/// A problem for any number of tokens.
pub struct Case {
    size: &'static str,
    shape: String,
    make: Box<dyn Fn(u32) -> Problem>,
}

/// The problems of a layer, of embedding and of pooling, small models first.
pub fn cases(words: &[String]) -> Vec<Case> {
    let all = SIZES.iter().flat_map(|&Size { name, d, heads, f }| {
        let case =
            |shape: String, make: Box<dyn Fn(u32) -> Problem>| Case { size: name, shape, make };
        let linear = |n: u32, k: u32, residual: bool| {
            let shape = format!("N{n} K{k}{}", if residual { " +r" } else { "" });
            case(shape, Box::new(move |t| Problem::linear(t, n, k, residual)))
        };
        let attention = |length: u32, skip_eps: f32| {
            let make = move |t| Problem::Attention {
                lengths: split(t, length),
                unseen: 0,
                heads,
                e: d / heads,
                sharpness: 1.0,
                skip_eps,
            };
            let dense = if skip_eps > 0.0 { "" } else { " dense" };
            case(format!("H{heads} L{length}{dense}"), Box::new(make))
        };
        let activation = Activation::Gelu;
        let geglu = move |t| Problem::LinearGeglu { t, f, k: d, gate_first: true, activation };
        let norms =
            move |t| Problem::KeyNorm { lengths: split(t, 128), unseen: 0, heads, e: d / heads };
        let pool = move |t| Problem::pool(&split(t, 128), d);
        let gather = move |t| Problem::Gather { t, d, rows: (0..t).rev().collect() };
        [
            case(
                format!("D{d} V{VOCABULARY}"),
                Box::new(move |t| Problem::Embed { t, d, vocab: VOCABULARY, parts: 1 }),
            ),
            linear(3 * d, d, false),
            linear(d, f, true),
            case(format!("F{f} K{d}"), Box::new(geglu)),
            case(format!("H{heads}"), Box::new(norms)),
            attention(128, SKIP_EPS),
            attention(1024, SKIP_EPS),
            attention(1024, 0.0),
            case(
                format!("D{d} +r"),
                Box::new(move |t| Problem::LayerNorm { t, d, residual: true, shift: 0.0 }),
            ),
            case(format!("D{d} L128"), Box::new(pool)),
            case(format!("D{d}"), Box::new(gather)),
        ]
    });
    all.filter(|case| words.is_empty() || words.iter().any(|word| word == case.word())).collect()
}

/// Sequences of `length` tokens and one of the rest.
fn split(t: u32, length: u32) -> Vec<u32> {
    let whole = std::iter::repeat_n(length, (t / length) as usize);
    whole.chain(Some(t % length).filter(|&rest| rest > 0)).collect()
}

/// Token counts, most first.
const TOKENS: [u32; 11] = [16_384, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16];
const LEAST: u32 = TOKENS[TOKENS.len() - 1];
/// Fewer are not timed: they would leave tiles half empty.
const FULL: u32 = 64;

/// What a problem may cost at the most: operations and bytes of the device, operations of the twin.
const MOST_FLOPS: f64 = 4e11;
const MOST_BYTES: f64 = 256e6;
const TWIN_FLOPS: f64 = 2e8;

impl Case {
    /// The kernel's word.
    pub fn word(&self) -> &'static str {
        (self.make)(LEAST).word()
    }

    /// The versions of a device whose kernels for it differ.
    pub fn versions(&self, caps: &Caps) -> Vec<Version> {
        (self.make)(LEAST).versions(caps)
    }

    /// Most tokens for which `fits` holds.
    fn most(&self, fits: impl Fn(&Problem) -> bool) -> u32 {
        let found = TOKENS.into_iter().find(|&t| fits(&(self.make)(t)));
        found.unwrap_or(LEAST)
    }

    /// Checks it, and times it if it is right.  A failure of the device is a fault of the kernel.
    pub fn run(&self, target: &mut Target, version: Version, roof: &Roof, budget: Budget) -> Row {
        let mut row = Row {
            kernel: self.word().to_owned(),
            tier: version.to_string(),
            size: self.size.to_owned(),
            shape: self.shape.clone(),
            tokens: 0,
            problem: String::new(),
            check: Check { tokens: 0, error: 0.0, fault: None },
            timing: None,
        };
        let done = target.open(version.tier).and_then(|mut open| {
            self.fill(&mut row, target, &mut open, version, roof, budget)?;
            target.close(open);
            Ok(())
        });
        if let Err(error) = done {
            row.check.fault = Some(error.to_string());
        }
        row
    }

    fn fill(
        &self,
        row: &mut Row,
        target: &Target,
        open: &mut Open,
        version: Version,
        roof: &Roof,
        budget: Budget,
    ) -> Result<(), Error> {
        let t = self.tokens(target, open, version, budget)?;
        let fewer = self.most(|problem| problem.work(version).flops <= TWIN_FLOPS).min(t);
        let problem = (self.make)(t);
        (row.tokens, row.check.tokens, row.problem) = (t, fewer, problem.to_string());

        let checked = (self.make)(fewer).check(open.engine(), version, 1)?;
        row.check.error = checked.error;
        if checked.wrong > 0 {
            let (n, actual, expected) = checked.worst[0];
            row.check.fault = Some(format!(
                "{} of {} elements wrong, as [{n}]: {actual:?} where {expected:?} is meant",
                checked.wrong, checked.total
            ));
            return Ok(());
        }
        let recorded = problem.record(open.engine(), version, 1)?;
        let ms = target.time(open, &recorded.recording, budget.limits)?;
        row.timing = Some(Timing::new(&problem, version, ms, roof));
        Ok(())
    }

    /// How many tokens there is time for: by a run of a few, then by one of as many as that allows,
    /// for a few may not fill a tile.
    fn tokens(
        &self,
        target: &Target,
        open: &mut Open,
        version: Version,
        budget: Budget,
    ) -> Result<u32, Error> {
        let once = Limits { least: 1, most: 1, time: Duration::ZERO };
        let mut t = LEAST;
        for _ in 0..2 {
            let problem = (self.make)(t);
            let recorded = problem.record(open.engine(), version, 1)?;
            let took = 1e-3 * target.time(open, &recorded.recording, once)?.median;
            let flops_a_run =
                problem.work(version).flops * budget.run.as_secs_f64() / took.max(1e-7);
            let most = self.most(|problem| {
                let work = problem.work(version);
                work.flops <= flops_a_run.min(MOST_FLOPS) && work.bytes <= MOST_BYTES
            });
            t = most.max(FULL);
        }
        Ok(t)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::roof::tests::roof, *};
    use crate::kernels::Tier;

    #[test]
    fn every_kernel_has_a_case() {
        let cases = cases(&[]);
        for kernel in crate::kernels::ALL {
            let of_it = || cases.iter().filter(|case| case.word() == kernel.word);
            assert!(SIZES.iter().all(|size| of_it().any(|case| case.size == size.name)));
        }
        let names: std::collections::BTreeSet<_> =
            cases.iter().map(|case| (case.word(), case.size, case.shape.as_str())).collect();
        assert_eq!(names.len(), cases.len(), "two cases of one name");
    }

    #[test]
    fn words_choose() {
        let chosen = cases(&["pool".to_owned(), "embed".to_owned()]);
        assert_eq!(chosen.len(), 2 * SIZES.len());
        assert!(chosen.iter().all(|case| ["pool", "embed"].contains(&case.word())));
    }

    #[test]
    fn sequences_add_up() {
        assert_eq!(split(300, 128), [128, 128, 44]);
        assert_eq!((split(16, 128), split(256, 128)), (vec![16], vec![128, 128]));
    }

    #[test]
    fn percent_is_of_the_limit_that_applies() {
        let ms = Spread::of([Duration::from_millis(1)]);
        // 2·64³ operations on 3·64² floats: 10.7 a byte, just right of the ridge
        let (version, problem) = (Tier::Tiled.into(), Problem::linear(64, 64, 64, false));
        let timing = Timing::new(&problem, version, ms, &roof());
        assert!((timing.gflops - 0.524_288).abs() < 1e-9 && timing.bound == Bound::Compute);
        assert!((timing.percent - 0.524_288).abs() < 1e-9);
        let problem = Problem::LayerNorm { t: 1000, d: 1000, residual: true, shift: 0.0 };
        let timing = Timing::new(&problem, version, ms, &roof());
        assert!((timing.gbps - 12.0).abs() < 1e-9 && timing.bound == Bound::Memory);
        assert!((timing.percent - 120.0).abs() < 1e-9, "{}", timing.percent);
    }
}

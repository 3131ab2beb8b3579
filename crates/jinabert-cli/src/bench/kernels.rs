//! Benchmarks of every kernel in every tier, at the sizes of published models, against the roof.

use super::{
    roof::{Bound, Roof},
    stats::{Limits, Spread, giga_per_s},
    target::{Open, Target},
};
use jinabert::{
    Error,
    kernel_check::{self, KernelCase, LayerCase, LayerSizes},
    kernels::KernelVariant,
    recording::Caps,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Results for a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the kernel.
    pub kernel: String,
    /// Variant of the kernel; the first of those that share its code.
    pub tier: String,
    /// Name of the model with these sizes.
    pub size: String,
    /// Sizes, without the number of tokens.
    pub shape: String,
    /// T: number of tokens.
    pub tokens: u32,
    /// Full description of the problem.
    pub problem: String,
    /// Comparison of its result with the reference.
    pub check: Check,
    /// Missing if the result is wrong or the device failed.
    pub timing: Option<KernelTiming>,
}

/// Comparison with the reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Number of tokens in the comparison.
    pub tokens: u32,
    /// Largest absolute difference; missing if it is not finite, or nothing was compared.
    pub error: Option<f32>,
    /// Error message, if the result is wrong.
    pub fault: Option<String>,
}

/// Speed of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelTiming {
    /// Duration of one dispatch, in milliseconds.
    pub ms: Spread,
    /// Floating-point operations required by the problem.
    pub flops: f64,
    /// Bytes that the problem must move.
    pub bytes: f64,
    /// Operations per byte.
    pub intensity: f64,
    /// 10⁹ operations a second; missing if the clock did not move.
    pub gflops: Option<f64>,
    /// 10⁹ bytes a second; missing if the clock did not move.
    pub gbps: Option<f64>,
    /// Limit of the device that applies.
    pub bound: Bound,
    /// Percentage of that limit; over 100 if data stay in a cache that was too small for the copy.
    /// Missing if the rate is.
    pub percent: Option<f64>,
}

impl KernelTiming {
    fn new(problem: &dyn KernelCase, variant: KernelVariant, ms: Spread, roof: &Roof) -> Self {
        let work = problem.work(variant);
        let intensity = work.flops / work.bytes;
        let mut timing = Self {
            ms,
            flops: work.flops,
            bytes: work.bytes,
            intensity,
            gflops: giga_per_s(work.flops, ms.median),
            gbps: giga_per_s(work.bytes, ms.median),
            bound: Bound::Memory,
            percent: None,
        };
        timing.set_roof(roof);
        timing
    }

    /// Recomputes the bound and the percentage for `roof`.
    pub fn set_roof(&mut self, roof: &Roof) {
        self.bound = roof.bound(self.intensity);
        self.percent = self.rate().map(|rate| roof.percent(self.bound, rate));
    }

    /// Rate that the bound limits: 10⁹ operations or bytes a second.
    fn rate(&self) -> Option<f64> {
        match self.bound {
            Bound::Compute => self.gflops,
            Bound::Memory => self.gbps,
        }
    }
}

/// Time limits for the kernels.
#[derive(Clone, Copy, Debug)]
pub struct KernelBudget {
    /// Target duration of a run: with fewer tokens if it would take longer.
    pub run: Duration,
    /// Limits for the repetitions of each kernel.
    pub limits: Limits,
}

/// jina-embeddings-v2-small-en and -base-en.
const SIZES: &[(&str, LayerSizes)] = &[
    ("small", LayerSizes { d: 512, heads: 8, f: 2048 }),
    ("base", LayerSizes { d: 768, heads: 12, f: 3072 }),
];

/// Problem of a kernel, for any number of tokens.
pub struct Case {
    size: &'static str,
    layer: LayerCase,
}

/// Problems of a layer, of embedding and of pooling, small models first.
pub fn cases(names: &[String]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &(size, sizes) in SIZES {
        for suite in kernel_check::ALL {
            if names.is_empty() || names.iter().any(|name| name == suite.kernel.name()) {
                let layers = (suite.layer)(sizes).into_iter();
                cases.extend(layers.map(|layer| Case { size, layer }));
            }
        }
    }
    cases
}

/// Token counts, largest first.
const TOKENS: [u32; 11] = [16_384, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16];
const LEAST: u32 = TOKENS[TOKENS.len() - 1];
/// Minimum token count for timing: fewer would leave tiles half empty.
const FULL: u32 = 64;

/// Maximum cost of a problem: operations and bytes on the device, operations of the reference.
const MOST_FLOPS: f64 = 4e11;
const MOST_BYTES: f64 = 256e6;
const REFERENCE_FLOPS: f64 = 2e8;

impl Case {
    fn problem(&self, tokens: u32) -> Box<dyn KernelCase> {
        (self.layer.case)(tokens)
    }

    /// Name of the kernel.
    pub fn word(&self) -> &'static str {
        self.problem(LEAST).kernel().name()
    }

    /// Versions of the kernel that differ on this device.
    pub fn variants(&self, caps: &Caps) -> Vec<KernelVariant> {
        self.problem(LEAST).variants(caps)
    }

    /// Largest token count for which `fits` holds.
    fn most(&self, fits: impl Fn(&dyn KernelCase) -> bool) -> u32 {
        let found = TOKENS.into_iter().find(|&t| fits(&*self.problem(t)));
        found.unwrap_or(LEAST)
    }

    /// Checks the kernel, and times it if correct.  A device failure counts as its fault.
    pub fn run(
        &self,
        target: &mut Target,
        variant: KernelVariant,
        roof: &Roof,
        budget: KernelBudget,
    ) -> Row {
        let mut row = Row {
            kernel: self.word().to_owned(),
            tier: variant.to_string(),
            size: self.size.to_owned(),
            shape: self.layer.shape.clone(),
            tokens: 0,
            problem: String::new(),
            check: Check { tokens: 0, error: None, fault: None },
            timing: None,
        };
        let done = target.open(variant.tier).and_then(|mut open| {
            self.fill(&mut row, target, &mut open, variant, roof, budget)?;
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
        variant: KernelVariant,
        roof: &Roof,
        budget: KernelBudget,
    ) -> Result<(), Error> {
        let t = self.tokens(target, open, variant, budget)?;
        let fewer = self.most(|problem| problem.work(variant).flops <= REFERENCE_FLOPS).min(t);
        let problem = self.problem(t);
        row.tokens = t;
        row.check.tokens = fewer;
        row.problem = problem.to_string();

        let checked = self.problem(fewer).check(open.engine(), variant, 1)?;
        row.check.error = Some(checked.error).filter(|error| error.is_finite());
        if checked.wrong > 0 {
            let (n, actual, expected) = checked.worst[0];
            row.check.fault = Some(format!(
                "{} of {} elements wrong, as [{n}]: expected {expected:?}, got {actual:?}",
                checked.wrong, checked.total
            ));
            return Ok(());
        }
        let recorded = problem.record(open.engine(), variant, 1)?;
        let ms = target.time(open, &recorded.recording, budget.limits)?;
        row.timing = Some(KernelTiming::new(&*problem, variant, ms, roof));
        Ok(())
    }

    /// Largest token count that fits the time: estimated from a run with few tokens, then from one
    /// with that estimate, since a few tokens may not fill a tile.
    fn tokens(
        &self,
        target: &Target,
        open: &mut Open,
        variant: KernelVariant,
        budget: KernelBudget,
    ) -> Result<u32, Error> {
        let once = Limits { least: 1, most: 1, time: Duration::ZERO };
        let mut t = LEAST;
        for _ in 0..2 {
            let problem = self.problem(t);
            let recorded = problem.record(open.engine(), variant, 1)?;
            let took = 1e-3 * target.time(open, &recorded.recording, once)?.median;
            let flops_a_run =
                problem.work(variant).flops * budget.run.as_secs_f64() / took.max(1e-7);
            let most = self.most(|problem| {
                let work = problem.work(variant);
                work.flops <= flops_a_run.min(MOST_FLOPS) && work.bytes <= MOST_BYTES
            });
            t = most.max(FULL);
        }
        Ok(t)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::roof::tests::roof, *};
    use jinabert::{
        kernel_check::{GatherCase, LayerNormCase, LinearCase},
        kernels::Tier,
    };

    #[test]
    fn every_kernel_has_a_case() {
        let cases = cases(&[]);
        for kernel in jinabert::kernels::ALL {
            let of_it = || cases.iter().filter(|case| case.word() == kernel.name());
            assert!(SIZES.iter().all(|(size, _)| of_it().any(|case| case.size == *size)));
        }
        let names: std::collections::BTreeSet<_> =
            cases.iter().map(|case| (case.word(), case.size, case.layer.shape.as_str())).collect();
        assert_eq!(names.len(), cases.len(), "two cases of one name");
    }

    /// Row for every case, with one millisecond for each dispatch.
    pub fn rows() -> Vec<Row> {
        let ms = Spread::of([Duration::from_millis(1)]);
        let variant = Tier::Tiled.into();
        let row = |case: Case| {
            let problem = case.problem(FULL);
            Row {
                kernel: case.word().to_owned(),
                tier: "tiled".to_owned(),
                size: case.size.to_owned(),
                tokens: FULL,
                problem: problem.to_string(),
                check: Check { tokens: FULL, error: Some(0.0), fault: None },
                timing: Some(KernelTiming::new(&*problem, variant, ms, &roof())),
                shape: case.layer.shape,
            }
        };
        cases(&[]).into_iter().map(row).collect()
    }

    #[test]
    fn names_select_kernels() {
        let chosen = cases(&["pool".to_owned(), "embed".to_owned()]);
        assert_eq!(chosen.len(), 2 * SIZES.len());
        assert!(chosen.iter().all(|case| ["pool", "embed"].contains(&case.word())));
    }

    #[test]
    fn percent_is_of_the_limit_that_applies() {
        let ms = Spread::of([Duration::from_millis(1)]);
        // 2·64³ operations on 3·64² floats: 10.7 a byte, just right of the ridge
        let variant = Tier::Tiled.into();
        let problem = LinearCase::new(64, 64, 64, false);
        let timing = KernelTiming::new(&problem, variant, ms, &roof());
        let is =
            |value: Option<f64>, expected: f64| (value.expect("known") - expected).abs() < 1e-9;
        assert!(is(timing.gflops, 0.524_288) && timing.bound == Bound::Compute);
        assert!(is(timing.percent, 0.524_288));
        let problem = LayerNormCase { t: 1000, d: 1000, residual: true, rms: false, shift: 0.0 };
        let timing = KernelTiming::new(&problem, variant, ms, &roof());
        assert!(is(timing.gbps, 12.0) && timing.bound == Bound::Memory);
        assert!(is(timing.percent, 120.0), "{:?}", timing.percent);
        // No operations: the memory limit applies.
        let problem = GatherCase { t: 1000, d: 1000, rows: (0..1000).collect() };
        let timing = KernelTiming::new(&problem, variant, ms, &roof());
        assert!(is(timing.gflops, 0.0) && is(timing.gbps, 8.0) && timing.bound == Bound::Memory);
        assert!(is(timing.percent, 80.0), "{:?}", timing.percent);
        // Clock that did not move.
        let timing = KernelTiming::new(&problem, variant, Spread::of([Duration::ZERO]), &roof());
        assert_eq!((timing.gflops, timing.gbps, timing.percent), (None, None, None));
    }
}

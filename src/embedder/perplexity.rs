//! Pseudo-perplexity of a masked language model as a function of context length.
//!
//! Every length scores the same tokens: regions as long as the longest window, tiled by windows of
//! each length.  The set of tokens masked together is counted from the start of the region, so
//! between two lengths a token differs only in the amount of context around it.

use super::Embedder;
use crate::{
    batch::Tokens,
    error::Error,
    model::Task,
    text::{Parts, Tokenizer},
};
use rayon::prelude::*;
use std::{collections::HashMap, ops::Range};

/// Parameters of [`Embedder::pseudo_perplexity`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerplexityOptions {
    /// Window lengths in tokens, special tokens included; if empty, 128 and its doublings up to the
    /// limit.
    pub lengths: Vec<usize>,
    /// Maximum number of windows of the longest length.  Shorter ones tile the same text.
    pub windows: usize,
    /// Distance of window starts in tokens, for overlapping windows; a token is scored in the
    /// window with the nearest middle.
    pub stride: Option<usize>,
    /// Mask one token out of `mask_every` at a time; if 0, a single token per pass, as the measure
    /// is defined (Salazar et al. 2020, arXiv:1910.14659).
    pub mask_every: usize,
}

impl Default for PerplexityOptions {
    /// 7: about the 15 % of masked tokens that models are trained with.
    fn default() -> Self {
        Self { lengths: Vec::new(), windows: 8, stride: None, mask_every: 7 }
    }
}

/// Result of a measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Perplexity {
    /// Results by length, shortest first.
    pub lengths: Vec<LengthBucket>,
    /// Lengths for which no text is long enough.
    pub without_text: Vec<usize>,
    /// Number of texts shorter than a region.
    pub texts_left_out: usize,
    /// Number of regions, each read at every length.
    pub regions: usize,
    /// Tokens per region.
    pub region_tokens: usize,
    /// Number of unknown tokens in the regions; neither masked nor scored.
    pub unknown: usize,
    /// Number of other special tokens spelled out in the texts; neither masked nor scored.
    pub special: usize,
}

/// Result at one length.
#[derive(Clone, Debug, PartialEq)]
pub struct LengthBucket {
    /// Window length in tokens, special tokens included.
    pub length: usize,
    /// Number of windows in all regions.
    pub windows: usize,
    /// Number of scored tokens, the same at every length.
    pub tokens: usize,
    /// Mean negative log-likelihood per token, in nats.
    pub nll: f64,
    /// Standard error of `nll` over the regions, if there are several.
    pub nll_error: Option<f64>,
    /// Difference of `nll` to that of the shortest length.
    pub difference: f64,
    /// Standard error of the difference, paired by region.
    pub difference_error: Option<f64>,
}

impl LengthBucket {
    /// Pseudo-perplexity.
    pub fn perplexity(&self) -> f64 {
        self.nll.exp()
    }
}

/// Sum of log-probabilities, and number of tokens.
#[derive(Clone, Copy, Default)]
struct Sum(f64, usize);

/// Part of a text, read at every length.
struct Region<'a> {
    parts: &'a Parts,
    tokens: &'a [u32],
    /// True for each token that is masked and scored.
    ordinary: Vec<bool>,
}

/// Makes regions and counts their tokens that are not scored.
struct Census<'a> {
    tokenizer: &'a Tokenizer,
    /// Known answers of the tokenizer.
    is_special: HashMap<u32, bool>,
    unknown: usize,
    /// Special tokens other than the unknown one.
    special: usize,
}

impl Census<'_> {
    fn region<'a>(&mut self, parts: &'a Parts, range: Range<usize>) -> Region<'a> {
        let tokens = &parts.own[range];
        let ordinary = tokens.iter().map(|&id| self.is_ordinary(id)).collect();
        Region { parts, tokens, ordinary }
    }

    fn is_ordinary(&mut self, id: u32) -> bool {
        if Some(id) == self.tokenizer.unknown() {
            self.unknown += 1;
            return false;
        }
        let tokenizer = self.tokenizer;
        let is_special = *self.is_special.entry(id).or_insert_with(|| tokenizer.is_special(id));
        self.special += usize::from(is_special);
        !is_special
    }
}

/// A window of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    tokens: Range<usize>,
    /// Tokens scored in this window.
    scored: Range<usize>,
}

impl Embedder {
    /// Pseudo-perplexity of texts at several lengths, for a model opened for [`Task::FillMask`];
    /// `progress(done, total)` is called with token counts.
    ///
    /// # Errors
    /// [`Error::Option`] for lengths over the limit or too short for any token, and for strides
    /// that skip tokens; [`Error::Input`], naming the longest text, if all are shorter than the
    /// shortest length; otherwise as [`TokenCalls::log_probabilities`].
    ///
    /// [`TokenCalls::log_probabilities`]: super::TokenCalls::log_probabilities
    pub fn pseudo_perplexity<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        measure: &PerplexityOptions,
        progress: impl FnMut(u64, u64),
    ) -> Result<Perplexity, Error> {
        self.opened_for(Task::FillMask)?;
        self.mask()?;
        let tokenizer = self.tokenizer()?;
        let special = tokenizer.special_tokens();
        let lengths = self.lengths(measure, special)?;
        let parts = |(index, text): (usize, &S)| {
            tokenizer.encode_parts(text.as_ref()).map_err(|error| error.moved(|_| index))
        };
        let parts: Vec<Parts> =
            texts.par_iter().enumerate().map(parts).collect::<Result<_, Error>>()?;
        let sizes: Vec<usize> = parts.iter().map(|parts| parts.own.len()).collect();
        let index = (0..sizes.len()).max_by_key(|&n| (sizes[n], std::cmp::Reverse(n)));
        let index = index.ok_or_else(|| Error::Option("no text to measure".to_owned()))?;
        let longest = sizes[index] + special;
        let shortest = lengths[0];
        if longest < shortest {
            let what = format!(
                "{longest} tokens, {special} special ones included, under {shortest}, the shortest length"
            );
            return Err(Error::Input { index, what });
        }
        let (lengths, without_text): (Vec<_>, Vec<_>) =
            lengths.into_iter().partition(|&length| length <= longest);
        let region_tokens = lengths[lengths.len() - 1] - special;
        let chosen = regions(&sizes, region_tokens, measure.windows);
        let mut census = Census { tokenizer, is_special: HashMap::new(), unknown: 0, special: 0 };
        let regions: Vec<Region> = chosen
            .iter()
            .map(|&(n, start)| census.region(&parts[n], start..start + region_tokens))
            .collect();
        if !regions.iter().any(|region| region.ordinary.contains(&true)) {
            let what = format!("none of its {} tokens can be scored", sizes[index]);
            return Err(Error::Input { index, what });
        }

        let plans: Vec<Vec<Window>> = lengths
            .iter()
            .map(|length| {
                let stride = measure.stride.unwrap_or(length - special);
                windows(region_tokens, length - special, stride)
            })
            .collect();
        let sums = self.score_all(&regions, &plans, measure.mask_every, special, progress)?;
        let mut at: Vec<LengthBucket> = Vec::new();
        for ((&length, plan), row) in lengths.iter().zip(&plans).zip(&sums) {
            let mut found = LengthBucket::new(length, row, &sums[0]);
            found.windows = plan.len() * regions.len();
            at.push(found);
        }
        Ok(Perplexity {
            lengths: at,
            without_text,
            texts_left_out: sizes.iter().filter(|&&size| size < region_tokens).count(),
            regions: regions.len(),
            region_tokens,
            unknown: census.unknown,
            special: census.special,
        })
    }

    /// Sums for each plan and region.
    fn score_all(
        &self,
        regions: &[Region],
        plans: &[Vec<Window>],
        mask_every: usize,
        special: usize,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Vec<Vec<Sum>>, Error> {
        let mut work: Vec<Vec<Vec<Job>>> = Vec::new();
        for plan in plans {
            work.push(regions.iter().map(|region| jobs(region, plan, mask_every)).collect());
        }
        let size = |job: &Job| (job.window.len() + special) as u64;
        let total = work.iter().flatten().flatten().map(size).sum();
        let batch = self.runtime().batch_tokens();
        let mut done = 0;
        let mut sums = Vec::new();
        for per_region in &work {
            let mut row = Vec::new();
            for (region, jobs) in regions.iter().zip(per_region) {
                let mut sum = Sum::default();
                let most = jobs.first().map_or(1, |job| batch / size(job) as usize);
                for jobs in jobs.chunks(most.max(1)) {
                    self.score(region, jobs, &mut sum)?;
                    done += jobs.iter().map(size).sum::<u64>();
                    progress(done, total);
                }
                row.push(sum);
            }
            sums.push(row);
        }
        Ok(sums)
    }

    /// Sorted lengths, each within the limit and long enough for a token of text.
    fn lengths(&self, measure: &PerplexityOptions, special: usize) -> Result<Vec<usize>, Error> {
        let mut lengths = measure.lengths.clone();
        if lengths.is_empty() {
            lengths = (7..).map(|n| 1 << n).take_while(|&length| length <= self.limit).collect();
        }
        if lengths.is_empty() {
            lengths.push(self.limit);
        }
        lengths.sort_unstable();
        lengths.dedup();
        let bad = |what: String| Err(Error::Option(what));
        if let Some(length) = lengths.iter().find(|&&length| length <= special) {
            let least = special + 1;
            return bad(format!(
                "expected a length of at least {least}, {special} special tokens and one more, got {length}"
            ));
        }
        if let Some(length) = lengths.iter().find(|&&length| length > self.limit) {
            return bad(format!("length {length} is over the limit of {} tokens", self.limit));
        }
        let room = lengths[0] - special;
        match (measure.stride, measure.windows, measure.mask_every) {
            (Some(0), ..) => bad("expected a stride of at least 1, got 0".to_owned()),
            (Some(stride), ..) if stride > room => bad(format!(
                "stride {stride} skips tokens: windows of {} tokens have {room} of the text",
                lengths[0]
            )),
            (_, 0, _) => bad("expected at least 1 window, got 0".to_owned()),
            (.., 1) => {
                bad("expected one masked token of 2 or more, got 1, which leaves none to read"
                    .into())
            }
            _ => Ok(lengths),
        }
    }

    fn score(&self, region: &Region, jobs: &[Job], sum: &mut Sum) -> Result<(), Error> {
        let Parts { before, after, .. } = region.parts;
        let read = jobs
            .iter()
            .map(|job| Tokens::new([before, &region.tokens[job.window.clone()], after].concat()));
        let read: Vec<Tokens> = read.collect();
        let places = jobs
            .iter()
            .map(|job| job.masked.iter().map(|n| n - job.window.start + before.len()).collect());
        let places: Vec<Vec<usize>> = places.collect();
        let masked = read.iter().zip(&places).map(|(tokens, places)| (tokens, &places[..]));
        let found = self.tokens().log_probabilities(&masked.collect::<Vec<_>>())?;
        for (job, found) in jobs.iter().zip(found) {
            let scored = job.masked.iter().zip(found).filter(|(n, _)| job.scored.contains(n));
            for (_, value) in scored {
                *sum = Sum(sum.0 + value, sum.1 + 1);
            }
        }
        Ok(())
    }
}

/// A window with some of its tokens masked; positions count from the region's start.
struct Job {
    window: Range<usize>,
    masked: Vec<usize>,
    scored: Range<usize>,
}

/// Passes that score every ordinary token exactly once.
fn jobs(region: &Region, windows: &[Window], mask_every: usize) -> Vec<Job> {
    let mut jobs = Vec::new();
    let ordinary = |n: &usize| region.ordinary[*n];
    for Window { tokens, scored } in windows {
        let job = |masked| Job { window: tokens.clone(), masked, scored: scored.clone() };
        if mask_every == 0 {
            jobs.extend(scored.clone().filter(ordinary).map(|n| job(vec![n])));
            continue;
        }
        for pass in 0..mask_every.min(region.tokens.len()) {
            // Counted from the region's start: the same tokens are masked together at every length.
            let masked = (pass..tokens.end).step_by(mask_every);
            let masked = masked.skip_while(|&n| n < tokens.start).filter(ordinary);
            let masked: Vec<usize> = masked.collect();
            if masked.iter().any(|n| scored.contains(n)) {
                jobs.push(job(masked));
            }
        }
    }
    jobs
}

/// Windows of `room` tokens over a region of `size` tokens, `stride` tokens apart, the last at the
/// region's end; where two overlap, each scores its half.
fn windows(size: usize, room: usize, stride: usize) -> Vec<Window> {
    let last = size - room;
    let mut starts: Vec<usize> = (0..last).step_by(stride).collect();
    starts.push(last);
    let border = |n: usize| match (n.checked_sub(1), starts.get(n)) {
        (Some(before), Some(start)) => (starts[before] + room + start) / 2,
        (None, _) => 0,
        (_, None) => size,
    };
    let window =
        |n: usize| Window { tokens: starts[n]..starts[n] + room, scored: border(n)..border(n + 1) };
    (0..starts.len()).map(window).collect()
}

/// At most `most` disjoint regions of `room` tokens, spread over all texts of the given sizes; each
/// is a text index and a first token.
fn regions(sizes: &[usize], room: usize, most: usize) -> Vec<(usize, usize)> {
    let mut all = Vec::new();
    for (n, size) in sizes.iter().enumerate() {
        let count = size / room;
        // The remaining tokens are spread between the regions and to both ends.
        let free = size - count * room;
        all.extend((0..count).map(|k| (n, k * room + free * (2 * k + 1) / (2 * count))));
    }
    let taken = most.min(all.len());
    (0..taken).map(|k| all[(2 * k + 1) * all.len() / (2 * taken)]).collect()
}

impl LengthBucket {
    fn new(length: usize, sums: &[Sum], base: &[Sum]) -> Self {
        let mean = |sums: &[Sum]| {
            let whole = sums.iter().fold(Sum::default(), |a, b| Sum(a.0 + b.0, a.1 + b.1));
            (-whole.0 / whole.1 as f64, whole.1)
        };
        let own = |sum: &Sum| -sum.0 / sum.1 as f64;
        // A region of special tokens alone has no mean.
        let pairs = sums.iter().zip(base).filter(|(sum, _)| sum.1 > 0);
        let (means, differences): (Vec<f64>, Vec<f64>) =
            pairs.map(|(sum, base)| (own(sum), own(sum) - own(base))).unzip();
        let (nll, tokens) = mean(sums);
        Self {
            length,
            windows: 0,
            tokens,
            nll,
            nll_error: standard_error(&means),
            difference: nll - mean(base).0,
            difference_error: standard_error(&differences),
        }
    }
}

/// Standard error of the mean; none for a single value.
fn standard_error(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_score_every_token_once_with_text_on_both_sides() {
        let window = |tokens, scored| Window { tokens, scored };
        assert_eq!(windows(10, 10, 10), [window(0..10, 0..10)]);
        let tiled = [window(0..4, 0..4), window(4..8, 4..7), window(6..10, 7..10)];
        assert_eq!(windows(10, 4, 4), tiled);
        let close = [window(0..6, 0..4), window(2..8, 4..6), window(4..10, 6..10)];
        assert_eq!(windows(10, 6, 2), close);
        for (size, room, stride) in [(8190, 126, 126), (8190, 126, 7), (1022, 254, 100), (9, 8, 8)]
        {
            let all = windows(size, room, stride);
            let scored: Vec<usize> = all.iter().flat_map(|w| w.scored.clone()).collect();
            assert_eq!(scored, (0..size).collect::<Vec<_>>(), "{size} {room} {stride}");
            let inside = |w: &Window| {
                w.tokens.len() == room
                    && w.tokens.start <= w.scored.start
                    && w.scored.end <= w.tokens.end
            };
            assert!(all.iter().all(inside), "{size} {room} {stride}");
        }
    }

    #[test]
    fn regions_are_apart_and_spread() {
        assert_eq!(regions(&[10], 10, 8), [(0, 0)]);
        assert_eq!(regions(&[15], 10, 8), [(0, 2)]);
        assert_eq!(regions(&[22, 3, 10], 10, 8), [(0, 0), (0, 11), (2, 0)]);
        assert_eq!(regions(&[100], 10, 2), [(0, 20), (0, 70)]);
        assert!(regions(&[9], 10, 8).is_empty());
        let many = regions(&[1000, 333], 10, 7);
        assert_eq!(many.len(), 7);
        assert!(many.windows(2).all(|two| two[0].0 < two[1].0 || two[0].1 + 10 <= two[1].1));
    }

    #[test]
    fn passes_mask_the_same_tokens_at_every_length() {
        let parts = Parts::default();
        let tokens = vec![9; 30];
        let ordinary: Vec<bool> = (0..30).map(|n| n != 5).collect();
        let region = Region { parts: &parts, tokens: &tokens, ordinary };
        for (every, room) in [(7, 30), (7, 10), (3, 8), (0, 12), (64, 30)] {
            let all = jobs(&region, &windows(30, room, room), every);
            let scored = |job: &Job| {
                let scored = job.masked.iter().filter(|n| job.scored.contains(n)).copied();
                scored.collect::<Vec<_>>()
            };
            let mut once: Vec<usize> = all.iter().flat_map(scored).collect();
            once.sort_unstable();
            let expected: Vec<usize> = (0..30).filter(|&n| n != 5).collect();
            assert_eq!(once, expected, "{every} {room}");
            let step = if every == 0 { 30 } else { every };
            let same =
                |job: &Job| job.masked.iter().all(|n| (n - job.masked[0]).is_multiple_of(step));
            assert!(all.iter().all(same), "{every} {room}");
            let inside = |job: &Job| job.masked.iter().all(|n| job.window.contains(n));
            assert!(all.iter().all(inside), "{every} {room}");
        }
    }

    #[test]
    fn means_and_errors_by_hand() {
        let sums = [Sum(-4.0, 2), Sum(-12.0, 4)];
        let found = LengthBucket::new(64, &sums, &[Sum(-6.0, 2), Sum(-12.0, 4)]);
        assert_eq!((found.tokens, found.nll), (6, 16.0 / 6.0));
        // Means 2 and 3; differences -1 and 0.
        assert_eq!((found.nll_error, found.difference_error), (Some(0.5), Some(0.5)));
        assert!((found.difference + 2.0 / 6.0).abs() < 1e-12);
        assert!((found.perplexity() - (16.0_f64 / 6.0).exp()).abs() < 1e-12);
        assert_eq!(LengthBucket::new(64, &sums[..1], &sums[..1]).nll_error, None);
    }
}

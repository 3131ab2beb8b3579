//! Timing of the whole model over batches of several shapes.

use super::{
    model,
    report::{Cell, CellTiming, ModelReport},
    roof::{Bound, Roof},
    stats::{Limits, giga_per_s},
};
use jinabert::{Device, Embedder, Error, Options, batch::Tokens};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// Batch shapes: number of sequences, and their length.
const CELLS: &[(u32, u32)] =
    &[(1, 16), (1, 128), (8, 128), (32, 128), (128, 128), (8, 512), (1, 2048), (8, 2048)];

/// Time limits for the model.
#[derive(Clone, Copy, Debug)]
pub struct GridBudget {
    /// Total time; a batch is skipped if, estimated from the one before it, it would not fit.
    pub total: Duration,
    /// Limits for the repetitions of each batch.
    pub limits: Limits,
}

/// Open model, and the batches still to be measured.
pub struct Grid {
    embedder: Embedder,
    /// Record of the model; its cells are filled in later.
    pub model: ModelReport,
    left: std::vec::IntoIter<(u32, u32)>,
    tokens_per_s: Option<f64>,
    start: Instant,
}

impl Grid {
    /// Opens a model, already open on the CPU, on another device, and compares the two.
    ///
    /// # Errors
    /// As [`Embedder::open_with`] and [`TokenCalls::embed`](jinabert::TokenCalls::embed).
    pub fn new(dir: &Path, device: Device, cpu: Embedder) -> Result<Self, Error> {
        let (embedder, error) = match device {
            Device::Cpu => (cpu, None),
            _ => {
                let embedder = open(dir, device)?;
                let error = difference(&embedder, &cpu)?;
                (embedder, Some(error))
            }
        };
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let layers = embedder.config().layers;
        let hidden = embedder.config().hidden;
        let limit = embedder.max_length();
        let fit = CELLS.iter().copied().filter(|&(_, length)| length as usize <= limit);
        Ok(Self {
            model: ModelReport { name, layers, hidden, error, cells: Vec::new() },
            left: fit.collect::<Vec<_>>().into_iter(),
            embedder,
            tokens_per_s: None,
            start: Instant::now(),
        })
    }

    /// Measures the next batch; `None` after the last.
    ///
    /// # Errors
    /// As [`TokenCalls::embed`](jinabert::TokenCalls::embed).
    pub fn next(&mut self, roof: &Roof, budget: GridBudget) -> Result<Option<&mut Cell>, Error> {
        let Some((sequences, length)) = self.left.next() else { return Ok(None) };
        let tokens = f64::from(sequences) * f64::from(length);
        let left = budget.total.saturating_sub(self.start.elapsed()).as_secs_f64();
        let runs = 1 + budget.limits.least;
        let slow = |rate: f64| runs as f64 * tokens / rate > left;
        let timing = if self.tokens_per_s.is_some_and(slow) {
            None
        } else {
            let batch = batch(sequences, length, self.embedder.config().vocabulary);
            let timing = model::time(&self.embedder, &batch, budget.limits)?;
            let gflops = giga_per_s(self.flops(sequences, length), timing.runs.median);
            self.tokens_per_s = giga_per_s(1e9 * tokens, timing.runs.median);
            Some(CellTiming {
                ms: timing.runs,
                first_ms: 1e3 * timing.first.as_secs_f64(),
                tokens_per_s: self.tokens_per_s,
                gflops,
                percent: gflops.map(|gflops| roof.percent(Bound::Compute, gflops)),
            })
        };
        self.model.cells.push(Cell { sequences, length, timing });
        Ok(self.model.cells.last_mut())
    }

    /// Floating-point operations of the matrix products and the attention of all layers.
    fn flops(&self, sequences: u32, length: u32) -> f64 {
        let config = self.embedder.config();
        let [d, f, layers] = [config.hidden, config.intermediate, config.layers].map(f64::from);
        let [sequences, length] = [sequences, length].map(f64::from);
        let products = 2.0 * (4.0 * d * d + 3.0 * d * f);
        layers * sequences * length * (products + 4.0 * length * d)
    }
}

/// Opens a model with default options.
///
/// # Errors
/// As [`Embedder::open_with`].
pub fn open(dir: &Path, device: Device) -> Result<Embedder, Error> {
    Embedder::open_with(dir, Options { device, ..Options::default() })
}

/// Sequences with ids from the whole vocabulary.
fn batch(sequences: u32, length: u32, vocabulary: u32) -> Vec<Tokens> {
    let id = |n: u32| n.wrapping_mul(7919) % vocabulary;
    let sequence = |n: u32| Tokens::new((0..length).map(|i| id(1000 * n + i)).collect());
    (0..sequences).map(sequence).collect()
}

/// Largest difference of a vector component between two devices, for two short texts.
fn difference(a: &Embedder, b: &Embedder) -> Result<f32, Error> {
    let length = a.max_length().min(70) as u32;
    let tokens = batch(2, length, a.config().vocabulary);
    let tokens: Vec<&Tokens> = tokens.iter().collect();
    let of_a = a.tokens().embed(&tokens)?;
    let of_b = b.tokens().embed(&tokens)?;
    let pairs = of_a.iter().zip(&of_b).flat_map(|(a, b)| a.iter().zip(b.iter()));
    Ok(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max))
}

//! Speeds of GPU and CPU for models of some size: measured once, kept on disk, and measured again
//! when driver, kernels or processor change.

use super::{Sizes, kept::Key};
use crate::{gpu::AdapterSummary, kernels::Dtype};
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// Speed of a device for a model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Time of a forward pass of [`SHORT`] tokens, in milliseconds.
    pub short_ms: f64,
    /// Throughput in batches, in tokens per second.
    pub bulk: f64,
}

/// Length of a short query in tokens.
pub const SHORT: usize = 16;

impl Speed {
    /// Computes the speed from the times of a forward pass of [`SHORT`] tokens and of `tokens`.
    pub(crate) fn new(short: Duration, tokens: usize, bulk: Duration) -> Self {
        let bulk = tokens as f64 / bulk.as_secs_f64().max(1e-9);
        Self { short_ms: 1e3 * short.as_secs_f64(), bulk }
    }

    /// True if this device is the better choice.
    pub(crate) fn beats(&self, other: &Self, workload: Workload) -> bool {
        let latency = other.short_ms / self.short_ms;
        let throughput = self.bulk / other.bulk;
        let gain = match workload {
            Workload::Mixed => latency * throughput,
            Workload::Latency => latency,
            Workload::Throughput => throughput,
        };
        gain > 1.0
    }

    /// Batch size that takes a tenth of a second, in steps of 256 tokens, at least one step.
    pub fn batch_tokens(&self) -> usize {
        ((0.1 * self.bulk / 256.0) as usize).max(1) * 256
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SHORT} tokens in {:.1} ms, {:.0} tokens/s in batches", self.short_ms, self.bulk)
    }
}

/// Workload, for devices with different strengths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workload {
    /// Latency of queries and throughput of batches have equal weight.
    #[default]
    Mixed,
    /// Latency of a query.
    Latency,
    /// Throughput of batches.
    Throughput,
}

/// Speeds of a model on a GPU and on the CPU of the same machine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speeds {
    /// Speed on the GPU.
    pub gpu: Speed,
    /// Speed on the CPU, if measured.
    pub cpu: Option<Speed>,
}

impl Speeds {
    /// True if the speeds from a file are plausible.
    fn possible(&self) -> bool {
        let positive = |speed: &Speed| speed.short_ms > 0.0 && speed.bulk > 0.0;
        positive(&self.gpu) && self.cpu.iter().all(positive)
    }
}

/// Properties of a model that determine its speed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    sizes: Sizes,
    /// Transformer layers.
    layers: u32,
    dtype: Dtype,
}

impl Subject {
    /// Creates the subject from a model's sizes.
    pub fn new(sizes: Sizes, layers: u32, dtype: Dtype) -> Self {
        Self { sizes, layers, dtype }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} layers of {}, {}", self.layers, self.sizes.hidden, self.dtype)
    }
}

/// Processor of the machine: number of threads, and name of the instruction set.
type Processor = (usize, String);

/// Folder of the cache.
const FOLDER: &str = "speed";

fn key(adapter: &AdapterSummary) -> Key<Processor> {
    let processor = (rayon::current_num_threads(), std::env::consts::ARCH.to_owned());
    Key::new(adapter, processor)
}

/// Speeds of all models measured on an adapter.
pub fn measured(adapter: &AdapterSummary) -> Vec<(Subject, Speeds)> {
    let models: Vec<_> = key(adapter).read(FOLDER).unwrap_or_default();
    models.into_iter().filter(|(_, speeds): &(_, Speeds)| speeds.possible()).collect()
}

/// Speeds of a model on an adapter, if measured.
pub fn speeds(adapter: &AdapterSummary, subject: &Subject) -> Option<Speeds> {
    let found = measured(adapter).into_iter().find(|(known, _)| known == subject);
    found.map(|(_, speeds)| speeds)
}

/// Stores speeds for later processes.
pub fn keep_speeds(adapter: &AdapterSummary, subject: &Subject, speeds: Speeds) {
    let mut models = measured(adapter);
    models.retain(|(known, _)| known != subject);
    models.push((subject.clone(), speeds));
    key(adapter).write(FOLDER, &models);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speed(short_ms: f64, bulk: f64) -> Speed {
        Speed { short_ms, bulk }
    }

    #[test]
    fn the_workload_decides_where_devices_differ() {
        let prefers = |gpu: Speed, cpu| {
            [Workload::Latency, Workload::Throughput, Workload::Mixed]
                .map(|workload| gpu.beats(&cpu, workload))
        };
        assert_eq!(prefers(speed(1.0, 9e4), speed(4.0, 1e4)), [true; 3]);
        assert_eq!(prefers(speed(9.0, 1e3), speed(4.0, 1e4)), [false; 3]);
        // A GPU with high latency: batches gain more than queries lose, and the reverse.
        assert_eq!(prefers(speed(8.0, 9e4), speed(4.0, 1e4)), [false, true, true]);
        assert_eq!(prefers(speed(9.0, 1.5e4), speed(4.0, 1e4)), [false, true, false]);
    }

    #[test]
    fn batches_take_a_tenth_of_a_second() {
        assert_eq!(speed(1.0, 100_000.0).batch_tokens(), 9_984);
        assert_eq!(speed(1.0, 10.0).batch_tokens(), 256);
        let measured = Speed::new(Duration::from_millis(2), 512, Duration::from_millis(128));
        assert_eq!((measured.short_ms, measured.bulk), (2.0, 4_000.0));
        assert_eq!(measured.to_string(), "16 tokens in 2.0 ms, 4000 tokens/s in batches");
    }

    #[test]
    fn speeds_that_cannot_be_are_passed_over() {
        let good = Speeds { gpu: speed(1.0, 2.0), cpu: Some(speed(3.0, 4.0)) };
        assert!(good.possible() && Speeds { cpu: None, ..good }.possible());
        for bad in [speed(0.0, 1.0), speed(-1.0, 1.0), speed(1.0, 0.0), speed(f64::NAN, 1.0)] {
            assert!(!Speeds { gpu: bad, ..good }.possible(), "{bad}");
            assert!(!Speeds { cpu: Some(bad), ..good }.possible(), "{bad}");
        }
    }
}

//! Duration of every kernel on every device and tier, with its operations and bytes.
//!
//! `cargo bench --bench kernels -- vulkan-llvmpipe/linear` selects by name.  Each problem is
//! compared with the reference before it is timed.  If the device has timestamps, durations are
//! measured on the device.

#[path = "../tests/common/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod common;

use common::Device;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jinabert::{
    cpu, gpu,
    kernels::{Tier, Version, attention::SKIP_EPS},
    probe::{Problem, Recorded},
    recording::Engine,
    reference::Activation,
};
use std::time::{Duration, Instant};

/// Problems of jina-embeddings-v2-base for 128 tokens (1,024 if the kernel is memory-bound), with
/// kernel names.
fn problems() -> Vec<(&'static str, Problem)> {
    let lengths = vec![128; 8];
    let (gate_first, activation) = (true, Activation::Gelu);
    let attention = |t, heads, skip_eps| Problem::Attention {
        lengths: vec![t],
        unseen: 0,
        heads,
        e: 64,
        sharpness: 1.0,
        skip_eps,
    };
    vec![
        ("embed", Problem::Embed { t: 1024, d: 768, vocab: 30_528, parts: 1 }),
        ("linear", Problem::linear(128, 2304, 768, false)),
        ("linear", Problem::linear(128, 768, 3072, true)),
        ("linear_geglu", Problem::LinearGeglu { t: 128, f: 3072, k: 768, gate_first, activation }),
        ("key_norm", Problem::KeyNorm { lengths: vec![1024], unseen: 0, heads: 12, e: 64 }),
        ("attention", attention(128, 12, SKIP_EPS)),
        ("attention", attention(512, 2, SKIP_EPS)),
        ("attention", attention(2048, 8, SKIP_EPS)),
        ("attention", attention(2048, 8, 0.0)),
        ("layer_norm", Problem::LayerNorm { t: 1024, d: 768, residual: true, shift: 0.0 }),
        ("pool", Problem::pool(&lengths, 768)),
        ("gather", Problem::Gather { t: 1024, d: 768, rows: (0..1024).rev().collect() }),
    ]
}

fn kernels(criterion: &mut Criterion) {
    let (devices, _) = common::devices();
    for (name, device) in devices {
        for (word, problem) in problems() {
            // The reference defines the result; its speed is not of interest.
            let versions = problem.versions(&device.caps()).into_iter();
            for version in versions.filter(|version| version.tier != Tier::Twin) {
                let mut bench = Bench::open(&device, version.tier);
                bench.run(criterion, &format!("{name}/{word}/{version}"), &problem, version);
            }
        }
    }
}

enum Bench {
    Cpu(cpu::Engine),
    Gpu(Box<gpu::Engine>),
}

impl Bench {
    fn open(device: &Device, tier: Tier) -> Self {
        match *device {
            Device::Cpu => Self::Cpu(cpu::Engine::new(tier)),
            Device::Adapter(index, _) => {
                let gpu = gpu::open(index).unwrap_or_else(|e| panic!("adapter {index}: {e}"));
                Self::Gpu(Box::new(gpu::Engine::new(gpu)))
            }
        }
    }

    fn engine(&mut self) -> &mut dyn Engine {
        match self {
            Self::Cpu(engine) => engine,
            Self::Gpu(engine) => &mut **engine,
        }
    }

    fn run(&mut self, criterion: &mut Criterion, group: &str, problem: &Problem, version: Version) {
        let mut group = criterion.benchmark_group(group);
        let work = problem.work(version);
        // Below ten operations per byte, memory is the limit on every device.
        group.throughput(match work.flops > 10.0 * work.bytes {
            true => Throughput::Elements(work.flops as u64),
            false => Throughput::BytesDecimal(work.bytes as u64),
        });
        let mut recorded = None;
        group.bench_function(problem.to_string(), |bencher| {
            let recorded = recorded.get_or_insert_with(|| {
                let checked = problem.check(self.engine(), version, 1).expect("a working device");
                assert_eq!(checked.wrong, 0, "{problem}: {checked}");
                problem.record(self.engine(), version, 1).expect("a working device")
            });
            bencher.iter_custom(|rounds| (0..rounds).map(|_| self.time(recorded)).sum());
        });
        group.finish();
    }

    /// Measures on the device's clock, if it has one.
    fn time(&mut self, recorded: &Recorded) -> Duration {
        if let Self::Gpu(engine) = self
            && let Ok(spans) = engine.profile(&recorded.recording)
        {
            return spans.iter().map(|span| span.time).sum();
        }
        let start = Instant::now();
        self.engine().run(&recorded.recording, &recorded.output).expect("a working device");
        start.elapsed()
    }
}

fn config() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! { name = benches; config = config(); targets = kernels }
criterion_main!(benches);

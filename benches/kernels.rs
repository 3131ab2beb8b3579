//! Duration of every kernel on every device and tier, with its operations and bytes.
//!
//! `cargo bench --bench kernels -- vulkan-llvmpipe/linear` selects by name.  Each case is
//! compared with the reference before it is timed.  If the device has timestamps, durations are
//! measured on the device.

#[path = "../tests/common/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod common;

use common::Device;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jinabert::{
    activation::Activation,
    cpu, gpu,
    kernel_check::{KernelCase, Recorded},
    kernels::{KernelVariant, Tier, attention::SKIP_EPS},
    recording::Engine,
};
use std::time::{Duration, Instant};

/// Problems of jina-embeddings-v2-base for 128 tokens (1,024 if the kernel is memory-bound), with
/// kernel names.
fn cases() -> Vec<(&'static str, KernelCase)> {
    let lengths = vec![128; 8];
    let gate_first = true;
    let activation = Activation::Gelu;
    let attention = |t, heads, skip_eps| KernelCase::Attention {
        lengths: vec![t],
        query_only: 0,
        heads,
        e: 64,
        sharpness: 1.0,
        skip_eps,
    };
    vec![
        ("embed", KernelCase::Embed { t: 1024, d: 768, vocab: 30_528, parts: 1 }),
        ("linear", KernelCase::linear(128, 2304, 768, false)),
        ("linear", KernelCase::linear(128, 768, 3072, true)),
        (
            "linear_geglu",
            KernelCase::LinearGeglu { t: 128, f: 3072, k: 768, gate_first, activation },
        ),
        ("key_norm", KernelCase::KeyNorm { lengths: vec![1024], query_only: 0, heads: 12, e: 64 }),
        ("attention", attention(128, 12, SKIP_EPS)),
        ("attention", attention(512, 2, SKIP_EPS)),
        ("attention", attention(2048, 8, SKIP_EPS)),
        ("attention", attention(2048, 8, 0.0)),
        ("layer_norm", KernelCase::LayerNorm { t: 1024, d: 768, residual: true, shift: 0.0 }),
        ("pool", KernelCase::pool(&lengths, 768)),
        ("gather", KernelCase::Gather { t: 1024, d: 768, rows: (0..1024).rev().collect() }),
    ]
}

fn kernels(criterion: &mut Criterion) {
    let (devices, _) = common::devices();
    for (name, device) in devices {
        for (word, case) in cases() {
            // The reference defines the result; its speed is not of interest.
            let variants = case.variants(&device.caps()).into_iter();
            for variant in variants.filter(|variant| variant.tier != Tier::Reference) {
                let mut bench = Bench::open(&device, variant.tier);
                bench.run(criterion, &format!("{name}/{word}/{variant}"), &case, variant);
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

    fn run(
        &mut self,
        criterion: &mut Criterion,
        group: &str,
        case: &KernelCase,
        variant: KernelVariant,
    ) {
        let mut group = criterion.benchmark_group(group);
        let work = case.work(variant);
        // Below ten operations per byte, memory is the limit on every device.
        group.throughput(if work.flops > 10.0 * work.bytes {
            Throughput::Elements(work.flops as u64)
        } else {
            Throughput::BytesDecimal(work.bytes as u64)
        });
        let mut recorded = None;
        group.bench_function(case.to_string(), |bencher| {
            let recorded = recorded.get_or_insert_with(|| {
                let checked = case.check(self.engine(), variant, 1).expect("a working device");
                assert_eq!(checked.wrong, 0, "{case}: {checked}");
                case.record(self.engine(), variant, 1).expect("a working device")
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

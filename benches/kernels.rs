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
    cpu, gpu,
    kernel_check::{self, KernelCase, LayerSizes, Recorded, Suite},
    kernels::{KernelVariant, Tier},
    recording::{Engine, KernelId},
};
use std::time::{Duration, Instant};

/// Sizes of jina-embeddings-v2-base.
const BASE: LayerSizes = LayerSizes { d: 768, heads: 12, f: 3072 };

/// Cases of a kernel in a layer of base size: 128 tokens for products, 1,024 for the others.
fn cases(suite: &Suite) -> Vec<Box<dyn KernelCase>> {
    let tokens = match suite.kernel {
        KernelId::Linear | KernelId::LinearGeglu => 128,
        _ => 1024,
    };
    (suite.layer)(BASE).iter().map(|layer| (layer.case)(tokens)).collect()
}

fn kernels(criterion: &mut Criterion) {
    let (devices, _) = common::devices();
    for (name, device) in devices {
        for suite in kernel_check::ALL {
            for case in cases(suite) {
                // The reference defines the result; its speed is not of interest.
                let variants = case.variants(&device.caps()).into_iter();
                for variant in variants.filter(|variant| variant.tier != Tier::Reference) {
                    let mut bench = Bench::open(&device, variant.tier);
                    let group = format!("{name}/{}/{variant}", suite.kernel);
                    bench.run(criterion, &group, &*case, variant);
                }
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
        case: &dyn KernelCase,
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

//! Throughput of the whole model in tokens a second, by (sequences × length): a seeded checkpoint
//! of the size of jina-embeddings-v2-small-en.  Elements in the report are tokens.
//!
//! `JINABERT_BENCH_DEVICE` selects a device, like `--device`; the default is the CPU.

#[path = "../tests/common/checkpoint.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod checkpoint;

use checkpoint::Recipe;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jinabert::{Device, Embedder, Options, Tokens};
use std::{env, time::Duration};

fn forward(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a writable directory");
    Recipe::of_size(4, 512, 8, 30_528).write(dir.path());
    let device = env::var("JINABERT_BENCH_DEVICE")
        .map_or(Device::Cpu, |name| name.parse().expect("a device as --device takes it"));
    let embedder = Embedder::open_with(dir.path(), Options { device, ..Options::default() })
        .expect("a good checkpoint");
    verify(&embedder, dir.path());
    let mut group = criterion.benchmark_group(embedder.device().to_owned());
    for (sequences, length) in [(1, 16), (1, 128), (32, 128), (8, 512)] {
        let all = tokens(sequences, length);
        let all: Vec<&Tokens> = all.iter().collect();
        group.throughput(Throughput::Elements((sequences * length) as u64));
        group.bench_function(format!("{sequences}x{length}"), |bencher| {
            bencher.iter(|| embedder.tokens().embed(&all).expect("a working device"));
        });
    }
    group.finish();
}

fn tokens(sequences: usize, length: usize) -> Vec<Tokens> {
    let id = |n: usize| (n * 7919 % 30_528) as u32;
    let sequence = |n: usize| Tokens::new((n..n + length).map(id).collect());
    (0..sequences).map(|n| sequence(1000 * n)).collect()
}

/// Checks the device against the CPU device before anything is timed.
fn verify(embedder: &Embedder, dir: &std::path::Path) {
    let options = Options { device: Device::Cpu, ..Options::default() };
    let cpu = Embedder::open_with(dir, options).expect("a good checkpoint");
    let all = tokens(3, 40);
    let all: Vec<&Tokens> = all.iter().collect();
    let a = embedder.tokens().embed(&all);
    let b = cpu.tokens().embed(&all);
    for (a, b) in a.expect("a working device").iter().zip(&b.expect("a working CPU")) {
        let error = a.iter().zip(b.iter()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error <= 1e-5, "the device is {error:e} off");
    }
}

fn config() -> Criterion {
    Criterion::default().sample_size(10).measurement_time(Duration::from_secs(3))
}

criterion_group! { name = benches; config = config(); targets = forward }
criterion_main!(benches);

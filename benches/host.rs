//! Work of the host for one call: tokenising, planning and packing, recording.  Elements in the
//! report are texts.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jinabert::{
    batch::{PackedBatch, Tokens, make_batches},
    cpu,
    kernels::Tier,
    model::{Model, Output},
    text::Tokenizer,
};
use std::{hint::black_box, path::Path, time::Duration};

const TEXTS: usize = 256;

fn host(criterion: &mut Criterion) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/jinabert-mini-en");
    let tokenizer = Tokenizer::open(&dir.join("tokenizer.json")).expect("the shipped tokenizer");
    let texts: Vec<String> = (0..TEXTS)
        .map(|n| "The harbour master wrote down the name of every boat. ".repeat(1 + n % 8))
        .collect();
    let tokens: Vec<Tokens> = tokenizer
        .encode(&texts, None)
        .expect("plain texts")
        .into_iter()
        .map(|text| text.tokens)
        .collect();
    let lengths: Vec<usize> = tokens.iter().map(Tokens::len).collect();
    let engine = Box::new(cpu::Engine::new(Tier::Blocked));
    let mut model = Model::open(&dir, engine, Tier::Blocked).expect("the shipped model");
    let batch = PackedBatch::new(&tokens);

    let mut group = criterion.benchmark_group("host");
    group.throughput(Throughput::Elements(TEXTS as u64));
    group.bench_function("tokenise", |bencher| {
        bencher.iter(|| tokenizer.encode(black_box(&texts), None));
    });
    group.bench_function("plan and pack", |bencher| {
        bencher.iter(|| {
            let batches = make_batches(black_box(&lengths), 2048);
            let pack = |members: &Vec<usize>| PackedBatch::new(members.iter().map(|&n| &tokens[n]));
            batches.iter().map(pack).collect::<Vec<_>>()
        });
    });
    group.bench_function("record", |bencher| {
        let output = Output::Vectors { dims: 384, normalize: true };
        bencher.iter(|| model.record(black_box(&batch), output));
    });
    group.finish();
}

fn config() -> Criterion {
    Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2))
}

criterion_group! { name = benches; config = config(); targets = host }
criterion_main!(benches);

//! Properties of whole embeddings on every device: batch mates, order, length and binding size
//! change at most the rounding of a vector, and memory grows linearly with the number of tokens,
//! not quadratically.
//!
//! With `JINABERT_SLOW=1` the long text has the hidden size of jina-embeddings-v2-base; otherwise
//! one head.

#[path = "common/checkpoint.rs"]
#[allow(dead_code, reason = "each test target uses a part")]
mod checkpoint;
mod common;

use checkpoint::Recipe;
use common::{Device, fixture};
use jinabert::{
    Error,
    batch::{PackedBatch, Tokens, make_batches},
    kernels::{Dtype, KernelVariant, Tier, attention, linear, linear_geglu},
    model::{Model, ModelOptions, Numerics, Output},
    recording::{Command, Format, Recording, Tensor},
};
use libtest_mimic::{Arguments, Trial};
use std::{iter, sync::OnceLock};

type Outcome = Result<(), Box<dyn std::error::Error>>;
type Rule = fn(&Device, Tier) -> Outcome;

fn main() {
    let arguments = Arguments::from_args();
    let (devices, mut trials) = common::devices();
    let rules: [(&str, Rule); 7] = [
        ("batch mates and order change nothing", mates),
        ("8192 tokens agree with the reference", long),
        ("few rows change only the rounding", few),
        ("memory is linear in tokens", memory),
        ("small bindings change nothing", bindings),
        ("small dispatches and submissions change nothing", pieces),
        ("no dispatch of 8192 tokens is long", short),
    ];
    for (name, device) in &devices {
        let tier = device.tier();
        for (n, (rule, holds)) in rules.into_iter().enumerate() {
            let device = device.clone();
            let trial = Trial::test(format!("{name}/{rule}"), move || Ok(holds(&device, tier)?));
            // The naive tier takes minutes for the first two.
            trials.push(trial.with_ignored_flag(tier == Tier::Naive && n < 2));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// Counter-based generator, so that every run uses the same sequences.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn tokens(&mut self, length: usize, vocabulary: usize) -> Tokens {
        Tokens::new((0..length).map(|_| self.below(vocabulary) as u32).collect())
    }
}

/// Embeds all sequences, in order, in batches of at most `budget` tokens.
fn embed(
    model: &mut Model,
    all: &[Tokens],
    budget: usize,
) -> Result<Vec<Vec<f32>>, Box<dyn std::error::Error>> {
    let dims = model.config().hidden;
    let lengths: Vec<usize> = all.iter().map(Tokens::len).collect();
    let mut vectors = vec![Vec::new(); all.len()];
    for members in make_batches(&lengths, budget) {
        let batch = PackedBatch::new(members.iter().map(|&n| &all[n]));
        let values = model.forward(&batch, Output::Vectors { dims, normalize: true })?;
        for (&n, vector) in members.iter().zip(values.chunks_exact(dims as usize)) {
            vectors[n] = vector.to_vec();
        }
    }
    Ok(vectors)
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "components");
    let off = |(a, b): (&f32, &f32)| if a.is_finite() { (a - b).abs() } else { f32::INFINITY };
    a.iter().zip(b).map(off).fold(0.0, f32::max)
}

fn within(what: &str, error: f32, limit: f32) -> Outcome {
    if error <= limit {
        Ok(())
    } else {
        Err(format!("{what}: max |Δ| {error:e}, over {limit:e}").into())
    }
}

fn open(
    device: &Device,
    variant: impl Into<KernelVariant>,
    deterministic: bool,
) -> Result<Model, Error> {
    let variant = variant.into();
    let numerics = Numerics { deterministic, ..Numerics::default() };
    let choices = ModelOptions { numerics, ..ModelOptions::default() };
    Model::open_with(fixture("tiny-geglu-4h"), device.open(variant.tier), variant, choices)
}

/// Embeds 1,000 sequences alone, together, and together in another order: bit-identical in
/// deterministic mode.
fn mates(device: &Device, tier: Tier) -> Outcome {
    let mut model = open(device, tier, true)?;
    let mut random = Random(1);
    let all: Vec<Tokens> = (0..1000)
        .map(|n| {
            let length = if n % 50 == 0 { 200 + random.below(200) } else { 1 + random.below(40) };
            random.tokens(length, 400)
        })
        .collect();
    // A software GPU takes milliseconds for each submission, so that only every tenth sequence runs
    // alone.
    let step = if *device == Device::Cpu { 1 } else { 10 };
    let some: Vec<Tokens> = all.iter().step_by(step).cloned().collect();
    let alone = embed(&mut model, &some, 1)?;
    let together = embed(&mut model, &all, usize::MAX)?;
    let mut order: Vec<usize> = (0..all.len()).collect();
    for n in (1..order.len()).rev() {
        order.swap(n, random.below(n + 1));
    }
    let shuffled: Vec<Tokens> = order.iter().map(|&n| all[n].clone()).collect();
    let shuffled = embed(&mut model, &shuffled, 3000)?;
    for (n, vector) in alone.iter().enumerate() {
        let error = difference(&together[n * step], vector);
        within(&format!("sequence {} in one batch", n * step), error, 0.0)?;
    }
    for (position, &n) in order.iter().enumerate() {
        let error = difference(&shuffled[position], &together[n]);
        within(&format!("sequence {n} in shuffled batches"), error, 0.0)?;
    }
    Ok(())
}

/// Embeds 40 sequences alone and together: bit-identical in deterministic mode, otherwise equal up
/// to the order of sums, which depends on the number of rows in the tiled tier.
fn few(device: &Device, _: Tier) -> Outcome {
    let mut random = Random(4);
    let all: Vec<Tokens> = (0..40).map(|n| random.tokens(1 + 2 * n, 400)).collect();
    for (dtype, bound) in [(Dtype::F32, 1e-6), (Dtype::F16, 1e-3)] {
        let variant = KernelVariant::new(Tier::Tiled, dtype);
        if !variant.suits(&device.caps()) {
            continue;
        }
        for deterministic in [true, false] {
            let mut model = open(device, variant, deterministic)?;
            let alone = embed(&mut model, &all, 1)?;
            let together = embed(&mut model, &all, usize::MAX)?;
            let errors = alone.iter().zip(&together).map(|(a, b)| difference(a, b));
            let error = errors.fold(0.0, f32::max);
            let bound = if deterministic { 0.0 } else { bound };
            within(&format!("{variant}, deterministic: {deterministic}"), error, bound)?;
            if !deterministic && error == 0.0 {
                return Err("all sums were in one order".into());
            }
        }
    }
    Ok(())
}

/// Layer with heads of width 64, and 8,192 tokens for it.
fn long_problem() -> Result<(tempfile::TempDir, PackedBatch), Box<dyn std::error::Error>> {
    let heads = if std::env::var_os("JINABERT_SLOW").is_some() { 12 } else { 1 };
    let dir = tempfile::tempdir()?;
    Recipe::of_size(1, 64 * heads, heads, 1000).write(dir.path());
    Ok((dir, PackedBatch::new([&Random(2).tokens(8192, 1000)])))
}

/// Reference result of the long problem, computed once for all devices.
fn long_twin() -> &'static [f32] {
    static HIDDEN: OnceLock<Vec<f32>> = OnceLock::new();
    HIDDEN.get_or_init(|| {
        let (dir, batch) = long_problem().expect("a writable directory");
        let reference = Device::Cpu.open(Tier::Reference);
        let mut model =
            Model::open(dir.path(), reference, Tier::Reference).expect("a good checkpoint");
        model.forward(&batch, Output::Tokens).expect("the CPU cannot fail")
    })
}

fn long(device: &Device, tier: Tier) -> Outcome {
    let (dir, batch) = long_problem()?;
    let mut model = Model::open(dir.path(), device.open(tier), tier)?;
    let hidden = model.forward(&batch, Output::Tokens)?;
    within("hidden states", difference(&hidden, long_twin()), 1e-4)
}

/// Device memory for one text of 2,048 … 32,768 tokens at base size: at most six numbers for each
/// component of the residual stream.  Once the batch is larger than the blocks of the MLP, each
/// doubling of the length adds twice as much as the last.
fn memory(device: &Device, tier: Tier) -> Outcome {
    let dir = tempfile::tempdir()?;
    Recipe::of_size(1, 768, 12, 100).write(dir.path());
    let mut held = Vec::new();
    for tokens in [2048, 4096, 8192, 16_384, 32_768] {
        let mut model = Model::open(dir.path(), device.open(tier), tier)?;
        let before = model.allocated_bytes();
        let batch = PackedBatch::new([&Random(3).tokens(tokens, 100)]);
        model.record(&batch, Output::Vectors { dims: 768, normalize: true })?;
        let bytes = (model.allocated_bytes() - before) as f64;
        let most = 1.01 * 6.0 * 768.0 * 4.0 * tokens as f64;
        if bytes > most {
            return Err(format!("{bytes} bytes for {tokens} tokens, over {most}").into());
        }
        held.push((tokens as f64, bytes));
    }
    for window in held[1..].windows(3) {
        let slope = |a: usize, b: usize| (window[b].1 - window[a].1) / (window[b].0 - window[a].0);
        let first = slope(0, 1);
        let second = slope(1, 2);
        if (first - second).abs() > 0.01 * first {
            return Err(format!("{first} bytes a token, then {second}: {held:?}").into());
        }
    }
    Ok(())
}

/// Device with bindings of 64 KiB: the embedding table is split into parts, q, k and v into three
/// products, the MLP into blocks of 128 rows.
fn bindings(device: &Device, tier: Tier) -> Outcome {
    // The limit does not apply to textures.
    let tier = if tier.format() == Format::Texture { Tier::Tiled } else { tier };
    let of = |dtype| KernelVariant::new(tier, dtype);
    let variants = [of(Dtype::F32), of(Dtype::F16)].into_iter();
    for variant in variants.filter(|variant| variant.suits(&device.caps())) {
        bindings_of(device, variant).map_err(|e| format!("{variant}: {e}"))?;
    }
    Ok(())
}

fn bindings_of(device: &Device, variant: KernelVariant) -> Outcome {
    for name in ["tiny-geglu-4h", "tiny-code-qknorm", "tiny-original"] {
        let all: Vec<Tokens> = (0..20).map(|n| Random(n).tokens(3 + 9 * n as usize, 400)).collect();
        let mut wide = Model::open(fixture(name), device.open(variant.tier), variant)?;
        let mut engine = device.open(variant.tier);
        engine.limit_bindings(64 << 10);
        let mut narrow = Model::open(fixture(name), engine, variant)?;
        let budget = narrow.max_tokens();
        if budget != 256 {
            return Err(format!("{budget} tokens of 64 components fit into 64 KiB").into());
        }
        let recorded = PackedBatch::new([&all[19]]);
        let recorded = narrow.record(&recorded, Output::Vectors { dims: 64, normalize: true })?;
        let count = |word| recorded.commands.iter().filter(|c| c.program.name() == word).count();
        // In f16 the embedding table fits, and blocks have more rows.
        let (parts, blocks) = if variant.dtype == Dtype::F16 { (1, 2) } else { (2, 4) };
        // Two products of two layers in blocks; the first is another kernel if it has a gate.
        let (mlp, other) = match name {
            "tiny-original" => (count("linear"), 8 + 2 * blocks),
            _ => (count("linear_geglu"), blocks),
        };
        if count("embed") < parts || mlp < other || count("linear") < 10 {
            return Err(format!("nothing was split:\n{recorded}").into());
        }
        let expected = embed(&mut wide, &all, budget)?;
        for (n, vector) in embed(&mut narrow, &all, budget)?.iter().enumerate() {
            within(&format!("{name}: sequence {n}"), difference(vector, &expected[n]), 1e-6)?;
        }
    }
    Ok(())
}

/// Device so slow that every tile and every 64 rows need a dispatch and a submission of their own:
/// bit-identical, in every tier.
fn pieces(device: &Device, _: Tier) -> Outcome {
    let all: Vec<Tokens> =
        [300, 5, 130, 64, 1].map(|n| Random(n as u64).tokens(n, 400)).into_iter().collect();
    let slow = std::env::var_os("JINABERT_SLOW").is_some();
    for tier in Tier::of(&device.caps()) {
        // The second model's additional operations are split in the same way.
        let second = (slow || tier == device.tier()).then_some("tiny-code-qknorm");
        for name in iter::once("tiny-geglu-4h").chain(second) {
            let mut whole = Model::open(fixture(name), device.open(tier), tier)?;
            let mut engine = device.open(tier);
            engine.limit_dispatches(1e5);
            let mut cut = Model::open(fixture(name), engine, tier)?;
            let recording = cut.record(&PackedBatch::new(&all), Output::Tokens)?;
            let slices = slices(&recording)?;
            let most = slices.iter().map(|(_, slices)| *slices).max();
            if most.is_none_or(|most| most < 8) {
                return Err(format!("{tier}: little was cut: {slices:?}").into());
            }
            let expected = embed(&mut whole, &all, usize::MAX)?;
            for (n, vector) in embed(&mut cut, &all, usize::MAX)?.iter().enumerate() {
                let error = difference(vector, &expected[n]);
                within(&format!("{name}, {tier}: sequence {n}"), error, 0.0)?;
            }
        }
    }
    Ok(())
}

/// Text of 8,192 tokens at base size on a device of unknown speed: at most 10 GFLOP for each
/// dispatch.
fn short(device: &Device, tier: Tier) -> Outcome {
    const MOST: f64 = 10e9;
    let dir = tempfile::tempdir()?;
    Recipe::of_size(1, 768, 12, 100).write(dir.path());
    let mut engine = device.open(tier);
    if *device == Device::Cpu {
        engine.limit_dispatches(MOST); // the CPU has no limit of its own
    }
    let mut model = Model::open(dir.path(), engine, tier)?;
    let batch = PackedBatch::new([&Random(4).tokens(8192, 100)]);
    let recording = model.record(&batch, Output::Vectors { dims: 768, normalize: true })?;
    if let Some(command) = recording.commands.iter().find(|command| command.flops > MOST) {
        return Err(format!("{:e} operations: {command}", command.flops).into());
    }
    let slices = slices(&recording)?;
    let cut = |word| slices.iter().any(|&(found, slices)| found == word && slices > 1);
    if ["attention", "linear", "linear_geglu"].into_iter().all(cut) {
        Ok(())
    } else {
        Err(format!("uncut: {slices:?}").into())
    }
}

/// Divisible operations with the number of their dispatches, which cover each once and in order.
fn slices(recording: &Recording) -> Result<Vec<(&'static str, usize)>, String> {
    let mut operations: Vec<(&str, usize)> = Vec::new();
    let mut under_way: Option<(&[Tensor], u32)> = None;
    for command in &recording.commands {
        let Some((first, end, all)) = range(command) else { continue };
        let bindings = command.bindings.as_slice();
        match under_way.unwrap_or((bindings, 0)) {
            (same, next) if same == bindings && next == first && first < end && end <= all => {}
            expected => return Err(format!("{first}..{end} of {all}: {command}: {expected:?}")),
        }
        match operations.last_mut() {
            Some((_, slices)) if first > 0 => *slices += 1,
            _ => operations.push((command.program.name(), 1)),
        }
        under_way = (end < all).then_some((bindings, end));
    }
    match under_way {
        None => Ok(operations),
        Some(_) => Err("the last operation has no end".to_owned()),
    }
}

/// Start, end and total of the rows or tiles of a dispatch.
fn range(command: &Command) -> Option<(u32, u32, u32)> {
    let rows = |n: usize| command.bindings[n].shape.rows();
    match command.program.name() {
        "attention" => {
            let p: attention::Params = command.params();
            Some((p.first, p.tiles, rows(5)))
        }
        "linear" => {
            let p: linear::Params = command.params();
            Some((p.first, p.rows, rows(0)))
        }
        "linear_geglu" => {
            let p: linear_geglu::Params = command.params();
            Some((p.first, p.rows, rows(0)))
        }
        _ => None,
    }
}

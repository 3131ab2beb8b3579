//! Properties of every engine, independent of the model.

mod common;

use common::Device;
use half::f16;
use jinabert::{
    batch::{PackedBatch, Tokens},
    elements::TensorData,
    kernel_check::{KernelCase, LinearCase},
    kernels::{KernelVariant, Tier, Tile, linear},
    model::{Model, Output},
    recording::{
        Binding, Caps, Command, DispatchLimits, Engine, Format, InFlight, Kernel, Program,
        Recording, Shape, Span, Tensor,
    },
};
use libtest_mimic::{Arguments, Trial};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::{error::Error, fs, path::Path, sync::Arc};

type Outcome = Result<(), Box<dyn Error>>;
type Rule = fn(&Device, Tier) -> Outcome;

fn main() {
    let arguments = Arguments::from_args();
    let (devices, mut trials) = common::devices();
    let rules: [(&str, Rule); 7] = [
        ("broken kernels are errors", broken),
        ("batches in flight do not interfere", under_way),
        ("a failure affects no other work", failure),
        ("f16 weights equal the same weights in f32", half_weights),
        ("f16 weights are read exactly", every_half),
        ("f16 weights that the device would change are f32", others),
        ("values beyond f16 are not finite", beyond),
    ];
    for (name, device) in &devices {
        // The CPU compiles nothing, and cannot fail.
        let also = |rule: &str| ["batches", "f16"].iter().any(|part| rule.starts_with(part));
        let of_all = |rule: &str| *device != Device::Cpu || also(rule);
        for (rule, holds) in rules.into_iter().filter(|(rule, _)| of_all(rule)) {
            let device = device.clone();
            let holds = move || Ok(holds(&device, device.tier())?);
            trials.push(Trial::test(format!("{name}/{rule}"), holds));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// A product with invalid WGSL fails with the name of its file, compiled ahead of time or not, and
/// the engine stays usable.
fn broken(device: &Device, tier: Tier) -> Outcome {
    let (good, bad) = products(tier);
    let problem = LinearCase::new(5, 8, 8, false);
    let mut engine = device.open(tier);
    for ahead in [false, true] {
        let mut recorded = problem.record(&mut *engine, tier.into(), 1)?;
        recorded.recording.commands[0].program = Arc::clone(&bad.program);
        if ahead {
            engine.prepare(vec![Arc::clone(&bad.program), Arc::clone(&good.program)]);
        }
        let error = engine.run(&recorded.recording, &recorded.output).err().ok_or("no error")?;
        let error = error.to_string();
        if !error.contains(&format!("shaders/{}:", bad.program.file)) {
            return Err(format!("{error}: no file").into());
        }
        let checked = problem.check(&mut *engine, tier.into(), 1)?;
        if checked.wrong > 0 {
            return Err(format!("afterwards: {checked}").into());
        }
    }
    Ok(())
}

/// Product, and one with invalid WGSL.
fn products(tier: Tier) -> (Kernel<linear::Spec>, Kernel<linear::Spec>) {
    let good = linear::kernel(linear::Spec::new(tier, false));
    let text = good.program.text.replace("@compute", "@compote").leak();
    let program = Program { text, ..(*good.program).clone() };
    let bad = Kernel { spec: good.spec, program: Arc::new(program) };
    (good, bad)
}

/// Batches of growing size, so that tensors are replaced while others are in use, in one submission
/// each or in many; awaited in order, in reverse, and not at all.
fn under_way(device: &Device, tier: Tier) -> Outcome {
    let dir = common::fixture("tiny-geglu-4h");
    let batches: Vec<PackedBatch> = [3, 200, 40, 900, 1, 1200]
        .map(|n| PackedBatch::new([&Tokens::new((0..n).map(|i| (i * 7 + n) % 400).collect())]))
        .into();
    let output = Output::Vectors { dims: 64, normalize: true };
    let alone = |batch| Model::open(&dir, device.open(tier), tier)?.forward(batch, output);
    let alone = batches.iter().map(alone).collect::<Result<Vec<_>, _>>()?;
    for dispatch_flops in [f64::MAX, 1e6] {
        let mut engine = device.open(tier);
        engine.limit_dispatches(dispatch_flops);
        let mut model = Model::open(&dir, engine, tier)?;
        for round in 0..3 {
            let submit = |batch| model.submit(batch, output);
            let running = batches.iter().map(submit).collect::<Result<Vec<_>, _>>()?;
            let mut running: Vec<_> = running.into_iter().zip(&alone).collect();
            match round {
                0 => running.reverse(),
                1 => running.truncate(2),
                _ => {}
            }
            for (n, (running, alone)) in running.into_iter().enumerate() {
                if running.wait()? != *alone {
                    return Err(format!("round {round}: batch {n} differs").into());
                }
            }
        }
    }
    Ok(())
}

/// Work before and after a failure gives correct results.
fn failure(device: &Device, tier: Tier) -> Outcome {
    let (_, bad) = products(tier);
    let problem = LinearCase::new(100, 64, 64, false);
    let mut engine = device.open(tier);
    let good = problem.record(&mut *engine, tier.into(), 1)?;
    let expected = engine.run(&good.recording, &good.output)?;
    let mut failing: Recording = good.recording.clone();
    failing.commands[0].program = bad.program;
    let before = engine.submit(&good.recording, &good.output)?;
    if engine.submit(&failing, &good.output).is_ok() {
        return Err("no error".into());
    }
    let after = engine.submit(&good.recording, &good.output)?;
    for (when, ticket) in [("after", after), ("before", before)] {
        if ticket.wait()? != expected {
            return Err(format!("what was submitted {when} a failure differs").into());
        }
    }
    Ok(())
}

/// Matrices of an f16 file stay f16, in half the memory, without other changes: bit-identical to a
/// file with the same numbers in f32, in every tier, for few rows and many.
fn half_weights(device: &Device, _: Tier) -> Outcome {
    let caps = device.caps();
    for name in ["tiny-f16", "hd64-3heads-f16"] {
        let dir = common::fixture(name);
        let wide = tempfile::tempdir()?;
        let mixed = tempfile::tempdir()?;
        widened(&dir, wide.path(), |_| true)?;
        widened(&dir, mixed.path(), |name| name == "encoder.layer.0.mlp.wo.weight")?;
        for tier in Tier::of(&caps) {
            let open = |dir: &Path| Model::open(dir, device.open(tier), tier);
            let mut halves = open(&dir)?;
            let mut floats = open(wide.path())?;
            let [small, large] = [&halves, &floats].map(Model::allocated_bytes);
            let reads = caps.half && !matches!(tier, Tier::Reference | Tier::Naive);
            let stored = [halves.variant(), floats.variant(), open(mixed.path())?.variant()];
            if stored.map(|variant| variant.half_weights) != [reads, false, false] {
                return Err(format!("{name}, {tier}: {stored:?}").into());
            }
            if reads && 5 * small > 3 * large {
                return Err(format!("{name}, {tier}: {small} bytes, in f32 {large}").into());
            }
            for tokens in [3, 16, 17, 64, 150] {
                let batch = Tokens::new((0..tokens).map(|i| (i * 7 + tokens) % 300).collect());
                let batch = PackedBatch::new([&batch]);
                let [a, b] = [&mut halves, &mut floats].map(|m| m.forward(&batch, Output::Tokens));
                if a?.iter().map(|x| x.to_bits()).ne(b?.iter().map(|x| x.to_bits())) {
                    return Err(format!("{name}, {tier}: {tokens} tokens differ").into());
                }
            }
        }
    }
    Ok(())
}

/// Writes a copy of a checkpoint with some tensors in f32.
fn widened(from: &Path, to: &Path, wide: impl Fn(&str) -> bool) -> Outcome {
    fs::copy(from.join("config.json"), to.join("config.json"))?;
    let file = fs::read(from.join("model.safetensors"))?;
    let file = SafeTensors::deserialize(&file)?;
    let mut stored = Vec::new();
    for (name, tensor) in file.iter() {
        let shape = tensor.shape().to_vec();
        let data = tensor.data();
        stored.push(if tensor.dtype() == Dtype::F16 && wide(name) {
            let values = TensorData::f16(data).widened().into_owned();
            let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name, Dtype::F32, shape, bytes)
        } else {
            (name, tensor.dtype(), shape, data.to_vec())
        });
    }
    let views = stored.iter().map(|(name, dtype, shape, bytes)| {
        Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?))
    });
    let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    Ok(safetensors::serialize_to_file(views, None, &to.join("model.safetensors"))?)
}

/// Every finite f16 is unchanged by a product with one.
fn every_half(device: &Device, _: Tier) -> Outcome {
    let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).filter(|x| x.is_finite()).collect();
    let n = all.len() as u32 / 4;
    let variants = KernelVariant::all(&device.caps());
    for variant in variants.into_iter().filter(|variant| variant.half_weights) {
        for (_, tile) in Tile::by_rows(variant.tier) {
            let kernel = linear::kernel(linear::Spec { tile, ..linear::Spec::new(variant, false) });
            let mut engine = device.open(variant.tier);
            let (shape, w) = tile.layout().arrange(TensorData::F16(all[..].into()), [n, 4]);
            let unit: Vec<f32> = (0..16).map(|i| if i % 5 == 0 { 1.0 } else { 0.0 }).collect();
            let x = engine.upload([4, 4].into(), variant.stream(), unit.into())?;
            let w = engine.upload(shape, variant.weights(), w)?;
            let bias = engine.upload([n].into(), Format::F32, vec![0.0; n as usize].into())?;
            let y = engine.alloc([4, n].into(), variant.wide())?;
            let mut recording = Recording::new();
            let args = linear::Args { x: &x, w: &w, bias: &bias, r: &x, y: &y };
            linear::record(&mut recording, &kernel, args);
            let found = engine.run(&recording, &y)?;
            let expected = |i: usize| all[i % n as usize * 4 + i / n as usize].to_f32();
            if let Some(i) = (0..found.len()).find(|&i| found[i] != expected(i)) {
                return Err(format!("{variant} {tile}: {} is {}", expected(i), found[i]).into());
            }
        }
    }
    Ok(())
}

/// The largest f16 is stored exactly; larger values are not finite, whatever the driver does.
fn beyond(device: &Device, _: Tier) -> Outcome {
    let variants = KernelVariant::of(&device.caps());
    for variant in variants.into_iter().filter(|variant| variant.wide() == Format::F16) {
        let kernel = linear::kernel(linear::Spec::new(variant, false));
        let mut engine = device.open(variant.tier);
        let unit: Vec<f32> = (0..16).map(|i| if i % 5 == 0 { 1.0 } else { 0.0 }).collect();
        let (shape, w) = Tile::new(variant.tier).layout().arrange(unit.into(), [4, 4]);
        let rows =
            [[65504.0, -65504.0, 2.0, 0.0], [1.0, 65520.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1e30]];
        let x = engine.upload([3, 4].into(), variant.stream(), rows.concat().into())?;
        let w = engine.upload(shape, variant.weights(), w)?;
        let bias = engine.upload([4].into(), Format::F32, vec![0.0; 4].into())?;
        let y = engine.alloc([3, 4].into(), variant.wide())?;
        let mut recording = Recording::new();
        let args = linear::Args { x: &x, w: &w, bias: &bias, r: &x, y: &y };
        linear::record(&mut recording, &kernel, args);
        let found = engine.run(&recording, &y)?;
        if found[..4] != rows[0] || found[5].is_finite() || found[11].is_finite() {
            return Err(format!("{variant}: {found:?} of {rows:?}").into());
        }
    }
    Ok(())
}

/// On a device that flushes the smallest f16 to zero, or refuses f16, weights are converted to f32
/// when they are loaded.
fn others(device: &Device, _: Tier) -> Outcome {
    let open = || device.open(Tier::Blocked);
    if *device != Device::Cpu || !open().caps().half {
        return Ok(());
    }
    let dir = common::fixture("tiny-f16");
    let wide = tempfile::tempdir()?;
    widened(&dir, wide.path(), |_| true)?;
    let batch = PackedBatch::new([&Tokens::new((0..50).collect())]);
    let expected =
        Model::open(wide.path(), open(), Tier::Blocked)?.forward(&batch, Output::Tokens)?;
    for refuses in [false, true] {
        let engine = Box::new(PoorInHalves { engine: open(), refuses });
        let mut model = Model::open(&dir, engine, Tier::Blocked)?;
        if model.variant().half_weights {
            return Err("f16 weights on a device that changes them, or has no kernels".into());
        }
        if model.forward(&batch, Output::Tokens)? != expected {
            return Err("other numbers".into());
        }
    }
    Ok(())
}

/// Engine whose compiler `refuses` shaders that read f16, or that flushes the smallest f16 to zero.
struct PoorInHalves {
    engine: Box<dyn Engine>,
    refuses: bool,
}

impl Engine for PoorInHalves {
    fn upload(
        &mut self,
        shape: Shape,
        format: Format,
        data: TensorData<'_>,
    ) -> Result<Tensor, jinabert::Error> {
        let mut values = data.widened().into_owned();
        if format.half() && !self.refuses {
            let least = f16::MIN_POSITIVE.to_f32();
            values.iter_mut().filter(|x| x.abs() < least).for_each(|x| *x = 0.0);
        }
        self.engine.upload(shape, format, values.into())
    }

    fn caps(&self) -> &Caps {
        self.engine.caps()
    }

    fn limit_bindings(&mut self, bytes: u64) {
        self.engine.limit_bindings(bytes);
    }

    fn alloc(&mut self, shape: Shape, format: Format) -> Result<Tensor, jinabert::Error> {
        self.engine.alloc(shape, format)
    }

    fn reserve(&mut self, views: &[Tensor]) -> Result<(), jinabert::Error> {
        self.engine.reserve(views)
    }

    fn release(&mut self, tensors: &[Tensor]) -> Result<(), jinabert::Error> {
        self.engine.release(tensors)
    }

    fn write(&mut self, tensor: &Tensor, data: &[u32]) -> Result<(), jinabert::Error> {
        self.engine.write(tensor, data)
    }

    fn dispatch_limits(&self) -> DispatchLimits {
        self.engine.dispatch_limits()
    }

    fn limit_dispatches(&mut self, flops: f64) {
        self.engine.limit_dispatches(flops);
    }

    fn submit(
        &mut self,
        recording: &Recording,
        output: &Tensor,
    ) -> Result<InFlight<'static, Vec<f32>>, jinabert::Error> {
        let halves = |binding: &Binding| binding.format == Format::F16;
        let reads = |command: &&Command| command.program.bindings.iter().any(halves);
        if let Some(command) = recording.commands.iter().find(reads).filter(|_| self.refuses) {
            let kernel = command.program.name();
            let message = "no f16".to_owned();
            return Err(jinabert::Error::Compile { kernel, message });
        }
        self.engine.submit(recording, output)
    }

    fn profile(&mut self, recording: &Recording) -> Result<Vec<Span>, jinabert::Error> {
        self.engine.profile(recording)
    }

    fn allocated_bytes(&self) -> u64 {
        self.engine.allocated_bytes()
    }
}

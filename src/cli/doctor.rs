//! `jinabert doctor`

use super::{Failure, args::Doctor, item::FromObject, shipped};
use crate::{
    Device, Embedder, Error, Options,
    device::Opened,
    gpu,
    kernels::{Dtype, Version},
    probe::{self, Problem},
};
use serde::Deserialize;
use std::{
    fs,
    io::{self, Write},
    path::Path,
};

/// Maximum error of a component of a golden vector: f32 arithmetic is good to 1e-6 on this model,
/// and the stored digits to 5e-7.
fn golden_limit(dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F32 => 1e-5,
        Dtype::F16 => 1e-3,
    }
}

/// Text with its expected tokens and vector, from an independent float64 implementation.
#[derive(Deserialize)]
struct Golden {
    text: String,
    ids: Vec<u32>,
    embedding: Vec<f32>,
}

pub fn run(args: &Doctor) -> Result<(), Failure> {
    let dir = shipped::directory()?;
    let path = dir.join("golden.json");
    let text = fs::read_to_string(&path).map_err(|source| Failure::Input { path, source })?;
    let golden: Vec<FromObject<Golden>> =
        serde_json::from_str(&text).map_err(|e| Error::Model(format!("golden.json: {e}")))?;
    let golden: Vec<Golden> = golden.into_iter().map(|FromObject(golden)| golden).collect();
    let devices = match args.device {
        Some(device) => vec![device],
        None => (0..gpu::adapters().len()).map(Device::Index).chain([Device::Cpu]).collect(),
    };
    let mut report = Report { out: io::stdout().lock(), passed: 0, failed: 0 };
    for device in devices {
        report.device(device, &dir, &golden)?;
    }
    report.finish()
}

struct Report {
    out: io::StdoutLock<'static>,
    passed: usize,
    failed: usize,
}

impl Report {
    fn device(&mut self, device: Device, dir: &Path, golden: &[Golden]) -> Result<(), Failure> {
        let opened = match device.open(None, Dtype::F32) {
            Ok(opened) => opened,
            Err(error) => {
                writeln!(self.out, "{device}")?;
                return self.line(false, "open", &error.to_string());
            }
        };
        writeln!(self.out, "{}", opened.name)?;
        let caps = opened.engine.caps().clone();
        drop(opened);
        let embedder = Embedder::open_with(dir, Options::new().device(device));
        match embedder.and_then(|embedder| embedder.speed()) {
            Ok(speed) => writeln!(self.out, "  the shipped model: {speed}")?,
            Err(error) => self.line(false, "speed", &error.to_string())?,
        }
        for version in Version::all(&caps) {
            // The precision of the weights is set by the model file, not by the version.
            if !version.half_weights {
                self.golden(device, version, dir, golden)?;
            }
            let opened = device.open(Some(version.tier), version.dtype)?;
            let mut opened = Opened { version, ..opened };
            let samples = probe::samples().into_iter();
            for problem in samples.filter(|problem| problem.versions(&caps).contains(&version)) {
                self.kernel(&problem, &mut opened)?;
            }
        }
        Ok(())
    }

    fn golden(
        &mut self,
        device: Device,
        version: Version,
        dir: &Path,
        golden: &[Golden],
    ) -> Result<(), Failure> {
        let name = format!("{version} golden vectors");
        let limit = golden_limit(version.dtype);
        match golden_error(device, version, dir, golden) {
            Err(error) => self.line(false, &name, &error.to_string()),
            Ok(error) => {
                let right = error <= limit;
                let detail =
                    format!("{} texts, max |Δ| {error:.1e}, limit {limit:.0e}", golden.len());
                self.line(right, &name, &detail)
            }
        }
    }

    fn kernel(&mut self, problem: &Problem, opened: &mut Opened) -> Result<(), Failure> {
        let name = format!("{} {}", opened.version, problem.word());
        match problem.check(&mut *opened.engine, opened.version, 1) {
            Err(error) => self.line(false, &name, &error.to_string()),
            Ok(checked) => self.line(checked.wrong == 0, &name, &checked.to_string()),
        }
    }

    fn line(&mut self, right: bool, name: &str, detail: &str) -> Result<(), Failure> {
        match right {
            true => self.passed += 1,
            false => self.failed += 1,
        }
        let verdict = if right { "pass" } else { "FAIL" };
        Ok(writeln!(self.out, "  {verdict}  {name:<27} {detail}")?)
    }

    fn finish(mut self) -> Result<(), Failure> {
        let total = self.passed + self.failed;
        if self.failed > 0 {
            return Err(Failure::Doctor(self.failed, total));
        }
        Ok(writeln!(self.out, "all {total} checks passed")?)
    }
}

/// Largest difference of a component; an error if the tokens differ.
fn golden_error(
    device: Device,
    Version { tier, dtype, .. }: Version,
    dir: &Path,
    golden: &[Golden],
) -> Result<f32, Error> {
    let options = Options { device, tier: Some(tier), dtype, ..Options::default() };
    let embedder = Embedder::open_with(dir, options)?;
    let texts: Vec<&str> = golden.iter().map(|golden| golden.text.as_str()).collect();
    let tokenized = embedder.tokenize(&texts)?;
    for (golden, text) in golden.iter().zip(&tokenized) {
        if golden.ids != text.tokens.ids {
            return Err(Error::Model(format!("wrong tokens for `{}`", golden.text)));
        }
    }
    let vectors = embedder.embed(&texts)?;
    let pairs = golden.iter().zip(&vectors);
    let errors =
        pairs.flat_map(|(g, v)| g.embedding.iter().zip(v.iter()).map(|(a, b)| (a - b).abs()));
    Ok(errors.fold(0.0, f32::max))
}

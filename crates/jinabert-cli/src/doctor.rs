//! `jinabert doctor`

use crate::{error::CliError, item::FromObject, shipped};
use jinabert::{
    Device, Embedder, Error, Options,
    device::Opened,
    gpu,
    kernel_check::{self, KernelCase},
    kernels::{Dtype, KernelVariant},
};
use serde::Deserialize;
use std::{
    fs,
    io::{self, Write},
    path::Path,
};

/// `jinabert doctor`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert doctor
  jinabert doctor --device cpu")]
pub struct Doctor {
    /// Check only this device [default: all devices].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<Device>,
}

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

/// Checks the devices and prints a line for each check.
pub fn run(args: &Doctor) -> Result<(), CliError> {
    let dir = shipped::directory()?;
    let path = dir.join("golden.json");
    let text = fs::read_to_string(&path).map_err(|source| CliError::Input { path, source })?;
    let objects: Vec<FromObject<Golden>> =
        serde_json::from_str(&text).map_err(|e| Error::Model(format!("golden.json: {e}")))?;
    let golden: Vec<Golden> = objects.into_iter().map(|FromObject(golden)| golden).collect();
    let devices = match args.device {
        Some(device) => vec![device],
        None => (0..gpu::adapters().len()).map(Device::Index).chain([Device::Cpu]).collect(),
    };
    let mut report = DoctorReport { out: io::stdout().lock(), passed: 0, failed: 0 };
    for device in devices {
        report.device(device, &dir, &golden)?;
    }
    report.finish()
}

/// Printed report: a line for each check.
struct DoctorReport {
    out: io::StdoutLock<'static>,
    passed: usize,
    failed: usize,
}

impl DoctorReport {
    /// Makes all checks of a device.
    fn device(&mut self, device: Device, dir: &Path, golden: &[Golden]) -> Result<(), CliError> {
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
        match embedder.and_then(|embedder| embedder.runtime().speed()) {
            Ok(speed) => writeln!(self.out, "  the shipped model: {speed}")?,
            Err(error) => self.line(false, "speed", &error.to_string())?,
        }
        for variant in KernelVariant::all(&caps) {
            // The precision of the weights is set by the model file, not by the variant.
            if !variant.half_weights {
                self.golden(device, variant, dir, golden)?;
            }
            let opened = device.open(Some(variant.tier), variant.dtype)?;
            let mut opened = Opened { variant, ..opened };
            let samples = kernel_check::ALL.iter().map(|suite| (suite.sample)());
            for case in samples.filter(|case| case.variants(&caps).contains(&variant)) {
                self.kernel(&*case, &mut opened)?;
            }
        }
        Ok(())
    }

    /// Compares vectors of the shipped model with the golden ones.
    fn golden(
        &mut self,
        device: Device,
        variant: KernelVariant,
        dir: &Path,
        golden: &[Golden],
    ) -> Result<(), CliError> {
        let name = format!("{variant} golden vectors");
        let limit = golden_limit(variant.dtype);
        match golden_error(device, variant, dir, golden) {
            Err(error) => self.line(false, &name, &error.to_string()),
            Ok(error) => {
                let right = error <= limit;
                let detail =
                    format!("{} texts, max |Δ| {error:.1e}, limit {limit:.0e}", golden.len());
                self.line(right, &name, &detail)
            }
        }
    }

    /// Compares a kernel with its reference.
    fn kernel(&mut self, case: &dyn KernelCase, opened: &mut Opened) -> Result<(), CliError> {
        let name = format!("{} {}", opened.variant, case.kernel());
        match case.check(&mut *opened.engine, opened.variant, 1) {
            Err(error) => self.line(false, &name, &error.to_string()),
            Ok(checked) => self.line(checked.wrong == 0, &name, &checked.to_string()),
        }
    }

    /// Prints and counts the result of a check.
    fn line(&mut self, right: bool, name: &str, detail: &str) -> Result<(), CliError> {
        let verdict = if right {
            self.passed += 1;
            "pass"
        } else {
            self.failed += 1;
            "FAIL"
        };
        Ok(writeln!(self.out, "  {verdict}  {name:<27} {detail}")?)
    }

    fn finish(mut self) -> Result<(), CliError> {
        let total = self.passed + self.failed;
        if self.failed > 0 {
            return Err(CliError::Doctor(self.failed, total));
        }
        Ok(writeln!(self.out, "all {total} checks passed")?)
    }
}

/// Largest difference of a component; an error if the tokens differ.
fn golden_error(
    device: Device,
    KernelVariant { tier, dtype, .. }: KernelVariant,
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
    let mut largest = 0.0_f32;
    for (golden, vector) in golden.iter().zip(&vectors) {
        let errors = golden.embedding.iter().zip(vector.iter()).map(|(a, b)| (a - b).abs());
        largest = errors.fold(largest, f32::max);
    }
    Ok(largest)
}

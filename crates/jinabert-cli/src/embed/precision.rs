//! Checks of `--precision` and of its related options.

use super::{
    args::{Embed, Encoding, Format, PrecisionArgs},
    npy::Rows,
};
use crate::error::CliError;
use jinabert::precision::{Precision, Quantizer, Ranges};
use std::{
    io::{self, ErrorKind},
    path::Path,
};

/// Checks that the options are compatible; returns the output format.
pub fn check(args: &Embed) -> Result<Format, CliError> {
    let format = args.format.or_else(|| Format::by_name(&args.output)).unwrap_or(Format::Jsonl);
    let PrecisionArgs { precision, int8_range, calibration, encoding } = &args.precision;
    let precision = Precision::from(*precision);
    let ranges = match (int8_range, calibration) {
        (Some(_), _) => Some("--int8-range"),
        (_, Some(_)) => Some("--calibration"),
        _ => None,
    };
    let usage = |what: String| Err(CliError::Usage(what));
    match (ranges, precision.has_ranges()) {
        (Some(option), false) => {
            usage(format!("{option} is for --precision int8 and uint8; this is {precision}"))
        }
        (None, true) if args.no_normalize => usage(format!(
            "--precision {precision} is for vectors of length 1: with --no-normalize, give a range \
             with --int8-range or --calibration"
        )),
        _ if *encoding == Encoding::Base64 && !matches!(format, Format::Json | Format::Jsonl) => {
            let format = if format == Format::Npy { "npy" } else { "csv" };
            usage(format!("--encoding base64 is for json and jsonl; this is {format}"))
        }
        _ => Ok(format),
    }
}

/// Quantizer for vectors of `dims` components.
pub fn quantizer(args: &PrecisionArgs, dims: usize) -> Result<Quantizer, CliError> {
    let precision = args.precision.into();
    Ok(match (args.int8_range, &args.calibration) {
        (Some(limit), _) => Quantizer::with_ranges(precision, Ranges::symmetric(dims, limit)?),
        (None, Some(path)) => Quantizer::with_ranges(precision, calibrated(path, dims)?),
        (None, None) => Quantizer::new(precision, dims),
    })
}

fn calibrated(path: &Path, dims: usize) -> Result<Ranges, CliError> {
    let failed = |source| CliError::Input { path: path.to_owned(), source };
    let mut rows = Rows::open(path).map_err(failed)?;
    if rows.cols != dims {
        let cols = rows.cols;
        let path = path.display();
        return Err(CliError::Usage(format!(
            "--calibration `{path}` has vectors of {cols} components; these have {dims}"
        )));
    }
    let mut error = None;
    let good = rows.by_ref().map_while(|row| row.map_err(|e| error = Some(e)).ok());
    let ranges = Ranges::of(good);
    match error {
        Some(error) => Err(failed(error)),
        None => ranges.map_err(|e| failed(io::Error::new(ErrorKind::InvalidData, e.to_string()))),
    }
}

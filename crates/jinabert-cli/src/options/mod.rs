//! Groups of arguments that several commands share, and the parsers of their values.

mod device;
mod input;
mod model;
mod prompt;

pub use device::Dtype;
#[cfg(feature = "server")]
pub use device::Power;
pub use input::{InputArgs, InputFormat};
pub use model::{HubArgs, ModelArgs, Source};
pub use prompt::PromptArgs;

use clap::builder::PossibleValuesParser;
use jinabert::kernels;

/// Parses a duration in seconds, up to a day.
pub fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected 0 to 86400".to_owned()),
    }
}

/// Parser of the name of a kernel.
pub fn kernel_names() -> PossibleValuesParser {
    PossibleValuesParser::new(kernels::ALL.iter().map(|kernel| kernel.name()))
}

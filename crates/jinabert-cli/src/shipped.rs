//! Location of the shipped model.

use crate::error::CliError;
use std::{env, path::PathBuf};

const NAME: &str = "models/jinabert-mini-en";
const INSTALLED: &str = "share/jinabert/models/jinabert-mini-en";

/// Directory of the shipped model.
pub fn directory() -> Result<PathBuf, CliError> {
    let program = env::current_exe().unwrap_or_default();
    let above = program.ancestors().skip(1).flat_map(|dir| [dir.join(NAME), dir.join(INSTALLED)]);
    let mut places = above.chain([PathBuf::from(NAME)]);
    places.find(|dir| dir.join("config.json").exists()).ok_or_else(|| {
        let program = program.display();
        CliError::Usage(format!(
            "cannot find the shipped model: no `{NAME}` in a directory above `{program}` or in the \
             working directory; name a model with --model"
        ))
    })
}

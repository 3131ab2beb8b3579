//! `jinabert pull`, and the progress bar of downloads.

use crate::{
    CliError,
    args::Pull,
    progress::{self, Lines},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jinabert::hub::{Hub, Progress};
use std::{
    cell::RefCell,
    io::{self, IsTerminal, Write},
    ops::ControlFlow,
    time::Duration,
};

pub fn run(args: &Pull, quiet: bool) -> Result<(), CliError> {
    let (id, revision) = args.model.clone().with(args.hub.revision.as_ref())?;
    let bar = Bar::new(quiet);
    let pulled = Hub::from_env(args.hub.cache_dir.as_deref())
        .and_then(|hub| hub.pull(&id, &revision, &|progress| bar.show(progress)));
    bar.finish();
    let mut out = io::stdout().lock();
    writeln!(out, "{}", pulled?.display())?;
    Ok(out.flush()?)
}

const TEMPLATE: &str = "{msg}  {bar:24} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";

/// Minimum file size in bytes for a bar: smaller files arrive too fast.
const SMALL: u64 = 1 << 20;

/// Progress for one file at a time: a bar on a terminal, lines elsewhere.
pub struct Bar {
    seen: bool,
    lines: RefCell<Option<Lines>>,
    bar: RefCell<ProgressBar>,
}

impl Bar {
    pub fn new(quiet: bool) -> Self {
        let seen = !quiet && io::stderr().is_terminal();
        let lines = RefCell::new((!quiet && !seen).then(Lines::default));
        Self { seen, lines, bar: RefCell::new(ProgressBar::hidden()) }
    }

    /// Shows the progress of a file.
    pub fn show(&self, Progress { file, size, at }: Progress<'_>) -> ControlFlow<()> {
        if self.lines.borrow_mut().as_mut().is_some_and(Lines::is_due) {
            let mb = |bytes| bytes as f64 / 1e6;
            let message = format!("{file}: {:.1} of {:.1} MB", mb(at), mb(size));
            tracing::info!("{}", progress::line(at, Some(size), &message));
        }
        let mut bar = self.bar.borrow_mut();
        if self.seen && size >= SMALL && bar.message() != file {
            bar.finish_and_clear();
            *bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::hidden())
                .with_message(file.to_owned())
                .with_position(at)
                .with_style(ProgressStyle::with_template(TEMPLATE).expect("a valid template"));
            // Bytes that were there before must not count for the speed.
            bar.reset_eta();
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        if bar.message() == file {
            bar.set_position(at);
        }
        ControlFlow::Continue(())
    }

    pub fn finish(&self) {
        self.bar.borrow().finish_and_clear();
    }
}

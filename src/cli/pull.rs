//! `jinabert pull`, and the bar that shows downloads.

use super::{Failure, args::Pull};
use crate::hub::{Hub, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    cell::RefCell,
    io::{self, IsTerminal, Write},
    ops::ControlFlow,
    time::Duration,
};

pub fn run(args: &Pull, quiet: bool) -> Result<(), Failure> {
    let revision = args.hub.revision.clone().unwrap_or_default();
    let bar = Bar::new(quiet);
    let pulled = Hub::from_env(args.hub.cache_dir.as_deref())
        .and_then(|hub| hub.pull(&args.id, &revision, &|progress| bar.show(progress)));
    bar.finish();
    let mut out = io::stdout().lock();
    writeln!(out, "{}", pulled?.display())?;
    Ok(out.flush()?)
}

const TEMPLATE: &str = "{msg}  {bar:24} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";

/// Files of fewer bytes come too fast for a bar.
const SMALL: u64 = 1 << 20;

/// A bar over the bytes of one file at a time, where somebody looks.
pub struct Bar {
    seen: bool,
    bar: RefCell<ProgressBar>,
}

impl Bar {
    pub fn new(quiet: bool) -> Self {
        let seen = !quiet && io::stderr().is_terminal();
        Self { seen, bar: RefCell::new(ProgressBar::hidden()) }
    }

    /// Draws how far a file is.
    pub fn show(&self, Progress { file, size, at }: Progress<'_>) -> ControlFlow<()> {
        let mut bar = self.bar.borrow_mut();
        if self.seen && size >= SMALL && bar.message() != file {
            bar.finish_and_clear();
            *bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::hidden())
                .with_message(file.to_owned())
                .with_position(at)
                .with_style(ProgressStyle::with_template(TEMPLATE).expect("a valid template"));
            // What was there before says nothing about the speed.
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

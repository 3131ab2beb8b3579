//! Progress of a run or a download: a bar on a terminal, periodic lines elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jinabert::hub;
use std::{
    cell::RefCell,
    io::{self, IsTerminal},
    ops::ControlFlow,
    time::{Duration, Instant},
};

/// Time between two lines if stderr is not a terminal.
const INTERVAL: Duration = Duration::from_secs(10);

/// Progress of a run, on stderr.
pub struct Progress {
    bar: ProgressBar,
    /// Set if stderr is not a terminal.
    lines: Option<Lines>,
}

impl Progress {
    /// Starts progress towards a total, if it is known; `quiet` hides it.
    pub fn new(total: Option<u64>, quiet: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        if quiet || !terminal {
            let bar = ProgressBar::hidden();
            bar.set_length(total.unwrap_or_default());
            return Self { bar, lines: (!quiet).then(Lines::default) };
        }
        let (bar, template) = match total {
            Some(total) => (
                ProgressBar::new(total),
                "{bar:32} {percent:>3}%  {msg}  {elapsed} elapsed, {eta} left",
            ),
            None => (ProgressBar::no_length(), "{spinner} {msg}  {elapsed} elapsed"),
        };
        bar.set_draw_target(ProgressDrawTarget::stderr());
        bar.enable_steady_tick(Duration::from_millis(200));
        bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
        Self { bar, lines: None }
    }

    /// Creates hidden progress.
    pub fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), lines: None }
    }

    /// Time since the start of the run.
    pub fn elapsed(&self) -> Duration {
        self.bar.elapsed()
    }

    /// Sets the total.
    pub fn set_length(&self, total: u64) {
        self.bar.set_length(total);
    }

    /// Shows the current position.
    pub fn show(&mut self, position: u64, message: String) {
        if self.lines.as_mut().is_some_and(Lines::is_due) {
            tracing::info!("{}", line(position, self.bar.length(), &message));
        }
        self.bar.set_message(message);
        self.bar.set_position(position);
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Formats a line of progress.
fn line(position: u64, total: Option<u64>, message: &str) -> String {
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let percent = 100.0 * position.min(total) as f64 / total as f64;
            format!("{percent:.0} %, {message}")
        }
        None => message.to_owned(),
    }
}

/// Timer for lines of progress.
struct Lines {
    start: Instant,
    next: Duration,
}

impl Default for Lines {
    fn default() -> Self {
        Self { start: Instant::now(), next: INTERVAL }
    }
}

impl Lines {
    /// True if a line is due now.
    fn is_due(&mut self) -> bool {
        self.is_due_after(self.start.elapsed())
    }

    fn is_due_after(&mut self, elapsed: Duration) -> bool {
        let due = elapsed >= self.next;
        if due {
            self.next = elapsed + INTERVAL;
        }
        due
    }
}

/// Line of a download on a terminal.
const DOWNLOAD: &str = "{msg}  {bar:24} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";

/// Minimum file size in bytes for a bar: smaller files arrive too fast.
const SMALL: u64 = 1 << 20;

/// Progress of downloads, one file at a time: a bar on a terminal, lines elsewhere.
pub struct DownloadBar {
    /// Set if stderr is a terminal.
    seen: bool,
    lines: RefCell<Option<Lines>>,
    bar: RefCell<ProgressBar>,
}

impl DownloadBar {
    /// Creates progress that shows nothing before the first file; `quiet` hides it.
    pub fn new(quiet: bool) -> Self {
        let seen = !quiet && io::stderr().is_terminal();
        let lines = RefCell::new((!quiet && !seen).then(Lines::default));
        Self { seen, lines, bar: RefCell::new(ProgressBar::hidden()) }
    }

    /// Shows the progress of a file.
    pub fn show(&self, hub::Progress { file, size, at }: hub::Progress<'_>) -> ControlFlow<()> {
        if self.lines.borrow_mut().as_mut().is_some_and(Lines::is_due) {
            let [done, total] = [at, size].map(|bytes| bytes as f64 / 1e6);
            let message = format!("{file}: {done:.1} of {total:.1} MB");
            tracing::info!("{}", line(at, Some(size), &message));
        }
        let mut bar = self.bar.borrow_mut();
        if self.seen && size >= SMALL && bar.message() != file {
            bar.finish_and_clear();
            *bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::hidden())
                .with_message(file.to_owned())
                .with_position(at)
                .with_style(ProgressStyle::with_template(DOWNLOAD).expect("a valid template"));
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

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.borrow().finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_every_ten_seconds() {
        let mut lines = Lines::default();
        let due = [0, 1, 9, 10, 11, 19, 20, 55, 56, 64, 65];
        let due = due.map(|s| lines.is_due_after(Duration::from_secs(s)));
        let expected = [false, false, false, true, false, false, true, true, false, false, true];
        assert_eq!(due, expected);
    }

    #[test]
    fn lines_say_how_far_a_run_is() {
        assert_eq!(line(37, Some(100), "5 texts"), "37 %, 5 texts");
        assert_eq!(line(200, Some(100), "5 texts"), "100 %, 5 texts");
        assert_eq!(line(37, None, "5 texts"), "5 texts");
        assert_eq!(line(0, Some(0), "5 texts"), "5 texts");
    }

    /// Runs only without a terminal.
    #[test]
    fn quiet_runs_have_no_lines() {
        if !io::stderr().is_terminal() {
            assert!(Progress::new(Some(9), false).lines.is_some());
        }
        assert!(Progress::new(Some(9), true).lines.is_none());
        assert!(Progress::hidden().lines.is_none());
    }
}

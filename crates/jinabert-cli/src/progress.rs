//! Progress of a run: a bar on a terminal, periodic lines elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{self, IsTerminal},
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
pub fn line(position: u64, total: Option<u64>, message: &str) -> String {
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let percent = 100.0 * position.min(total) as f64 / total as f64;
            format!("{percent:.0} %, {message}")
        }
        None => message.to_owned(),
    }
}

/// Timer for lines of progress.
pub struct Lines {
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
    pub fn is_due(&mut self) -> bool {
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

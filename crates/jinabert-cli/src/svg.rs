//! Parts of SVG plots: escaped text, axes with their ticks, and the frame.

/// Escapes text for HTML and SVG.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Control characters are not allowed in HTML, even escaped.
            c if c.is_control() && c != '\n' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Scale of an axis.
#[derive(Clone, Copy)]
enum Scale {
    /// Values, with ticks at the multiples of a step.
    Linear { step: f64 },
    /// Logarithms of values to base 10.
    Logarithmic,
}

/// Axis, from a value to a position.
pub struct Axis {
    scale: Scale,
    /// Ends of the axis on its scale.
    low: f64,
    high: f64,
    /// Positions of the ends.
    start: f64,
    end: f64,
}

impl Axis {
    /// Bounds of a logarithmic axis, beyond the range of any device: they limit the number of
    /// ticks.
    const LOG_BOUNDS: (f64, f64) = (1e-12, 1e15);

    /// Minimum span of a linear axis, as a share of its values: with less, noise would look steep.
    const SPAN: f64 = 0.2;

    /// Logarithmic axis with these values at `start` and `end`.
    pub fn logarithmic(low: f64, high: f64, start: f64, end: f64) -> Self {
        let (least, most) = Self::LOG_BOUNDS;
        let [low, high] = [low, high].map(|value| value.max(least).min(most).log10());
        Self { scale: Scale::Logarithmic, low, high, start, end }
    }

    /// Linear axis with round values at `start` and `end`: the first is below `low`, the last above
    /// `high`, with two to seven ticks between them.
    pub fn linear(low: f64, high: f64, start: f64, end: f64) -> Self {
        let missing = (Self::SPAN * high - (high - low)).max(0.0);
        let least = (low - missing / 2.0).max(0.0);
        let most = high + missing / 2.0;
        let rough = (most - least) / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|n| n * power);
        let step = steps.into_iter().find(|step| *step >= rough).unwrap_or(10.0 * power);
        let low = (least / step).floor() * step;
        let high = (most / step).ceil() * step;
        Self { scale: Scale::Linear { step }, low, high, start, end }
    }

    /// Position of a value; the middle of the axis if its ends have the same value.
    pub fn at(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Linear { .. } => value,
            Scale::Logarithmic => value.log10(),
        };
        let span = self.high - self.low;
        let share = if span == 0.0 { 0.5 } else { (value - self.low) / span };
        self.start + share * (self.end - self.start)
    }

    /// Value at a position.
    pub fn value(&self, position: f64) -> f64 {
        let share = (position - self.start) / (self.end - self.start);
        let value = self.low + share * (self.high - self.low);
        match self.scale {
            Scale::Linear { .. } => value,
            Scale::Logarithmic => 10_f64.powf(value),
        }
    }

    /// Values of the ticks.  On a linear axis multiples of its step; on a logarithmic one powers of
    /// ten, or 1, 2 and 5 times those if there are few.
    pub fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear { step } => {
                let first = (self.low / step).round() as i64;
                let last = (self.high / step).round() as i64;
                (first..=last).map(|n| n as f64 * step).collect()
            }
            Scale::Logarithmic => {
                let steps: &[f64] =
                    if self.high - self.low < 2.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let decades = self.low.floor() as i32..=self.high.ceil() as i32;
                let all = decades.flat_map(|n| steps.iter().map(move |step| step * 10_f64.powi(n)));
                all.filter(|tick| (self.low..=self.high).contains(&tick.log10())).collect()
            }
        }
    }
}

/// Size of a plot, and the edges of the frame in it.
pub struct Frame {
    /// Width of the plot.
    pub width: f64,
    /// Height of the plot.
    pub height: f64,
    /// Left edge of the frame.
    pub left: f64,
    /// Right edge of the frame.
    pub right: f64,
    /// Upper edge of the frame.
    pub top: f64,
    /// Lower edge of the frame.
    pub bottom: f64,
}

impl Frame {
    /// Line across the frame.
    pub fn row(&self, y: f64) -> String {
        format!("<path d=\"M{} {y:.1}H{}\"/>", self.left, self.right)
    }

    /// Line from the upper to the lower edge.
    pub fn column(&self, x: f64) -> String {
        format!("<path d=\"M{x:.1} {}V{}\"/>", self.top, self.bottom)
    }

    /// Label on the left, for a line across the frame.
    pub fn row_label(&self, y: f64, label: &str) -> String {
        format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            self.left - 8.0,
            y + 4.5
        )
    }

    /// Label below the frame.
    pub fn column_label(&self, x: f64, label: &str) -> String {
        let y = self.bottom + 20.0;
        format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{label}</text>")
    }

    /// Names of the two axes, below the labels and on the left of them.
    pub fn axis_names(&self, across: &str, up: &str) -> String {
        let x = (self.left + self.right) / 2.0;
        let y = (self.top + self.bottom) / 2.0;
        let below = self.bottom + 46.0;
        let beside = self.left - 54.0;
        format!(
            "<text class=\"axis\" x=\"{x}\" y=\"{below}\" text-anchor=\"middle\">{across}</text>\n\
             <text class=\"axis\" transform=\"translate({beside} {y}) rotate(-90)\" \
             text-anchor=\"middle\">{up}</text>\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithmic_axes_count_decades() {
        let axis = Axis::logarithmic(1.0, 1000.0, 0.0, 300.0);
        assert_eq!([1.0, 10.0, 1000.0].map(|value| axis.at(value).round()), [0.0, 100.0, 300.0]);
        assert_eq!([0.0, 200.0].map(|position| axis.value(position).round()), [1.0, 100.0]);
        assert_eq!(axis.ticks(), [1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(Axis::logarithmic(3.0, 30.0, 0.0, 1.0).ticks(), [5.0, 10.0, 20.0]);
        assert_eq!(Axis::logarithmic(8.0, 8.0, 0.0, 3.0).at(8.0), 1.5);
    }

    #[test]
    fn logarithmic_axes_are_finite_for_every_value() {
        for end in [0.0, f64::NAN, f64::INFINITY] {
            for (low, high) in [(end, 1.0), (1.0, end)] {
                assert!(Axis::logarithmic(low, high, 0.0, 1.0).ticks().len() < 40, "{end}");
            }
        }
    }

    #[test]
    fn ticks_of_linear_axes_are_round_and_enclose_the_values() {
        fn ticks(low: f64, high: f64) -> Vec<f64> {
            Axis::linear(low, high, 0.0, 1.0).ticks()
        }
        assert_eq!(ticks(16.2, 20.5), [16.0, 17.0, 18.0, 19.0, 20.0, 21.0]);
        // The axis of a flat curve spans a fifth of its value.
        let flat = ticks(100.0, 100.1);
        assert!(flat[0] <= 90.1 && flat[flat.len() - 1] >= 110.0, "{flat:?}");
        for (low, high) in [(1.0, 1.0), (0.9, 5e4), (3.2, 3.3), (4e7, 9e7)] {
            let ticks = ticks(low, high);
            assert!((3..=9).contains(&ticks.len()), "{ticks:?}");
            assert!(ticks[0] <= low && ticks[ticks.len() - 1] >= high, "{ticks:?}");
        }
    }
}

//! Plot of perplexity against length: a self-contained SVG with light and dark colours.

use super::masking;
use crate::svg::{Axis, Frame, escape};
use jinabert::{LengthBucket, Perplexity};
use std::fmt::Write;

const FRAME: Frame =
    Frame { width: 800.0, height: 452.0, left: 76.0, right: 772.0, top: 92.0, bottom: 388.0 };

/// Distance between the frame and the first and last length.
const INSET: f64 = 52.0;

const STYLE: &str = "
  svg { color-scheme: light dark; }
  .ground { fill: #ffffff; }
  text { fill: #5c6570; font: 13px system-ui, sans-serif; }
  .title { fill: #1b1f24; font-size: 17px; font-weight: 600; }
  .axis, .value { fill: #1b1f24; }
  .grid path { stroke: #d9dde3; }
  .line { fill: none; stroke: #3b6fb6; stroke-width: 2; }
  .error { stroke: #3b6fb6; stroke-width: 1.5; fill: none; }
  circle { fill: #3b6fb6; stroke: #ffffff; stroke-width: 1.5; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #14171b; }
    text { fill: #9aa4b0; }
    .title, .axis, .value { fill: #e6e9ed; }
    .grid path { stroke: #333a43; }
    .line, .error { stroke: #7fb0f5; }
    circle { fill: #7fb0f5; stroke: #14171b; }
  }
";

/// Point of the plot.
struct Point<'a> {
    at: &'a LengthBucket,
    /// Perplexity at one standard error below and above.
    range: [f64; 2],
}

impl<'a> Point<'a> {
    fn new(at: &'a LengthBucket) -> Self {
        let error = at.nll_error.unwrap_or(0.0);
        Self { at, range: [(at.nll - error).exp(), (at.nll + error).exp()] }
    }

    fn x(&self, axis: &Axis) -> f64 {
        axis.at(self.at.length as f64)
    }

    /// Mark with its label, and a bar for the standard error if it is known.
    fn mark(&self, x: &Axis, y: &Axis) -> String {
        let LengthBucket { length, windows, .. } = self.at;
        let across = self.x(x);
        let up = y.at(self.at.perplexity());
        let mut out = String::new();
        if self.at.nll_error.is_some() {
            let [low, high] = self.range.map(|value| y.at(value));
            let left = across - 5.0;
            let right = across + 5.0;
            writeln!(
                out,
                "<path class=\"error\" d=\"M{across:.1} {low:.1}V{high:.1}M{left:.1} {low:.1}H{right:.1}M{left:.1} {high:.1}H{right:.1}\"/>"
            )
            .expect("a string takes all");
        }
        let shown = number(self.at.perplexity());
        writeln!(
            out,
            "<circle cx=\"{across:.1}\" cy=\"{up:.1}\" r=\"5\"><title>{length} tokens: {shown}, {windows} windows</title></circle>\
             <text class=\"value\" x=\"{:.1}\" y=\"{:.1}\">{shown}</text>",
            across + 9.0,
            up - 8.0
        )
        .expect("a string takes all");
        out
    }
}

/// Renders the plot.
pub fn plot(model: &str, measured: &Perplexity, mask_every: usize) -> String {
    let Frame { width, height, left, .. } = FRAME;
    let points: Vec<Point> = measured.lengths.iter().map(Point::new).collect();
    let (x, y) = axes(&points);
    let title = escape(model);
    let tokens = points[0].at.tokens;
    let regions = measured.regions;
    let bars = if regions > 1 {
        format!("bars: one standard error over {regions} regions of text")
    } else {
        String::new()
    };
    let masking = masking(mask_every);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">\n\
         <title>Pseudo-perplexity of {title} by length</title>\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{width}\" height=\"{height}\" rx=\"8\"/>\n\
         <text class=\"title\" x=\"{left}\" y=\"32\">Pseudo-perplexity of {title} by length</text>\n\
         <text x=\"{left}\" y=\"54\">the same {tokens} tokens at every length, {masking}</text>\n\
         <text x=\"{left}\" y=\"72\">{bars}</text>\n"
    );
    out += &grid(&points, &x, &y);
    let places: Vec<String> = points
        .iter()
        .map(|point| format!("{:.1},{:.1}", point.x(&x), y.at(point.at.perplexity())))
        .collect();
    writeln!(out, "<polyline class=\"line\" points=\"{}\"/>", places.join(" "))
        .expect("a string takes all");
    for point in &points {
        out += &point.mark(&x, &y);
    }
    out + "</svg>\n"
}

/// Axes that show all points: lengths on a logarithmic one, perplexities on a linear one.
fn axes(points: &[Point]) -> (Axis, Axis) {
    let first = points[0].at.length as f64;
    let last = points[points.len() - 1].at.length as f64;
    let low = points.iter().map(|point| point.range[0]).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|point| point.range[1]).fold(0.0, f64::max);
    (
        Axis::logarithmic(first, last, FRAME.left + INSET, FRAME.right - INSET),
        Axis::linear(low, high, FRAME.bottom, FRAME.top),
    )
}

/// Lines and labels of the frame.
fn grid(points: &[Point], x: &Axis, y: &Axis) -> String {
    let mut out = String::from("<g class=\"grid\">\n");
    for tick in y.ticks() {
        let at = y.at(tick);
        out += &FRAME.row(at);
        out += &FRAME.row_label(at, &number(tick));
        out.push('\n');
    }
    for point in points {
        out += &FRAME.column_label(point.x(x), &point.at.length.to_string());
        out.push('\n');
    }
    out + &FRAME.axis_names("tokens of a window", "pseudo-perplexity") + "</g>\n"
}

/// Formats four digits, or the whole number.
fn number(value: f64) -> String {
    let decimals = (3.0 - value.abs().max(1.0).log10().floor()).max(0.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::measured;
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        let given = [0.5, 1.0, 18.174, 164.26, 4594.4, 123_456.7];
        assert_eq!(given.map(number), ["0.5", "1", "18.17", "164.3", "4594", "123457"]);
    }

    #[test]
    fn every_length_has_a_mark_within_the_frame() {
        let mut measured = measured();
        let svg = plot("a <b> & c", &measured, 7);
        assert!(svg.contains("of a &lt;b&gt; &amp; c by length"), "{svg}");
        assert!(svg.contains("the same 1000 tokens") && svg.contains("over 2 regions"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 3);
        assert_eq!(svg.matches("class=\"error\"").count(), 2, "one has no error");
        let number = |text: &str| text.split('"').next().and_then(|n| n.parse::<f64>().ok());
        for (name, range) in [("cx", FRAME.left..FRAME.right), ("cy", FRAME.top..FRAME.bottom)] {
            let places: Vec<f64> =
                svg.split(&format!("{name}=\"")).skip(1).filter_map(number).collect();
            assert_eq!(places.len(), 3, "{svg}");
            assert!(places.iter().all(|place| range.contains(place)), "{places:?}");
        }
        measured.lengths.truncate(1);
        let one = plot("x", &measured, 0);
        assert!(!one.contains("NaN") && !one.contains("inf"), "{one}");
        assert!(one.contains(&format!("cx=\"{:.1}\"", (FRAME.left + FRAME.right) / 2.0)), "{one}");
    }
}

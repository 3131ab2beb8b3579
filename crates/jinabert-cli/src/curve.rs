//! Plot of perplexity against length: a self-contained SVG with light and dark colours.

use crate::bench::escape;
use crate::perplexity::masking;
use jinabert::{LengthBucket, Perplexity};
use std::fmt::Write;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 452.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 772.0;
const TOP: f64 = 92.0;
const BOTTOM: f64 = 388.0;

/// Distance between the frame and the first and last length.
const INSET: f64 = 52.0;

/// Minimum span of the axis, as a share of its values: with less, noise would look steep.
const SPAN: f64 = 0.2;

const STYLE: &str = "
  svg { color-scheme: light dark; }
  .ground { fill: #ffffff; }
  text { fill: #5c6570; font: 13px system-ui, sans-serif; }
  .title { fill: #1b1f24; font-size: 17px; font-weight: 600; }
  .axis, .value { fill: #1b1f24; }
  .grid { stroke: #d9dde3; }
  .line { fill: none; stroke: #3b6fb6; stroke-width: 2; }
  .error { stroke: #3b6fb6; stroke-width: 1.5; fill: none; }
  circle { fill: #3b6fb6; stroke: #ffffff; stroke-width: 1.5; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #14171b; }
    text { fill: #9aa4b0; }
    .title, .axis, .value { fill: #e6e9ed; }
    .grid { stroke: #333a43; }
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
}

/// Renders the plot.
pub fn plot(model: &str, measured: &Perplexity, mask_every: usize) -> String {
    let points: Vec<Point> = measured.lengths.iter().map(Point::new).collect();
    let low = points.iter().map(|point| point.range[0]).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|point| point.range[1]).fold(0.0, f64::max);
    let ticks = ticks(low, high);
    let (bottom, top) = (ticks[0], ticks[ticks.len() - 1]);
    let y = |value: f64| BOTTOM - (value - bottom) / (top - bottom) * (BOTTOM - TOP);
    let log = |at: &LengthBucket| (at.length as f64).log2();
    let (first, last) = (log(points[0].at), log(points[points.len() - 1].at));
    let x = |at: &LengthBucket| match last > first {
        true => LEFT + INSET + (log(at) - first) / (last - first) * (RIGHT - LEFT - 2.0 * INSET),
        false => (LEFT + RIGHT) / 2.0,
    };

    let (title, regions, centre) = (escape(model), measured.regions, (LEFT + RIGHT) / 2.0);
    let tokens = points[0].at.tokens;
    let bars = if regions > 1 {
        format!("bars: one standard error over {regions} regions of text")
    } else {
        String::new()
    };
    let masking = masking(mask_every);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\n\
         <title>Pseudo-perplexity of {title} by length</title>\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"8\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"32\">Pseudo-perplexity of {title} by length</text>\n\
         <text x=\"{LEFT}\" y=\"54\">the same {tokens} tokens at every length, {masking}</text>\n\
         <text x=\"{LEFT}\" y=\"72\">{bars}</text>\n"
    );
    let mut add = |line: String| writeln!(out, "{line}").expect("a string takes all");
    for tick in &ticks {
        let at = y(*tick);
        add(format!(
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            at + 4.5,
            number(*tick)
        ));
    }
    for Point { at, .. } in &points {
        let (place, length) = (x(at), at.length);
        add(format!(
            "<text x=\"{place:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{length}</text>",
            BOTTOM + 20.0
        ));
    }
    let middle = (TOP + BOTTOM) / 2.0;
    add(format!(
        "<text class=\"axis\" x=\"{centre}\" y=\"{}\" text-anchor=\"middle\">tokens of a window</text>\n\
         <text class=\"axis\" transform=\"translate(22 {middle}) rotate(-90)\" text-anchor=\"middle\">pseudo-perplexity</text>",
        HEIGHT - 16.0
    ));
    let places =
        points.iter().map(|point| format!("{:.1},{:.1}", x(point.at), y(point.at.perplexity())));
    add(format!("<polyline class=\"line\" points=\"{}\"/>", places.collect::<Vec<_>>().join(" ")));
    for Point { at, range } in &points {
        let (place, value, [low, high]) = (x(at), y(at.perplexity()), range.map(y));
        if at.nll_error.is_some() {
            let (left, right) = (place - 5.0, place + 5.0);
            add(format!(
                "<path class=\"error\" d=\"M{place:.1} {low:.1}V{high:.1}M{left:.1} {low:.1}H{right:.1}M{left:.1} {high:.1}H{right:.1}\"/>"
            ));
        }
        let shown = number(at.perplexity());
        add(format!(
            "<circle cx=\"{place:.1}\" cy=\"{value:.1}\" r=\"5\"><title>{} tokens: {shown}, {} windows</title></circle>\
             <text class=\"value\" x=\"{:.1}\" y=\"{:.1}\">{shown}</text>",
            at.length,
            at.windows,
            place + 9.0,
            value - 8.0
        ));
    }
    out + "</svg>\n"
}

/// Four to eight round ticks; the first is below all values, the last above.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let missing = (SPAN * high - (high - low)).max(0.0);
    let (low, high) = ((low - missing / 2.0).max(0.0), high + missing / 2.0);
    let rough = (high - low) / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * power);
    let (first, last) = ((low / step).floor() as i64, (high / step).ceil() as i64);
    (first..=last).map(|n| n as f64 * step).collect()
}

/// Formats four digits, or the whole number.
fn number(value: f64) -> String {
    let decimals = (3.0 - value.abs().max(1.0).log10().floor()).max(0.0) as usize;
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perplexity::tests::measured;

    #[test]
    fn ticks_are_round_and_around() {
        assert_eq!(ticks(16.2, 20.5), [16.0, 17.0, 18.0, 19.0, 20.0, 21.0]);
        // The axis of a flat curve spans a fifth of its value.
        let flat = ticks(100.0, 100.1);
        assert!(flat[0] <= 90.1 && flat[flat.len() - 1] >= 110.0, "{flat:?}");
        for (low, high) in [(1.0, 1.0), (0.9, 5e4), (3.2, 3.3), (4e7, 9e7)] {
            let ticks = ticks(low, high);
            assert!((3..=9).contains(&ticks.len()), "{ticks:?}");
            assert!(ticks[0] <= low && ticks[ticks.len() - 1] >= high, "{ticks:?}");
        }
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
        for (name, range) in [("cx", LEFT..RIGHT), ("cy", TOP..BOTTOM)] {
            let places: Vec<f64> =
                svg.split(&format!("{name}=\"")).skip(1).filter_map(number).collect();
            assert_eq!(places.len(), 3, "{svg}");
            assert!(places.iter().all(|place| range.contains(place)), "{places:?}");
        }
        measured.lengths.truncate(1);
        let one = plot("x", &measured, 0);
        assert!(!one.contains("NaN") && !one.contains("inf"), "{one}");
        assert!(one.contains(&format!("cx=\"{:.1}\"", (LEFT + RIGHT) / 2.0)), "{one}");
    }
}

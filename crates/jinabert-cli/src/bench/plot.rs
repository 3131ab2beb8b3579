//! Roofline plot: an SVG of GFLOP/s over FLOP/byte, on logarithmic axes.

use super::{
    kernels::{KernelTiming, Row},
    report::Report,
    roof::Roof,
    stats::digits,
    table::{percent, rate, time},
};
use crate::svg::{Axis, Frame, escape};
use std::fmt::Write;

const FRAME: Frame =
    Frame { width: 960.0, height: 540.0, left: 72.0, right: 936.0, top: 16.0, bottom: 484.0 };

/// Number of colours in the style sheet; further kernels reuse them from the first.
pub const COLOURS: usize = 8;

/// Legend: the appearance of kernels, tiers and sizes.
pub struct Keys<'a> {
    /// Kernels, each with a colour.
    pub kernels: Vec<&'a str>,
    /// Tiers, each with a shape.
    pub tiers: Vec<&'a str>,
    /// Sizes: the last one is filled, the others are outlines.
    pub sizes: Vec<&'a str>,
}

impl<'a> Keys<'a> {
    /// Legend in the order of the report.
    pub fn new(rows: &'a [Row]) -> Self {
        let distinct = |name: fn(&Row) -> &str| {
            let mut names: Vec<&str> = Vec::new();
            for row in rows {
                if !names.contains(&name(row)) {
                    names.push(name(row));
                }
            }
            names
        };
        Self {
            kernels: distinct(|row| &row.kernel),
            tiers: distinct(|row| &row.tier),
            sizes: distinct(|row| &row.size),
        }
    }

    /// CSS class for colour and filling.
    pub fn class(&self, kernel: &str, size: &str) -> String {
        let colour = self.kernels.iter().position(|known| *known == kernel).unwrap_or(0) % COLOURS;
        format!("c{colour}{}", if self.hollow(size) { " hollow" } else { "" })
    }

    /// True if marks of this size are outlines.
    pub fn hollow(&self, size: &str) -> bool {
        self.sizes.iter().rev().skip(1).any(|known| *known == size)
    }

    /// SVG element of a mark at a position: its start, and its end.
    pub fn mark(&self, class: &str, tier: &str, (x, y): (f64, f64)) -> (String, &'static str) {
        let corners: &[(f64, f64)] = match self.tiers.iter().position(|known| *known == tier) {
            Some(1) => &[(-5.5, -5.5), (5.5, -5.5), (5.5, 5.5), (-5.5, 5.5)],
            Some(2) => &[(0.0, -7.5), (7.0, 5.5), (-7.0, 5.5)],
            Some(3) => &[(0.0, -8.0), (8.0, 0.0), (0.0, 8.0), (-8.0, 0.0)],
            Some(4) => &[(-7.0, -5.5), (7.0, -5.5), (0.0, 7.5)],
            Some(5) => {
                &[(-3.5, -7.0), (3.5, -7.0), (7.0, 0.0), (3.5, 7.0), (-3.5, 7.0), (-7.0, 0.0)]
            }
            _ => {
                let start =
                    format!("<circle class=\"mark {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"6\">");
                return (start, "</circle>");
            }
        };
        let points: Vec<_> =
            corners.iter().map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy)).collect();
        let points = points.join(" ");
        (format!("<polygon class=\"mark {class}\" points=\"{points}\">"), "</polygon>")
    }
}

/// Renders the plot.
pub fn plot(report: &Report) -> String {
    let marks = marks(report);
    let roof = &report.roof;
    let (x, y) = axes(roof, &marks);
    let Frame { width, height, .. } = FRAME;
    let mut out = format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"Roofline plot of {} kernels; \
         the table below has the same figures\" xmlns=\"http://www.w3.org/2000/svg\">\n",
        marks.len()
    );
    out += &grid(&x, &y);
    out += &roof_lines(roof, &x, &y);
    let keys = Keys::new(&report.kernels);
    for mark in &marks {
        let Mark { row, timing, .. } = mark;
        let place = mark.place(&x, &y);
        let (start, end) = keys.mark(&keys.class(&row.kernel, &row.size), &row.tier, place);
        writeln!(out, "{start}<title>{}</title>{end}", escape(&tip(row, timing)))
            .expect("a string takes all");
    }
    out += &labels(roof, &marks, &x, &y);
    out + "</svg>\n"
}

/// Kernel in the plot.
struct Mark<'a> {
    row: &'a Row,
    timing: KernelTiming,
    gflops: f64,
}

impl Mark<'_> {
    fn place(&self, x: &Axis, y: &Axis) -> (f64, f64) {
        (x.at(self.timing.intensity), y.at(self.gflops))
    }
}

/// Kernels that can be placed on logarithmic axes: a copy has no operations.
fn marks<'a>(report: &'a Report) -> Vec<Mark<'a>> {
    let positive = |value: &f64| *value > 0.0 && value.is_finite();
    let mark = |row: &'a Row| {
        let timing = row.timing?;
        let gflops = timing.gflops.filter(positive)?;
        positive(&timing.intensity).then_some(Mark { row, timing, gflops })
    };
    report.kernels.iter().filter_map(mark).collect()
}

/// Tooltip of a mark.
fn tip(row: &Row, timing: &KernelTiming) -> String {
    let Spreads { median, min, max } = Spreads::of(timing);
    format!(
        "{} {}, {} {}, T{}\n{} GFLOP/s, {} GB/s, {} FLOP/byte\n{} % of the {} bound\n\
         {median} ({min} to {max}, {} runs)",
        row.kernel,
        row.tier,
        row.size,
        row.shape,
        row.tokens,
        rate(timing.gflops),
        rate(timing.gbps),
        digits(timing.intensity),
        percent(timing.percent),
        timing.bound,
        timing.ms.runs,
    )
}

/// Formatted durations.
pub struct Spreads {
    /// Median.
    pub median: String,
    /// Fastest run.
    pub min: String,
    /// Slowest run.
    pub max: String,
}

impl Spreads {
    /// Durations of a kernel.
    pub fn of(timing: &KernelTiming) -> Self {
        let [median, min, max] = [timing.ms.median, timing.ms.min, timing.ms.max].map(time);
        Self { median, min, max }
    }
}

/// Axes that show all marks, and a part of the roof on both sides of the ridge.
fn axes(roof: &Roof, marks: &[Mark<'_>]) -> (Axis, Axis) {
    let range = |values: &dyn Fn(&Mark<'_>) -> f64, start: [f64; 2]| {
        let values = marks.iter().map(values);
        values.fold(start, |[low, high], value| [low.min(value), high.max(value)])
    };
    let ridge = roof.ridge();
    let [least, most] = range(&|mark| mark.timing.intensity, [ridge / 4.0, ridge * 8.0]);
    let peak = roof.compute.giga_per_s;
    let [slowest, fastest] = range(&|mark| mark.gflops, [peak / 30.0, peak]);
    (
        Axis::logarithmic(least / 1.6, most * 1.6, FRAME.left, FRAME.right),
        Axis::logarithmic(slowest / 1.8, fastest * 2.2, FRAME.bottom, FRAME.top),
    )
}

/// Lines and labels of the frame.
fn grid(x: &Axis, y: &Axis) -> String {
    let mut out = String::from("<g class=\"grid\">\n");
    for tick in x.ticks() {
        let at = x.at(tick);
        out += &FRAME.column(at);
        out += &FRAME.column_label(at, &plain(tick));
        out.push('\n');
    }
    for tick in y.ticks() {
        let at = y.at(tick);
        out += &FRAME.row(at);
        out += &FRAME.row_label(at, &plain(tick));
        out.push('\n');
    }
    out + &FRAME.axis_names("arithmetic intensity, FLOP/byte", "performance, GFLOP/s") + "</g>\n"
}

/// Power of ten without an exponent.
fn plain(tick: f64) -> String {
    let decimals = (-tick.log10().floor()).max(0.0) as usize;
    format!("{tick:.decimals$}")
}

/// The roof with its two labels; its path is closed at the top, to shade the unreachable area.
fn roof_lines(roof: &Roof, x: &Axis, y: &Axis) -> String {
    let Frame { left, right, top, bottom, .. } = FRAME;
    let ridge = x.at(roof.ridge());
    let peak = y.at(roof.compute.giga_per_s);
    // The slope enters the plot from the left or from below.
    let low = x.value(left).max(y.value(bottom) / roof.memory.giga_per_s);
    let start_x = x.at(low);
    let start_y = y.at(low * roof.memory.giga_per_s);
    let angle = (start_y - peak).atan2(ridge - start_x).to_degrees();
    let middle_x = (start_x + ridge) / 2.0;
    let middle_y = (start_y + peak) / 2.0;
    let line = format!("M{start_x:.1} {start_y:.1}L{ridge:.1} {peak:.1}H{right}");
    let below = if start_x > left { format!("V{bottom}H{start_x:.1}") } else { String::new() };
    format!(
        "<path class=\"beyond\" d=\"{line}V{top}H{left}{below}Z\"/>\n<path class=\"roof\" d=\"{line}\"/>\n\
         <text class=\"limit\" x=\"{:.1}\" y=\"{:.1}\">compute {} GFLOP/s</text>\n\
         <text class=\"limit\" transform=\"translate({middle_x:.1} {middle_y:.1}) rotate({:.1})\" y=\"-11\" \
         text-anchor=\"middle\">memory {} GB/s</text>\n",
        ridge + 8.0,
        peak - 10.0,
        digits(roof.compute.giga_per_s),
        -angle,
        digits(roof.memory.giga_per_s),
    )
}

/// Rectangle: left, top, right, bottom.
type Area = [f64; 4];

/// True if two areas do not overlap.
fn apart(a: &Area, b: &Area) -> bool {
    a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1]
}

/// Areas that the roof's line and the label of its level part cover.
fn roof_areas(roof: &Roof, x: &Axis, y: &Axis) -> Vec<Area> {
    let ridge = x.at(roof.ridge());
    let peak = y.at(roof.compute.giga_per_s);
    let slope = |at: f64| y.at(roof.gflops(x.value(at)));
    let steps = (0..).map(|n| FRAME.left + 6.0 * f64::from(n)).take_while(|at| *at < FRAME.right);
    let mut areas: Vec<_> =
        steps.map(|at| [at, slope(at + 6.0) - 2.0, at + 6.0, slope(at) + 2.0]).collect();
    areas.push([ridge, peak - 24.0, ridge + 190.0, peak]);
    areas
}

/// Label beside the fastest mark of each kernel and tier, or beside another where there is space.
fn labels(roof: &Roof, marks: &[Mark<'_>], x: &Axis, y: &Axis) -> String {
    let mut taken = roof_areas(roof, x, y);
    let places = marks.iter().map(|mark| mark.place(x, y));
    taken.extend(places.map(|(x, y)| [x - 8.0, y - 8.0, x + 8.0, y + 8.0]));
    let mut out = String::from("<g class=\"names\">\n");
    let mut named = Vec::new();
    let mut fastest: Vec<_> = marks.iter().collect();
    fastest.sort_by(|a, b| b.gflops.total_cmp(&a.gflops));
    for mark in fastest {
        let name = format!("{} {}", mark.row.kernel, mark.row.tier);
        if named.contains(&name) {
            continue;
        }
        let width = 7.4 * name.chars().count() as f64;
        let free = Label::around(mark.place(x, y)).into_iter().find(|label| {
            let area = label.area(width);
            let inside = area[0] > FRAME.left
                && area[2] < FRAME.right
                && area[1] > FRAME.top
                && area[3] < FRAME.bottom;
            inside && taken.iter().all(|other| apart(&area, other))
        });
        if let Some(label) = free {
            let Label { x, y, anchor } = label;
            let text = escape(&name);
            writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>")
                .expect("a string takes all");
            taken.push(label.area(width));
            named.push(name);
        }
    }
    out + "</g>\n"
}

/// Position of a label: its anchor, on the base line of the text.
struct Label {
    x: f64,
    y: f64,
    /// SVG's `text-anchor`.
    anchor: &'static str,
}

impl Label {
    /// Positions around a mark, in the order of preference.
    fn around((x, y): (f64, f64)) -> [Self; 8] {
        [
            (11.0, 4.0, "start"),
            (-11.0, 4.0, "end"),
            (0.0, -12.0, "middle"),
            (0.0, 20.0, "middle"),
            (9.0, -9.0, "start"),
            (9.0, 17.0, "start"),
            (-9.0, -9.0, "end"),
            (-9.0, 17.0, "end"),
        ]
        .map(|(right, down, anchor)| Self { x: x + right, y: y + down, anchor })
    }

    /// Area of a text of this width.
    fn area(&self, width: f64) -> Area {
        let left = match self.anchor {
            "start" => self.x,
            "end" => self.x - width,
            _ => self.x - width / 2.0,
        };
        [left, self.y - 11.0, left + width, self.y + 3.0]
    }
}

#[cfg(test)]
mod tests {
    use super::{super::report::tests::report, *};

    #[test]
    fn labels_of_ticks_have_no_exponent() {
        assert_eq!([0.01, 0.5, 1.0, 2000.0].map(plain), ["0.01", "0.5", "1", "2000"]);
    }

    #[test]
    fn marks_are_within_and_names_apart() {
        let report = report();
        let marks = marks(&report);
        let (x, y) = axes(&report.roof, &marks);
        for (across, down) in marks.iter().map(|mark| mark.place(&x, &y)) {
            assert!((FRAME.left..FRAME.right).contains(&across));
            assert!((FRAME.top..FRAME.bottom).contains(&down));
        }
        let names = labels(&report.roof, &marks, &x, &y);
        for name in ["linear naive", "linear tiled", "pool tiled"] {
            assert!(names.contains(&format!(">{name}<")), "{name} in {names}");
        }
        let svg = plot(&report);
        assert_eq!(svg.matches("<title>").count(), 3);
        assert!(svg.contains("compute 100 GFLOP/s") && svg.contains("memory 10.0 GB/s"));
        assert!(svg.contains("8.00 GFLOP/s, 0.200 GB/s, 40.0 FLOP/byte"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn kernels_without_operations_have_no_mark() {
        let mut report = report();
        let copy = report.kernels[2].timing.as_mut().expect("a timing");
        copy.intensity = 0.0;
        copy.gflops = Some(0.0);
        let still = report.kernels[1].timing.as_mut().expect("a timing");
        still.gflops = None;
        still.gbps = None;
        still.percent = None;
        let svg = plot(&report);
        assert_eq!(svg.matches("<title>").count(), 1);
        assert!(svg.contains("Roofline plot of 1 kernels") && !svg.contains("pool tiled<"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn an_empty_report_has_a_roof() {
        let mut report = report();
        report.kernels.clear();
        let svg = plot(&report);
        assert!(svg.contains("class=\"roof\"") && !svg.contains("NaN"), "{svg}");
    }
}

//! The roofline plot: an SVG of GFLOP/s over FLOP/byte, both by decades.

use super::{
    kernels::{Row, Timing},
    page::escape,
    report::Report,
    roof::Roof,
    table::{digits, percent, time},
};
use std::fmt::Write;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 540.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 936.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 484.0;

/// Colours that the style sheet has; further kernels begin again.
pub const COLOURS: usize = 8;

/// From a value to a place, by its logarithm.
struct Axis {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

impl Axis {
    fn new((low, high): (f64, f64), start: f64, end: f64) -> Self {
        Self { low: low.log10(), high: high.log10(), start, end }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.log10() - self.low) / (self.high - self.low);
        self.start + share * (self.end - self.start)
    }

    /// Powers of ten within, or 1, 2 and 5 times those where they are few.
    fn ticks(&self) -> Vec<f64> {
        let steps: &[f64] = if self.high - self.low < 2.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let decades = self.low.floor() as i32..=self.high.ceil() as i32;
        let all = decades.flat_map(|n| steps.iter().map(move |step| step * 10_f64.powi(n)));
        all.filter(|tick| (self.low..=self.high).contains(&tick.log10())).collect()
    }
}

/// What kernels and tiers look like.
pub struct Keys<'a> {
    /// Kernels, each with a colour.
    pub kernels: Vec<&'a str>,
    /// Tiers, each with a shape.
    pub tiers: Vec<&'a str>,
    /// Sizes: the last is filled, the others are outlines.
    pub sizes: Vec<&'a str>,
}

impl<'a> Keys<'a> {
    /// In the order of the report.
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

    /// A class for the colour and the filling.
    pub fn class(&self, kernel: &str, size: &str) -> String {
        let colour = self.kernels.iter().position(|known| *known == kernel).unwrap_or(0) % COLOURS;
        format!("c{colour}{}", if self.hollow(size) { " hollow" } else { "" })
    }

    /// Whether marks of a size are outlines.
    pub fn hollow(&self, size: &str) -> bool {
        self.sizes.iter().rev().skip(1).any(|known| *known == size)
    }

    /// A mark at a place: its start, and its end.
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

/// The plot.
pub fn plot(report: &Report) -> String {
    let timings: Vec<(&Row, Timing)> =
        report.kernels.iter().filter_map(|row| Some((row, row.timing?))).collect();
    let roof = &report.roof;
    let (x, y) = axes(roof, &timings);
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Roofline plot of {} kernels; \
         the table below has the same figures\" xmlns=\"http://www.w3.org/2000/svg\">\n",
        timings.len()
    );
    out += &grid(&x, &y);
    out += &roof_lines(roof, &x, &y);
    let keys = Keys::new(&report.kernels);
    for (row, timing) in &timings {
        let place = (x.at(timing.intensity), y.at(timing.gflops));
        let (mark, end) = keys.mark(&keys.class(&row.kernel, &row.size), &row.tier, place);
        writeln!(out, "{mark}<title>{}</title>{end}", escape(&tip(row, timing)))
            .expect("a string takes all");
    }
    out += &labels(roof, &timings, &x, &y);
    out + "</svg>\n"
}

/// What a mark says when it is pointed at.
fn tip(row: &Row, timing: &Timing) -> String {
    let Spreads { median, min, max } = Spreads::of(timing);
    format!(
        "{} {}, {} {}, T{}\n{} GFLOP/s, {} GB/s, {} FLOP/byte\n{} % of the {} bound\n\
         {median} ({min} to {max}, {} runs)",
        row.kernel,
        row.tier,
        row.size,
        row.shape,
        row.tokens,
        digits(timing.gflops),
        digits(timing.gbps),
        digits(timing.intensity),
        percent(timing.percent),
        timing.bound,
        timing.ms.runs,
    )
}

/// Times as text.
pub struct Spreads {
    /// The median.
    pub median: String,
    /// The fastest.
    pub min: String,
    /// The slowest.
    pub max: String,
}

impl Spreads {
    /// Of a kernel.
    pub fn of(timing: &Timing) -> Self {
        let [median, min, max] = [timing.ms.median, timing.ms.min, timing.ms.max].map(time);
        Self { median, min, max }
    }
}

/// Axes that hold everything, and some of the roof on both sides of the ridge.
fn axes(roof: &Roof, timings: &[(&Row, Timing)]) -> (Axis, Axis) {
    let range = |values: &dyn Fn(&Timing) -> f64, start: [f64; 2]| {
        timings
            .iter()
            .map(|(_, timing)| values(timing))
            .fold(start, |[low, high], value| [low.min(value), high.max(value)])
    };
    let [least, most] = range(&|timing| timing.intensity, [roof.ridge() / 4.0, roof.ridge() * 8.0]);
    let peak = roof.compute.giga_per_s;
    let [slowest, fastest] = range(&|timing| timing.gflops, [peak / 30.0, peak]);
    let x = Axis::new((least / 1.6, most * 1.6), LEFT, RIGHT);
    (x, Axis::new((slowest / 1.8, fastest * 2.2), BOTTOM, TOP))
}

fn grid(x: &Axis, y: &Axis) -> String {
    let mut out = String::from("<g class=\"grid\">\n");
    for tick in x.ticks() {
        let at = x.at(tick);
        out += &format!("<path d=\"M{at:.1} {TOP}V{BOTTOM}\"/>");
        out += &format!(
            "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
            BOTTOM + 20.0,
            plain(tick)
        );
    }
    for tick in y.ticks() {
        let at = y.at(tick);
        out += &format!("<path d=\"M{LEFT} {at:.1}H{RIGHT}\"/>");
        out += &format!(
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            LEFT - 8.0,
            at + 4.0,
            plain(tick)
        );
    }
    let (centre, middle) = ((LEFT + RIGHT) / 2.0, (TOP + BOTTOM) / 2.0);
    out += &format!(
        "<text class=\"axis\" x=\"{centre}\" y=\"{}\" text-anchor=\"middle\">arithmetic intensity, \
         FLOP/byte</text>\n<text class=\"axis\" transform=\"translate(18 {middle}) rotate(-90)\" \
         text-anchor=\"middle\">performance, GFLOP/s</text>\n</g>\n",
        HEIGHT - 10.0
    );
    out
}

/// A power of ten without an exponent.
fn plain(tick: f64) -> String {
    let decimals = (-tick.log10().floor()).max(0.0) as usize;
    format!("{tick:.decimals$}")
}

/// The roof, closed upwards so that what cannot be reached is shaded, and its two names.
fn roof_lines(roof: &Roof, x: &Axis, y: &Axis) -> String {
    let (ridge, peak) = (x.at(roof.ridge()), y.at(roof.compute.giga_per_s));
    // The slope enters from the left or from below.
    let low = 10_f64.powf(x.low).max(10_f64.powf(y.low) / roof.memory.giga_per_s);
    let (start_x, start_y) = (x.at(low), y.at(low * roof.memory.giga_per_s));
    let angle = (start_y - peak).atan2(ridge - start_x).to_degrees();
    let (middle_x, middle_y) = ((start_x + ridge) / 2.0, (start_y + peak) / 2.0);
    let line = format!("M{start_x:.1} {start_y:.1}L{ridge:.1} {peak:.1}H{RIGHT}");
    let left = if start_x > LEFT { format!("V{BOTTOM}H{start_x:.1}") } else { String::new() };
    format!(
        "<path class=\"beyond\" d=\"{line}V{TOP}H{LEFT}{left}Z\"/>\n<path class=\"roof\" d=\"{line}\"/>\n\
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

/// Left, top, right, bottom.
type Area = [f64; 4];

fn apart(a: &Area, b: &Area) -> bool {
    a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1]
}

/// What the roof covers with its line and the name of its level part.
fn roof_areas(roof: &Roof, x: &Axis, y: &Axis) -> Vec<Area> {
    let (ridge, peak) = (x.at(roof.ridge()), y.at(roof.compute.giga_per_s));
    let slope = |at: f64| {
        let intensity = 10_f64.powf(x.low + (at - x.start) / (x.end - x.start) * (x.high - x.low));
        y.at(roof.gflops(intensity))
    };
    let steps = (0..).map(|n| LEFT + 6.0 * f64::from(n)).take_while(|at| *at < RIGHT);
    let mut areas: Vec<_> =
        steps.map(|at| [at, slope(at + 6.0) - 2.0, at + 6.0, slope(at) + 2.0]).collect();
    areas.push([ridge, peak - 24.0, ridge + 190.0, peak]);
    areas
}

/// A name beside the fastest mark of each kernel and tier, or another where there is room for it.
fn labels(roof: &Roof, timings: &[(&Row, Timing)], x: &Axis, y: &Axis) -> String {
    let place = |timing: &Timing| (x.at(timing.intensity), y.at(timing.gflops));
    let mut taken = roof_areas(roof, x, y);
    let marks = timings.iter().map(|(_, timing)| place(timing));
    taken.extend(marks.map(|(x, y)| [x - 8.0, y - 8.0, x + 8.0, y + 8.0]));
    let (mut out, mut named) = (String::from("<g class=\"names\">\n"), Vec::new());
    let mut fastest: Vec<_> = timings.iter().collect();
    fastest.sort_by(|a, b| b.1.gflops.total_cmp(&a.1.gflops));
    for (row, timing) in fastest {
        let name = format!("{} {}", row.kernel, row.tier);
        if named.contains(&name) {
            continue;
        }
        let ((x, y), width) = (place(timing), 7.4 * name.chars().count() as f64);
        let (half, anchors) = (width / 2.0, ["start", "end", "middle"]);
        let rooms = [
            (x + 11.0, y + 4.0, 0),
            (x - 11.0, y + 4.0, 1),
            (x, y - 12.0, 2),
            (x, y + 20.0, 2),
            (x + 9.0, y - 9.0, 0),
            (x + 9.0, y + 17.0, 0),
            (x - 9.0, y - 9.0, 1),
            (x - 9.0, y + 17.0, 1),
        ];
        let area = |&(x, y, anchor): &(f64, f64, usize)| {
            let left = x - [0.0, width, half][anchor];
            [left, y - 11.0, left + width, y + 3.0]
        };
        let free = rooms.iter().find(|room| {
            let area = area(room);
            let inside = area[0] > LEFT && area[2] < RIGHT && area[1] > TOP && area[3] < BOTTOM;
            inside && taken.iter().all(|other| apart(&area, other))
        });
        if let Some(room) = free {
            let &(x, y, anchor) = room;
            let (anchor, text) = (anchors[anchor], escape(&name));
            writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>")
                .expect("a string takes all");
            taken.push(area(room));
            named.push(name);
        }
    }
    out + "</g>\n"
}

#[cfg(test)]
mod tests {
    use super::{super::report::tests::report, *};

    #[test]
    fn axes_count_decades() {
        let axis = Axis::new((1.0, 1000.0), 0.0, 300.0);
        assert_eq!([1.0, 10.0, 1000.0].map(|value| axis.at(value).round()), [0.0, 100.0, 300.0]);
        assert_eq!(axis.ticks(), [1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(Axis::new((3.0, 30.0), 0.0, 1.0).ticks(), [5.0, 10.0, 20.0]);
        assert_eq!([0.01, 0.5, 1.0, 2000.0].map(plain), ["0.01", "0.5", "1", "2000"]);
    }

    #[test]
    fn marks_are_within_and_names_apart() {
        let report = report();
        let rows: Vec<_> =
            report.kernels.iter().filter_map(|row| Some((row, row.timing?))).collect();
        let (x, y) = axes(&report.roof, &rows);
        for (_, timing) in &rows {
            assert!((LEFT..RIGHT).contains(&x.at(timing.intensity)));
            assert!((TOP..BOTTOM).contains(&y.at(timing.gflops)));
        }
        let names = labels(&report.roof, &rows, &x, &y);
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
    fn an_empty_report_has_a_roof() {
        let mut report = report();
        report.kernels.clear();
        let svg = plot(&report);
        assert!(svg.contains("class=\"roof\"") && !svg.contains("NaN"), "{svg}");
    }
}

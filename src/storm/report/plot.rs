//! A line plot as SVG.

use std::fmt::Write;

use crate::duration_text::duration_text;

/// Several series over a common axis.
pub(super) struct Plot {
    pub(super) title: &'static str,
    pub(super) x: Scale,
    pub(super) y: Scale,
    pub(super) series: Vec<Series>,
}

/// One line of a plot. Its position in the plot decides its colour.
pub(super) struct Series {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

/// The scale of an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// Seconds, from the first value to the last.
    Seconds,
    /// Percentiles by their nines: 1 is 90 %, 2 is 99 %, and so on.
    Nines,
    /// Linear from zero up, with a unit.
    Linear(&'static str),
    /// Microseconds on a logarithmic scale.
    Microseconds,
}

/// The size of a plot, in the pixels of the labels' font. A phone is about as wide, so that the
/// labels keep their size there.
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 220.0;
/// Room for the labels: left, right, top, bottom.
const MARGIN: [f64; 4] = [64.0, 24.0, 44.0, 24.0];
/// The most labels of percentiles beside the one at the origin: a long one takes 60 pixels.
const NINES_LABELLED: f64 = 5.0;
/// The most points of a line. With more, several would share a pixel.
const POINTS_MAX: usize = 400;
/// The width of the stroke in front of a name of the legend, with the gap behind it.
const STROKE: f64 = 21.0;
/// The room for a character of the legend, which is wider than most characters of its font.
const CHARACTER: f64 = 6.5;
/// The room between two names of the legend.
const GAP: f64 = 12.0;

impl Series {
    pub(super) fn new(name: &'static str, points: Vec<(f64, f64)>) -> Self {
        let finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
        let every = points.len().div_ceil(POINTS_MAX).max(1);
        Self { name, points: points.into_iter().filter(finite).step_by(every).collect() }
    }
}

impl Plot {
    /// The plot as SVG; empty if no line has two points.
    pub(super) fn svg(&self) -> String {
        let lines: Vec<&Series> = self.series.iter().filter(|line| line.points.len() > 1).collect();
        if lines.is_empty() {
            return String::new();
        }
        let xs = lines.iter().flat_map(|line| line.points.iter().map(|point| point.0));
        let ys = lines.iter().flat_map(|line| line.points.iter().map(|point| point.1));
        let (x, y) = (Axis::new(self.x, xs), Axis::new(self.y, ys));
        let [left, right, top, bottom] = MARGIN;
        let at_x = |value| left + x.part(value) * (WIDTH - left - right);
        let at_y = |value| HEIGHT - bottom - y.part(value) * (HEIGHT - top - bottom);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\">\
             <text class=\"title\" x=\"{left}\" y=\"16\">{0}</text>",
            self.title
        );
        // Writing to memory cannot fail. This holds for all writes below.
        for (value, label) in y.ticks() {
            let at = at_y(value);
            let _written = write!(
                svg,
                "<line class=\"grid\" x1=\"{left}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                WIDTH - right,
                left - 6.0,
                at + 4.0,
            );
        }
        for (value, label) in x.ticks() {
            let _written = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                at_x(value),
                HEIGHT - 6.0,
            );
        }
        for (colour, line) in lines.iter().enumerate() {
            let points: String = line
                .points
                .iter()
                .map(|(x, y)| format!("{:.1},{:.1} ", at_x(*x), at_y(*y)))
                .collect();
            let _written = write!(
                svg,
                "<polyline class=\"line c{colour}\" points=\"{}\"/>",
                points.trim_end(),
            );
        }
        svg.push_str(&legend(&lines));
        svg.push_str("</svg>\n");
        svg
    }
}

/// The legend: the names of the lines, each behind a stroke of its colour.
fn legend(lines: &[&Series]) -> String {
    let mut svg = String::new();
    let mut at = MARGIN[0];
    for (colour, line) in lines.iter().enumerate() {
        // Writing to memory cannot fail.
        let _written = write!(
            svg,
            "<line class=\"line c{colour}\" x1=\"{at}\" x2=\"{}\" y1=\"30\" y2=\"30\"/>\
             <text x=\"{}\" y=\"34\">{}</text>",
            at + STROKE - 5.0,
            at + STROKE,
            line.name,
        );
        at += STROKE + CHARACTER * line.name.len() as f64 + GAP;
    }
    svg
}

/// A scale with its two ends.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    fn new(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let (low, high) = match scale {
            Scale::Linear(_) => (low.min(0.0), high),
            Scale::Nines => (0.0, high.ceil()),
            Scale::Seconds => (low, high),
            // Whole decades.
            Scale::Microseconds => {
                (10f64.powf(low.max(1.0).log10().floor()), 10f64.powf(high.max(2.0).log10().ceil()))
            }
        };
        Self { scale, low, high: if high > low { high } else { low + 1.0 } }
    }

    /// The position of a value: 0 at the low end, 1 at the high end.
    fn part(&self, value: f64) -> f64 {
        if self.scale == Scale::Microseconds {
            let log = |value: f64| value.max(1.0).log10();
            return (log(value) - log(self.low)) / (log(self.high) - log(self.low));
        }
        (value - self.low) / (self.high - self.low)
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Microseconds => {
                let decades = (self.low.log10() as i32)..=(self.high.log10() as i32);
                decades.map(|n| 10f64.powi(n)).map(|us| (us, duration_text(us as u64))).collect()
            }
            Scale::Nines => (0..=self.high as i32)
                .step_by((self.high / NINES_LABELLED).ceil().max(1.0) as usize)
                .map(|nines| {
                    let places = usize::try_from(nines - 2).unwrap_or_default();
                    let percent = 100.0 - 100.0 * 0.1f64.powi(nines);
                    (f64::from(nines), format!("{percent:.places$} %"))
                })
                .collect(),
            Scale::Seconds => self.even().map(|s| (s, format!("{s} s"))).collect(),
            Scale::Linear(unit) => self.even().map(|v| (v, short(v) + unit)).collect(),
        }
    }

    /// About five round values between the ends.
    fn even(&self) -> impl Iterator<Item = f64> + use<> {
        let rough = (self.high - self.low) / 5.0;
        let decade = 10f64.powf(rough.log10().floor());
        let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * decade >= rough);
        let step = factor.unwrap_or(10.0) * decade;
        let (first, high) = ((self.low / step).ceil() as i64, self.high);
        (first..)
            .map(move |n| (n as f64 * step * 1e6).round() / 1e6)
            .take_while(move |v| *v <= high)
    }
}

/// A number in thousands (k) or millions (M) if it is large.
fn short(value: f64) -> String {
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    match value {
        v if v >= 1e6 => format!("{}M", rounded(v / 1e6)),
        v if v >= 1e4 => format!("{}k", rounded(v / 1e3)),
        v => format!("{}", rounded(v)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_axis() {
        let labels = |scale, values: &[f64]| -> Vec<String> {
            let axis = Axis::new(scale, values.iter().copied());
            axis.ticks().into_iter().map(|(_, label)| label).collect()
        };
        assert_eq!(
            labels(Scale::Linear("/s"), &[3.0, 100.0]),
            ["0/s", "20/s", "40/s", "60/s", "80/s", "100/s"]
        );
        assert_eq!(labels(Scale::Linear(""), &[2e6]), ["0", "500k", "1M", "1.5M", "2M"]);
        assert_eq!(
            labels(Scale::Microseconds, &[30.0, 4000.0]),
            ["10 us", "100 us", "1.0 ms", "10.0 ms"]
        );
        assert_eq!(labels(Scale::Nines, &[3.2]), ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
        assert_eq!(labels(Scale::Seconds, &[1.0, 1.0]).len(), 6, "a single value has an axis too");
    }

    #[test]
    fn the_legend_of_the_longest_names_fits_into_the_width() {
        let names = ["deliveries", "messages sent", "handshakes"];
        let lines = names.map(|name| Series::new(name, vec![(0.0, 0.0), (1.0, 1.0)]));
        let legend = legend(&lines.iter().collect::<Vec<_>>());
        let (_, last) = legend.rsplit_once("<text x=\"").unwrap();
        let start: f64 = last.split('"').next().unwrap().parse().unwrap();
        assert!(start + CHARACTER * names[2].len() as f64 <= WIDTH, "{legend}");
    }

    #[test]
    fn every_point_lies_within_the_plot() {
        let points = (0..5000).map(|n| (f64::from(n), f64::from(n % 7) * 1e3)).collect();
        let series = vec![Series::new("a", points), Series::new("none", Vec::new())];
        let plot = Plot { title: "t", x: Scale::Seconds, y: Scale::Microseconds, series };
        let svg = plot.svg();
        let (_, rest) = svg.split_once("points=\"").unwrap();
        let (points, _) = rest.split_once('"').unwrap();
        assert!(points.split(' ').count() <= POINTS_MAX);
        for point in points.split(' ') {
            let (x, y) = point.split_once(',').unwrap();
            assert!((0.0..=WIDTH).contains(&x.parse().unwrap()), "{point}");
            assert!((0.0..=HEIGHT).contains(&y.parse().unwrap()), "{point}");
        }
        assert!(!svg.contains("none"));
    }
}

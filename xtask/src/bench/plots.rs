//! Plots of what cannot be said by a median, as SVG.

use std::ops::Range;
use std::path::Path;

use anyhow::anyhow;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

/// Points of a line, in the units of the axes.
pub(super) type Points = Vec<(f64, f64)>;

/// Width and height, in the units of the file.
const SIZE: (u32, u32) = (800, 440);
const FONT: (&str, u32) = ("sans-serif", 15);
/// More points than there are units across say nothing more.
const MOST_POINTS: usize = 800;
const COLORS: [RGBColor; 5] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(120, 120, 120),
];

/// What can be plotted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Memory that is there over time.
    Pages,
    /// How many faults were answered in which time.
    Faults,
    /// What the reader gets done over time.
    Reader,
}

impl Kind {
    const fn file(self) -> &'static str {
        match self {
            Self::Pages => "pages.svg",
            Self::Faults => "faults.svg",
            Self::Reader => "reader.svg",
        }
    }

    const fn axes(self) -> [&'static str; 2] {
        match self {
            Self::Pages => ["ms since the signal, or the beginning of the dump", "MiB that are there"],
            Self::Faults => ["µs from the event to the installed page", "% of the faults"],
            Self::Reader => ["ms since the signal", "steps a second"],
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Pages => "Pages present over time",
            Self::Faults => "Fault latency",
            Self::Reader => "The random reader's throughput through its move",
        }
    }
}

/// Lines in one frame.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    kind: Kind,
    lines: Vec<(String, Points)>,
}

impl Chart {
    /// A chart without lines.
    pub(super) const fn new(kind: Kind) -> Self {
        Self { kind, lines: Vec::new() }
    }

    /// What it shows.
    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    /// Its title, for the page.
    pub(super) const fn title(&self) -> &'static str {
        self.kind.title()
    }

    /// The name of its file.
    pub(super) const fn file(&self) -> &'static str {
        self.kind.file()
    }

    /// Adds a line, if it has points.
    pub(super) fn add(&mut self, label: impl Into<String>, points: Points) {
        if !points.is_empty() {
            self.lines.push((label.into(), thinned(points)));
        }
    }

    /// Draws it into a file of `directory`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn draw(&self, directory: &Path) -> anyhow::Result<()> {
        let path = directory.join(self.file());
        let area = SVGBackend::new(&path, SIZE).into_drawing_area();
        let (across, up) = self.ranges();
        match self.kind {
            Kind::Pages => self.frame(&area, across, up),
            Kind::Faults => self.frame(&area, across.log_scale(), up),
            Kind::Reader => self.frame(&area, across, up.log_scale()),
        }
        .map_err(|error| anyhow!("drawing {}: {error}", path.display()))
    }

    /// What the lines span, from 0 where the axis is not logarithmic.
    fn ranges(&self) -> (Range<f64>, Range<f64>) {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let least = |value: fn(&(f64, f64)) -> f64| points().map(value).fold(f64::INFINITY, f64::min);
        let most = |value: fn(&(f64, f64)) -> f64| points().map(value).fold(1.0, f64::max);
        let up = |from: f64| from..most(|point| point.1) * 1.05;
        match self.kind {
            Kind::Pages => (0.0..most(|point| point.0), up(0.0)),
            Kind::Faults => (least(|point| point.0).clamp(1.0, 1e6)..most(|point| point.0) * 1.1, up(0.0)),
            Kind::Reader => (
                least(|point| point.0).min(0.0)..most(|point| point.0),
                up(least(|point| point.1).clamp(1.0, 1e6)),
            ),
        }
    }

    fn frame<X, Y>(
        &self,
        area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
        across: X,
        up: Y,
    ) -> Result<(), Box<dyn std::error::Error>>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        area.fill(&WHITE).map_err(|error| error.to_string())?;
        let mut frame = ChartBuilder::on(area)
            .margin(12)
            .set_label_area_size(LabelAreaPosition::Left, 80)
            .set_label_area_size(LabelAreaPosition::Bottom, 46)
            .build_cartesian_2d(across, up)
            .map_err(|error| error.to_string())?;
        let [x, y] = self.kind.axes();
        let mut mesh = frame.configure_mesh();
        mesh.light_line_style(WHITE).x_desc(x).y_desc(y).label_style(FONT).axis_desc_style(FONT);
        let whole = |value: &f64| format!("{value:.0}");
        mesh.x_label_formatter(&whole).y_label_formatter(&whole).draw().map_err(|error| error.to_string())?;
        for ((label, points), color) in self.lines.iter().zip(COLORS.iter().cycle()) {
            let line = LineSeries::new(points.iter().copied(), color.stroke_width(2));
            let series = frame.draw_series(line).map_err(|error| error.to_string())?;
            let sample = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2));
            series.label(label).legend(sample);
        }
        let mut labels = frame.configure_series_labels();
        labels.position(SeriesLabelPosition::LowerRight).background_style(WHITE.mix(0.8)).border_style(BLACK);
        labels.label_font(FONT).draw().map_err(|error| error.to_string())?;
        area.present().map_err(|error| error.to_string().into())
    }
}

/// The first point, the last one, and not more between them than can be seen.
fn thinned(points: Points) -> Points {
    let step = points.len().div_ceil(MOST_POINTS).max(1);
    let last = points.len().saturating_sub(1);
    points
        .into_iter()
        .enumerate()
        .filter(|(at, _)| at % step == 0 || *at == last)
        .map(|(_, point)| point)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_keeps_its_ends() {
        let points: Points = (0..10_000).map(|at| (f64::from(at), 1.0)).collect();
        let thin = thinned(points);
        assert!(thin.len() <= MOST_POINTS + 1, "{}", thin.len());
        assert_eq!((thin.first(), thin.last()), (Some(&(0.0, 1.0)), Some(&(9999.0, 1.0))));
    }

    #[test]
    fn every_kind_is_drawn_with_its_labels_and_its_lines() {
        let directory = std::env::temp_dir().join(format!("posthaste-plots-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        for kind in [Kind::Pages, Kind::Faults, Kind::Reader] {
            let mut chart = Chart::new(kind);
            chart.add("one of them", vec![(1.0, 5.0), (20.0, 50.0), (300.0, 100.0)]);
            chart.add("nothing", Vec::new());
            chart.draw(&directory).unwrap();
            let svg = std::fs::read_to_string(directory.join(chart.file())).unwrap();
            assert!(
                svg.contains("one of them") && !svg.contains("nothing") && svg.contains("polyline"),
                "{svg}"
            );
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

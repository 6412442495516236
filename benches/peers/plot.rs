//! The plot: time of one look against the number of what is looked at, both in
//! logarithm. Cost that grows as the work does is a straight line of slope one.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::bench::Result;
use crate::machine::Machine;
use crate::median::Median;

/// What is drawn, and what the numbers count.
const PANELS: &[(&str, &str)] = &[
    ("snapshot", "registered buffers"),
    ("files", "registered files"),
    ("epoll", "items of an epoll set"),
    ("discover", "rings of a machine"),
];

/// The same in all panels; others are black.
const COLOURS: &[(&str, RGBColor)] = &[
    ("native", RGBColor(210, 60, 40)),
    ("task-file", RGBColor(0, 90, 170)),
    ("task-file, locked", RGBColor(110, 170, 220)),
    ("fdinfo, this crate", RGBColor(0, 130, 80)),
    ("fdinfo, read alone", RGBColor(200, 200, 120)),
    ("fdinfo, opened and parsed", RGBColor(200, 130, 0)),
    ("fdinfo, read and parsed", RGBColor(90, 90, 90)),
    ("readlink and fdinfo", RGBColor(90, 90, 90)),
    ("lsfd", RGBColor(150, 80, 170)),
    ("bpftrace", RGBColor(220, 120, 180)),
];

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// A candidate, and its medians: number of items, milliseconds.
type Line<'a> = (&'a str, Vec<(f64, f64)>);

/// Says whether there was anything to draw.
pub(crate) fn draw(medians: &[Median<'_>], machine: &Machine, path: &Path) -> Result<bool> {
    let panels: Vec<_> = PANELS
        .iter()
        .map(|(group, counted)| (*counted, lines(medians, group)))
        // A line takes two points.
        .filter(|(_, lines)| lines.iter().any(|(_, points)| points.len() > 1))
        .collect();
    if panels.is_empty() {
        return Ok(false);
    }
    let (across, down) = (panels.len().min(2), panels.len().div_ceil(2));
    let size = (520 * across as u32, 40 + 400 * down as u32);
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    let title = format!("Linux {}, {}", machine.kernel, machine.cpu);
    let root = root.titled(&title, ("sans-serif", 18))?;
    for (area, (counted, lines)) in root.split_evenly((down, across)).iter().zip(&panels) {
        panel(area, counted, lines).map_err(|e| e.to_string())?;
    }
    root.present()?;
    Ok(true)
}

fn lines<'a>(medians: &'a [Median<'_>], group: &str) -> Vec<Line<'a>> {
    let mut lines: Vec<Line<'a>> = Vec::new();
    for median in medians
        .iter()
        .filter(|median| median.of.case.group == group)
    {
        let point = (median.of.case.items as f64, median.ns / 1e6);
        match lines.iter_mut().find(|(name, _)| *name == median.of.name) {
            Some((_, points)) => points.push(point),
            None => lines.push((median.of.name, vec![point])),
        }
    }
    lines
}

fn panel<'a>(
    area: &Panel<'a>,
    counted: &str,
    lines: &[Line<'_>],
) -> Result<(), Box<dyn Error + 'a>> {
    let points = || lines.iter().flat_map(|(_, points)| points);
    // Whole powers of ten.
    let floor = |value: f64| 10_f64.powf(value.log10().floor());
    let ceil = |value: f64| 10_f64.powf(value.log10().ceil());
    let most = points().map(|(x, _)| *x).fold(10.0, f64::max);
    let least = points().map(|(_, y)| *y).fold(f64::INFINITY, f64::min);
    let longest = points().map(|(_, y)| *y).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_right(30)
        .set_label_area_size(LabelAreaPosition::Left, 64)
        .set_label_area_size(LabelAreaPosition::Bottom, 44)
        .build_cartesian_2d(
            (0.8..ceil(most)).log_scale(),
            // Room for the legend.
            (floor(least)..10.0 * ceil(longest)).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc(counted)
        .y_desc("ms")
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| format!("{y}"))
        .light_line_style(WHITE)
        .draw()?;
    for (name, points) in lines {
        let known = COLOURS.iter().find(|(known, _)| known == name);
        let style = known.map_or(BLACK, |(_, colour)| *colour).stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style).point_size(3))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

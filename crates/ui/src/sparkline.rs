//! A series of numbers as a small chart: inline SVG without styles of its own.

use std::fmt::Write as _;

use crate::values::Markup;

const WIDTH: f64 = 240.0;
const HEIGHT: f64 = 36.0;
/// More points than pixels would only cost bytes.
const MOST: usize = 120;

/// The chart of a series; `None` stands for a time of which nothing is known, and leaves a gap. The scale goes from zero to `top`, or to the
/// largest number. It is decoration: what it shows is said in words beside it, so it is hidden from screen readers.
pub fn sparkline(points: &[Option<f64>], top: Option<f64>) -> Markup {
    let points = thinned(points);
    let known = points.iter().flatten().copied();
    let top = top.unwrap_or_else(|| known.fold(0.0, f64::max));
    let scale = if top > 0.0 { (HEIGHT - 3.0) / top } else { 0.0 };
    let step = WIDTH / (points.len().max(2) - 1) as f64;
    let place = |(position, point): (usize, &Option<f64>)| {
        let value = point.filter(|value| value.is_finite())?.max(0.0).min(top);
        Some((position as f64 * step, HEIGHT - 1.5 - value * scale))
    };
    let places: Vec<Option<(f64, f64)>> = points.iter().enumerate().map(place).collect();
    let (mut line, mut area) = (String::new(), String::new());
    for run in places.split(Option::is_none) {
        let run: Vec<(f64, f64)> = run.iter().flatten().copied().collect();
        draw(&run, &mut line, &mut area);
    }
    Markup(format!(
        "<svg class=\"spark\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" aria-hidden=\"true\" focusable=\"false\">\
         <path class=\"area\" d=\"{area}\"/><path class=\"line\" d=\"{line}\"/></svg>"
    ))
}

/// A line through points that follow each other, and the area below it.
fn draw(run: &[(f64, f64)], line: &mut String, area: &mut String) {
    let (Some((first, y)), Some((last, _))) = (run.first(), run.last()) else {
        return;
    };
    if run.len() == 1 {
        // Seen as a dash.
        let _ = write!(line, "M{:.1} {y:.1}h3", (first - 3.0).max(0.0));
        return;
    }
    let _ = write!(area, "M{first:.1} {HEIGHT}");
    for (position, (x, y)) in run.iter().enumerate() {
        let command = if position == 0 { 'M' } else { 'L' };
        let _ = write!(line, "{command}{x:.1} {y:.1}");
        let _ = write!(area, "L{x:.1} {y:.1}");
    }
    let _ = write!(area, "L{last:.1} {HEIGHT}Z");
}

/// At most [`MOST`] points: the mean of the known ones among those that fall together.
fn thinned(points: &[Option<f64>]) -> Vec<Option<f64>> {
    let together = points.len().div_ceil(MOST).max(1);
    let mean = |chunk: &[Option<f64>]| {
        let known: Vec<f64> = chunk.iter().flatten().copied().collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    };
    points.chunks(together).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_from_left_to_right_with_gaps() {
        let drawn = sparkline(&[Some(0.0), Some(2.0), None, Some(1.0)], None).0;
        assert!(
            drawn.contains("class=\"line\" d=\"M0.0 34.5L80.0 1.5M237.0 18.0h3\""),
            "{drawn}"
        );
        assert!(
            drawn.contains("class=\"area\" d=\"M0.0 36L0.0 34.5L80.0 1.5L80.0 36Z\""),
            "{drawn}"
        );
    }

    #[test]
    fn long_series_and_strange_numbers_stay_small_and_inside() {
        let points: Vec<_> = (0..10_000).map(|n| Some(f64::from(n))).collect();
        assert!(sparkline(&points, None).0.len() < 4_000);
        let strange = sparkline(
            &[Some(f64::NAN), Some(f64::INFINITY), Some(-1.0)],
            Some(1.0),
        )
        .0;
        assert!(
            !strange.contains("NaN") && !strange.contains("inf"),
            "{strange}"
        );
        assert!(sparkline(&[], None).0.contains("d=\"\""));
    }
}

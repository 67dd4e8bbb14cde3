//! `tracing`: where spans of requests are sent, and of how many.

use url::Url;

use crate::config::diagnostic::{Place, Report};
use crate::config::env::Environment;
use crate::config::fields::Section;
use crate::config::schema;
use crate::config::urls::root_url;

/// The variable that OpenTelemetry's own programs read.
const VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Traces to an OpenTelemetry collector.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// The root of its OTLP over HTTP, with a slash at its end.
    pub otlp: Url,
    /// The share of requests, 0 to 1, whose client has not decided.
    pub sample: f64,
}

impl Tracing {
    /// Where traces are sent.
    pub fn traces_url(&self) -> Url {
        let mut url = self.otlp.clone();
        url.set_path(&format!("{}v1/traces", self.otlp.path()));
        url
    }
}

/// `None`: nothing is recorded.
pub(super) fn tracing(
    top: &Section<'_>,
    environment: &Environment,
    report: &mut Report,
) -> Option<Tracing> {
    let section = top.section("tracing", schema::TRACING, report);
    let text = |key: &str, report: &mut Report| section.as_ref()?.text(key, report);
    let sample = text("sample", report);
    let of_file = text("otlp", report).filter(|(text, _)| !text.is_empty());
    let (text, name, place): (_, _, Option<&Place>) = match (environment.get(VARIABLE), of_file) {
        (Some(text), _) => (text, VARIABLE, None),
        (None, Some((text, place))) => (text, "`tracing.otlp`", Some(place)),
        (None, None) => return None,
    };
    let sample = match sample {
        None => 1.0,
        Some((text, place)) => share(text).unwrap_or_else(|| {
            report.error(
                place,
                "`tracing.sample` must be a number from 0 to 1, such as 0.1",
            );
            0.0
        }),
    };
    match root_url(text) {
        Ok(otlp) => Some(Tracing { otlp, sample }),
        Err(why) => {
            // Those keys are repositories'.
            let why = why.split(": use the keys").next().unwrap_or_default();
            report.error(place, format!("{name} {why}"));
            None
        }
    }
}

fn share(text: &str) -> Option<f64> {
    let share: f64 = text.parse().ok()?;
    (0.0..=1.0).contains(&share).then_some(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_number_from_0_to_1() {
        for (text, want) in [("0", 0.0), ("1", 1.0), ("0.25", 0.25), ("1e-3", 0.001)] {
            assert_eq!(share(text), Some(want));
        }
        for wrong in ["", "1.1", "-0.1", "10%", "NaN", "inf"] {
            assert_eq!(share(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn traces_are_below_the_root() {
        for (root, url) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("https://h/otlp", "https://h/otlp/v1/traces"),
        ] {
            let tracing = Tracing {
                otlp: root_url(root).unwrap(),
                sample: 1.0,
            };
            assert_eq!(tracing.traces_url().as_str(), url);
        }
    }
}

//! Where log lines go and what they look like. The fields are described in docs/LOGGING.md.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::Environment;

/// What is logged without `LARDER_LOG`.
const DEFAULT_FILTER: &str = "info";

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `LARDER_LOG` is no filter.
    #[error("LARDER_LOG is not a log filter such as `info` or `info,larder_upstream=debug`: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// `LARDER_LOG_FORMAT` is another word.
    #[error("LARDER_LOG_FORMAT is json or text, not {0:?}")]
    Format(String),
    /// Logging was started before.
    #[error("logging was started before: {0}")]
    Started(String),
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Text,
}

/// Starts logging to standard error: `LARDER_LOG` filters, `LARDER_LOG_FORMAT` is `json` or `text`; without it, text on a
/// terminal and JSON elsewhere.
///
/// # Errors
/// See [`LoggingError`].
pub fn start(environment: &Environment) -> Result<(), LoggingError> {
    let terminal = std::io::stderr().is_terminal();
    let subscriber = subscriber(environment, terminal, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|error| LoggingError::Started(error.to_string()))
}

fn subscriber(
    environment: &Environment,
    terminal: bool,
    writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, LoggingError> {
    let filter = EnvFilter::builder().parse(environment.get("LARDER_LOG").unwrap_or(DEFAULT_FILTER))?;
    let format = match environment.get("LARDER_LOG_FORMAT") {
        Some("json") => Format::Json,
        Some("text") => Format::Text,
        Some(other) => return Err(LoggingError::Format(other.to_owned())),
        None if terminal => Format::Text,
        None => Format::Json,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    Ok(match format {
        Format::Json => Box::new(builder.json().flatten_event(true).with_current_span(true).with_span_list(false).finish()),
        Format::Text => Box::new(builder.with_ansi(terminal).finish()),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(variables: &[(&str, &str)]) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let environment = Environment::of(variables.iter().copied());
        let subscriber = subscriber(&environment, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(repository = "pypi", "served");
            tracing::debug!("details");
        });
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_lines_are_flat_objects() {
        let text = logged(&[]);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (line["level"].as_str(), line["message"].as_str(), line["repository"].as_str()),
            (Some("INFO"), Some("served"), Some("pypi"))
        );
        assert!(line["timestamp"].is_string());
    }

    #[test]
    fn format_and_filter_follow_the_environment() {
        let text = logged(&[("LARDER_LOG", "debug"), ("LARDER_LOG_FORMAT", "text")]);
        assert!(text.contains("repository=\"pypi\"") && text.contains("details"), "{text}");
        let refuse = |name, value| subscriber(&Environment::of([(name, value)]), false, std::io::sink).err().unwrap().to_string();
        assert!(refuse("LARDER_LOG_FORMAT", "xml").contains("json or text"));
        assert!(refuse("LARDER_LOG", "a=b=c").contains("LARDER_LOG"));
    }
}

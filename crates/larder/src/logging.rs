//! Where log lines go and what they look like. The fields are described in docs/LOGGING.md.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Sources, nearest};

/// What is logged without `--log` and `LARDER_LOG`.
const DEFAULT_LEVEL: &str = "info";
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// What is said of the forms that a filter may have.
const FORMS: &str = "error, warn, info, debug, trace or off, and `MODULE=LEVEL` for one module, such as `info,larder_upstream=debug`";

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter holds something that is none.
    #[error("{name} holds {word:?}, which is no level{hint}: it takes {FORMS}")]
    Filter {
        /// The flag or variable.
        name: &'static str,
        /// The part that is wrong.
        word: String,
        /// The level that was meant.
        hint: String,
    },
    /// The format is another word.
    #[error("{name} is json or text, not {word:?}")]
    Format {
        /// The flag or variable.
        name: &'static str,
        /// What stands there.
        word: String,
    },
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

/// Starts logging to standard error: `--log` (else `LARDER_LOG`) filters, `--log-format` (else `LARDER_LOG_FORMAT`) is `json` or `text`;
/// without it, text on a terminal and JSON elsewhere.
///
/// # Errors
/// See [`LoggingError`].
pub fn start(sources: &Sources) -> Result<(), LoggingError> {
    let terminal = std::io::stderr().is_terminal();
    let subscriber = subscriber(sources, terminal, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|error| LoggingError::Started(error.to_string()))
}

/// Whether [`start`] would succeed; starts nothing.
///
/// # Errors
/// As [`start`].
pub fn check(sources: &Sources) -> Result<(), LoggingError> {
    subscriber(sources, false, std::io::sink).map(drop)
}

/// The flag, else the variable, each with its name.
fn setting<'s>(
    (flag, given): (&'static str, &'s Option<String>),
    variable: &'static str,
    sources: &'s Sources,
) -> Option<(&'static str, &'s str)> {
    let from_environment = || {
        sources
            .environment
            .get(variable)
            .map(|text| (variable, text))
    };
    given
        .as_deref()
        .map(|text| (flag, text))
        .or_else(from_environment)
}

/// The directives of a filter. A level alone is larder's own; what larder is built on stays at `warn`, unless it is named.
fn filter((name, text): (&'static str, &str)) -> Result<EnvFilter, LoggingError> {
    let refused = |word: &str| {
        let near = nearest(word, LEVELS)
            .map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
        LoggingError::Filter {
            name,
            word: word.to_owned(),
            hint: near,
        }
    };
    let (mut general, mut named) = (DEFAULT_LEVEL, Vec::new());
    for word in text
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
    {
        match word.rsplit_once('=') {
            None => general = level(word).ok_or_else(|| refused(word))?,
            Some((module, at)) => {
                let at = level(at).ok_or_else(|| refused(at))?;
                let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-');
                if module.is_empty() || !module.chars().all(legal) {
                    return Err(refused(word));
                }
                named.push(format!("{module}={at}"));
            }
        }
    }
    let others = if matches!(general, "off" | "error") {
        general
    } else {
        "warn"
    };
    // A module's name stands for all that begin with it: `larder` for every crate of larder's.
    let directives = [vec![others.to_owned(), format!("larder={general}")], named]
        .concat()
        .join(",");
    EnvFilter::builder()
        .parse(&directives)
        .map_err(|_| refused(text))
}

/// A level in any case, `warning` included.
fn level(word: &str) -> Option<&'static str> {
    let lower = word.trim().to_ascii_lowercase();
    let lower = if lower == "warning" {
        "warn"
    } else {
        lower.as_str()
    };
    LEVELS.into_iter().find(|level| *level == lower)
}

fn subscriber(
    sources: &Sources,
    terminal: bool,
    writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, LoggingError> {
    let filter = filter(
        setting(("--log", &sources.log), "LARDER_LOG", sources).unwrap_or(("--log", DEFAULT_LEVEL)),
    )?;
    let format = match setting(
        ("--log-format", &sources.log_format),
        "LARDER_LOG_FORMAT",
        sources,
    ) {
        Some((_, "json")) => Format::Json,
        Some((_, "text")) => Format::Text,
        Some((name, word)) => {
            return Err(LoggingError::Format {
                name,
                word: word.to_owned(),
            });
        }
        None if terminal => Format::Text,
        None => Format::Json,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    Ok(match format {
        Format::Json => Box::new(
            builder
                .json()
                .flatten_event(true)
                .with_current_span(true)
                .with_span_list(false)
                .finish(),
        ),
        Format::Text => Box::new(
            builder
                .with_ansi(terminal && sources.environment.takes_colours())
                .finish(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config::Environment;

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

    fn sources(variables: &[(&str, &str)]) -> Sources {
        Sources {
            environment: Environment::of(variables.iter().copied()),
            ..Sources::default()
        }
    }

    fn logged(sources: &Sources) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = subscriber(sources, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(repository = "pypi", "served");
            tracing::debug!("details");
            tracing::info!(target: "hyper::proto", "of a dependency");
            tracing::warn!(target: "sqlx::query", "slow");
            tracing::debug!(target: "larder_upstream::hop", "of a crate");
        });
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_lines_are_flat_objects() {
        let text = logged(&sources(&[("LARDER_LOG", "info,sqlx=off")]));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (
                line["level"].as_str(),
                line["message"].as_str(),
                line["repository"].as_str()
            ),
            (Some("INFO"), Some("served"), Some("pypi"))
        );
        assert!(line["timestamp"].is_string());
    }

    #[test]
    fn a_level_is_larders_own_and_dependencies_stay_at_warn_unless_named() {
        for (filter, says, does_not) in [
            (
                "info",
                &["served", "slow"][..],
                &["details", "of a dependency", "of a crate"][..],
            ),
            (
                "debug",
                &["served", "details", "of a crate", "slow"],
                &["of a dependency"],
            ),
            ("DEBUG", &["details"], &["of a dependency"]),
            ("trace", &["details", "of a crate"], &["of a dependency"]),
            ("warning", &["slow"], &["served", "of a dependency"]),
            ("warn", &["slow"], &["served"]),
            ("error", &[], &["served", "slow"]),
            ("off", &[], &["served", "slow"]),
            ("debug,hyper=info", &["of a dependency", "details"], &[]),
            (
                "larder_upstream=debug",
                &["served", "of a crate", "slow"],
                &["details"],
            ),
            (
                "info, larder_upstream=debug",
                &["served", "of a crate"],
                &["details"],
            ),
        ] {
            let text = logged(&sources(&[("LARDER_LOG", filter)]));
            for word in says {
                assert!(text.contains(word), "{filter}: {word} in {text}");
            }
            for word in does_not {
                assert!(!text.contains(word), "{filter}: no {word} in {text}");
            }
        }
    }

    #[test]
    fn a_flag_wins_over_the_variable() {
        let environment = Environment::of([("LARDER_LOG", "off"), ("LARDER_LOG_FORMAT", "json")]);
        let flags = (Some("debug".to_owned()), Some("text".to_owned()));
        let sources = Sources {
            log: flags.0,
            log_format: flags.1,
            environment,
            ..Sources::default()
        };
        let text = logged(&sources);
        assert!(
            text.contains("repository=\"pypi\"") && text.contains("details"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_filter_is_refused_with_the_name_of_the_setting() {
        let refuse = |name, value| check(&sources(&[(name, value)])).unwrap_err().to_string();
        assert_eq!(
            refuse("LARDER_LOG_FORMAT", "xml"),
            "LARDER_LOG_FORMAT is json or text, not \"xml\""
        );
        for (filter, want) in [
            (
                "verbose",
                "LARDER_LOG holds \"verbose\", which is no level: it takes error, warn, info",
            ),
            ("inof", "did you mean info?"),
            ("info,larder_upstream", "holds \"larder_upstream\""),
            ("larder_upstream=loud", "holds \"loud\""),
            ("a=b=c", "LARDER_LOG holds"),
            ("=debug", "LARDER_LOG holds"),
        ] {
            let said = refuse("LARDER_LOG", filter);
            assert!(said.contains(want), "{filter}: {said}");
        }
        let flag = Sources {
            log: Some("loud".to_owned()),
            ..Sources::default()
        };
        assert!(
            check(&flag)
                .unwrap_err()
                .to_string()
                .starts_with("--log holds \"loud\"")
        );
    }
}

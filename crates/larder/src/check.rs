//! `larder check`: what a start would do, short of serving, and everything that would keep it from it.

use std::io::Write;

use larder::cli::write_findings;
use larder::config::{Diagnostic, Settings, Severity, Sources, load};
use larder::logging;

use crate::{migrate, prepare};

/// Writes every finding and a summary to `out`; gives whether larder would start.
///
/// # Errors
/// `out` cannot be written.
pub(crate) fn check(sources: &Sources, out: &mut impl Write) -> std::io::Result<bool> {
    let mut found: Vec<Diagnostic> = Vec::new();
    if let Err(error) = logging::check(sources) {
        found.push(Diagnostic {
            severity: Severity::Error,
            place: None,
            message: error.to_string(),
        });
    }
    let loaded = load(sources);
    match &loaded {
        Ok(settings) => {
            found.extend(settings.warnings.iter().cloned());
            found.extend(
                prepare::rehearse(settings)
                    .into_iter()
                    .map(|(_, found)| found),
            );
            if let Err(message) = migrate::refuse_unfinished_files(settings) {
                found.push(Diagnostic {
                    severity: Severity::Error,
                    place: None,
                    message,
                });
            }
        }
        Err(errors) => found.extend(errors.iter().cloned()),
    }
    write_findings(&found, out)?;
    let count = |severity| found.iter().filter(|d| d.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let warned = counted(warnings, "warning", "warnings");
    match &loaded {
        Ok(Settings { repositories, .. }) if errors == 0 => {
            writeln!(
                out,
                "configuration is valid: {}, {warned}",
                counted(repositories.len(), "repository", "repositories")
            )?;
        }
        Ok(_) => writeln!(
            out,
            "larder would not start: {}, {warned}",
            counted(errors, "error", "errors")
        )?,
        Err(_) => writeln!(
            out,
            "configuration cannot be used: {}, {warned}",
            counted(errors, "error", "errors")
        )?,
    }
    Ok(errors == 0)
}

fn counted(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

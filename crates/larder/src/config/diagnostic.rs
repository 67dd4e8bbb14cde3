//! What is wrong, or worth knowing, in a configuration: one line each, with file and line where there is one.

use std::fmt;
use std::sync::Arc;

/// A place in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as it was found.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// How much a [`Diagnostic`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Accepted, but probably not what was meant, or not built yet.
    Warning,
    /// The configuration cannot be used.
    Error,
}

/// One finding. Displayed as `file:line: message`, warnings and notes marked as such. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// Where; `None` for flags and the environment.
    pub place: Option<Place>,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl Diagnostic {
    /// The same with the file's name alone in place of its path.
    pub fn by_file_name(mut self) -> Self {
        if let Some(place) = &mut self.place
            && let Some((_, name)) = place.file.rsplit_once('/')
        {
            place.file = name.into();
        }
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(match self.severity {
            Severity::Note => "note: ",
            Severity::Warning => "warning: ",
            Severity::Error => "",
        })?;
        f.write_str(&self.message)
    }
}

/// Collects findings, so that all of them are reported at once.
#[derive(Debug, Default)]
pub(super) struct Report {
    found: Vec<Diagnostic>,
}

impl Report {
    pub(super) fn error<'p>(
        &mut self,
        place: impl Into<Option<&'p Place>>,
        message: impl Into<String>,
    ) {
        self.push(Severity::Error, place.into(), message.into());
    }

    pub(super) fn warning<'p>(
        &mut self,
        place: impl Into<Option<&'p Place>>,
        message: impl Into<String>,
    ) {
        self.push(Severity::Warning, place.into(), message.into());
    }

    pub(super) fn note<'p>(
        &mut self,
        place: impl Into<Option<&'p Place>>,
        message: impl Into<String>,
    ) {
        self.push(Severity::Note, place.into(), message.into());
    }

    fn push(&mut self, severity: Severity, place: Option<&Place>, message: String) {
        self.found.push(Diagnostic {
            severity,
            place: place.cloned(),
            message,
        });
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found.iter().any(|d| d.severity == Severity::Error)
    }

    /// All findings: those without a place first, then by file and line.
    pub(super) fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.found.sort_by(|a, b| a.place.cmp(&b.place));
        self.found.dedup();
        self.found
    }
}

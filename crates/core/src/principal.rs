//! On whose behalf a request is made.

/// Who makes a request, as far as larder has made sure of it. Credentials that it does not know make nobody anyone: they may be meant for
/// the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Principal {
    /// Anybody.
    #[default]
    Anonymous,
    /// The holder of the configured admin token.
    Admin,
}

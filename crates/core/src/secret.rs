//! Values that cannot be printed.

use std::fmt;

use url::Url;

/// What is shown in place of every secret.
pub const REDACTED: &str = "***";

/// A value whose `Debug` and `Display` show [`REDACTED`]. It has no `Serialize`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides `value`.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Call it only where the secret is used, never where it is shown.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// A URL that prints without user-info, query and fragment: signed URLs carry secrets in the query.
#[derive(Clone, PartialEq, Eq)]
pub struct SafeUrl(pub Url);

impl fmt::Display for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.0.clone();
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_query(None);
        url.set_fragment(None);
        fmt::Display::fmt(&url, f)
    }
}

impl fmt::Debug for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "canary-7f3a";

    #[test]
    fn hazard_s17_secrets_cannot_be_printed() {
        let secret = Secret::new(CANARY.to_owned());
        let shown = format!("{secret} {secret:?} {secret:#?} {:?}", Some(&secret));
        assert!(
            !shown.contains(CANARY) && shown.contains(REDACTED),
            "{shown}"
        );
        assert_eq!(secret.expose(), CANARY);
    }

    #[test]
    fn hazard_s17_urls_are_shown_without_user_info_query_and_fragment() {
        let text =
            format!("https://{CANARY}:{CANARY}@example.com:8443/a%20b?sig={CANARY}#{CANARY}");
        let url = SafeUrl(Url::parse(&text).unwrap());
        assert_eq!(url.to_string(), "https://example.com:8443/a%20b");
        assert_eq!(format!("{url:?}"), "https://example.com:8443/a%20b");
        let only_user = SafeUrl(Url::parse(&format!("https://{CANARY}@example.com/")).unwrap());
        assert_eq!(only_user.to_string(), "https://example.com/");
    }
}

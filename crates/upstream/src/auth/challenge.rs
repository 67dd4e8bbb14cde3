//! What a 401 asks for: the challenges of its `WWW-Authenticate` fields (RFC 9110 section 11.6.1). Pure; knows the grammar and what
//! servers make of it, and trusts none of it.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// Longer fields are not read.
const MAX_FIELD: usize = 8 * 1024;
/// More challenges in one answer, parameters in one challenge or entries in one scope are not read.
const MAX_ITEMS: usize = 16;

/// One way of getting in that larder knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User name and password (RFC 7617).
    Basic,
    /// A token from elsewhere (RFC 6750, with the parameters of container registries).
    Bearer(Bearer),
}

/// Where a token is to be had, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bearer {
    /// A URL, if the server means well.
    pub(crate) realm: String,
    pub(crate) service: Option<String>,
    /// The entries of `scope`, sorted, each once.
    pub(crate) scopes: Vec<String>,
}

/// The challenges of a response that larder could answer, in their order. Malformed ones are left out.
pub(crate) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let fields = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter(|field| field.len() <= MAX_FIELD);
    let fields = fields.filter_map(|field| std::str::from_utf8(field.as_bytes()).ok());
    fields
        .flat_map(split)
        .take(MAX_ITEMS)
        .filter_map(Raw::understood)
        .collect()
}

/// A challenge by its grammar alone.
struct Raw<'f> {
    scheme: &'f str,
    parameters: Vec<(&'f str, String)>,
    /// Nothing was out of place.
    sound: bool,
}

impl Raw<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    fn add(&mut self, name: &str) -> bool {
        self.parameters.len() < MAX_ITEMS && self.parameter(name).is_none()
    }

    fn understood(self) -> Option<Challenge> {
        if !self.sound {
            return None;
        }
        if self.scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !self.scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let realm = self
            .parameter("realm")
            .filter(|realm| !realm.is_empty())?
            .to_owned();
        let service = self
            .parameter("service")
            .filter(|service| !service.is_empty())
            .map(str::to_owned);
        let mut scopes: Vec<String> = self
            .parameter("scope")
            .unwrap_or_default()
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect();
        scopes.sort_unstable();
        scopes.dedup();
        (scopes.len() <= MAX_ITEMS).then_some(Challenge::Bearer(Bearer {
            realm,
            service,
            scopes,
        }))
    }
}

/// Splits a field value into its challenges. Commas separate challenges and parameters alike, so a word is a parameter's name if an
/// equals sign follows, and else begins a challenge. (The token68 form of other schemes then reads as a scheme that nobody knows.)
fn split(field: &str) -> Vec<Raw<'_>> {
    let mut found: Vec<Raw<'_>> = Vec::new();
    let mut rest = field;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() || found.len() > MAX_ITEMS {
            return found;
        }
        let end = rest
            .bytes()
            .position(|byte| !is_token(byte))
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let equals = after.trim_start_matches([' ', '\t']).strip_prefix('=');
        match (word, equals, found.last_mut()) {
            ("", _, last) => {
                // Something that stands nowhere in the grammar. A quoted string is stepped over as a whole, so that what it quotes is
                // never taken for a challenge.
                rest = if rest.starts_with('"') {
                    value(rest).1
                } else {
                    skip_one(rest)
                };
                if let Some(last) = last {
                    last.sound = false;
                }
            }
            (name, Some(text), Some(last)) => {
                let (value, after) = value(text.trim_start_matches([' ', '\t']));
                rest = after;
                match value {
                    Some(value) if last.add(name) => last.parameters.push((name, value)),
                    _ => last.sound = false,
                }
            }
            (scheme, _, _) => {
                found.push(Raw {
                    scheme,
                    parameters: Vec::new(),
                    sound: equals.is_none(),
                });
                rest = after;
            }
        }
    }
}

/// A parameter's value and what follows: a quoted string, or, as servers forget the quotes around URLs, everything up to a comma or
/// blank. No value for a quoted string without end.
fn value(text: &str) -> (Option<String>, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, after) = text.split_at(end);
        return (Some(value.to_owned()), after);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (Some(value), quoted.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => value.push(char),
        }
    }
    (None, "")
}

fn skip_one(text: &str) -> &str {
    let mut chars = text.chars();
    chars.next();
    chars.as_str()
}

/// `tchar` of RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(fields: &[&[u8]]) -> Vec<Challenge> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(field).unwrap());
        }
        challenges(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>, scopes: &[&str]) -> Challenge {
        let scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
        Challenge::Bearer(Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scopes,
        })
    }

    #[test]
    fn a_registrys_challenge_in_every_spelling() {
        // The example of the registry's token specification, then the same in other words that RFC 9110 allows, or that servers send.
        let want = [bearer(
            "https://auth.example.com/token",
            Some("registry.example.com"),
            &["repository:a/b:pull,push"],
        )];
        for field in [
            r#"Bearer realm="https://auth.example.com/token",service="registry.example.com",scope="repository:a/b:pull,push""#,
            r#"bearer scope="repository:a/b:pull,push", REALM="https://auth.example.com/token" , Service=registry.example.com"#,
            r#"BEARER service="registry.example.com",scope="repository:a/b:pull,push",realm=https://auth.example.com/token"#,
            r#"Bearer  realm = "https:\/\/auth.example.com/token",, service ="registry.example.com",scope= "repository:a/b:pull,push","#,
            r#"Bearer realm="https://auth.example.com/token",service="registry.example.com",scope="repository:a/b:pull,push",error="invalid_token",error_description="a, \"b\" Basic c=d""#,
        ] {
            assert_eq!(read(&[field.as_bytes()]), want, "{field}");
        }
    }

    #[test]
    fn several_challenges_in_one_field_and_in_several() {
        let want = [
            Challenge::Basic,
            bearer("https://a.example.com/t", None, &["x", "y"]),
        ];
        for fields in [
            &[
                r#"Basic realm="r, Bearer realm=https://evil.example", Bearer realm="https://a.example.com/t",scope="y x y""#,
            ][..],
            &[
                r#"Basic realm="r""#,
                r#"Bearer realm="https://a.example.com/t",scope="x  y""#,
            ],
            &[
                r#"Negotiate, Basic realm="r", NTLM YII/ab+c==, Bearer scope="x y",realm="https://a.example.com/t""#,
            ],
            &[
                r#"Digest realm="d", nonce="n", Basic, Bearer realm="https://a.example.com/t" scope="x y""#,
            ],
        ] {
            let fields: Vec<&[u8]> = fields.iter().map(|field| field.as_bytes()).collect();
            assert_eq!(read(&fields), want, "{fields:?}");
        }
    }

    #[test]
    fn malformed_challenges_are_no_challenges() {
        for field in [
            &b""[..],
            b",,, ,",
            b"=",
            b"Bearer",
            b"Bearer realm",
            b"Bearer realm=",
            b"Bearer realm=\"\"",
            b"Bearer realm=\"https://a.example.com/t",
            b"Bearer realm=\"https://a.example.com/t\\",
            b"Bearer realm=\"https://a.example.com/t\", realm=\"https://evil.example/t\"",
            b"Bearer \"realm=https://a.example.com\", realm=\"https://a.example.com/t\"",
            b"\"Bearer realm=https://a.example.com\"",
            b"realm=\"https://a.example.com/t\"",
            b"Bearer realm=\"https://a.example.com/\xff\"",
            b"Digest realm=\"https://a.example.com/t\"",
        ] {
            assert_eq!(read(&[field]), [], "{}", String::from_utf8_lossy(field));
        }
        let many_scopes = format!(
            "Bearer realm=\"https://a.example.com/t\",scope=\"{}\"",
            (0..17).fold(String::new(), |all, n| format!("{all} s{n}"))
        );
        assert_eq!(read(&[many_scopes.as_bytes()]), []);
        let long = format!(
            "Bearer realm=\"https://a.example.com/{}\"",
            "x".repeat(MAX_FIELD)
        );
        assert_eq!(read(&[long.as_bytes()]), []);
    }

    #[test]
    fn any_bytes_whatever_are_read_in_bounded_time_and_without_panic() {
        let pieces = [
            "Bearer ",
            "Basic",
            " ",
            ",",
            "=",
            "\"",
            "\\",
            "realm",
            "scope=",
            "https://a.example.com/t",
            "é",
            "\t",
            ";",
            "x",
        ];
        let mut seed = 7_u64;
        for _ in 0..20_000 {
            let mut field = String::new();
            for _ in 0..12 {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                field.push_str(pieces[(seed >> 33) as usize % pieces.len()]);
            }
            assert!(read(&[field.as_bytes()]).len() <= MAX_ITEMS, "{field}");
        }
        let hostile = ",Basic".repeat(1_000);
        assert_eq!(
            read(&[hostile.as_bytes(), hostile.as_bytes()]).len(),
            MAX_ITEMS
        );
        assert_eq!(read(&["\"".repeat(MAX_FIELD).as_bytes()]), []);
    }
}

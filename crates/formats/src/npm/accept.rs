//! Which packument a client wants: the full or the abbreviated one (RFC 9110 section 12.5.1, docs/reference/protocols/npm.md, section 1).

use http::HeaderMap;
use http::header::ACCEPT;

/// Media type of the abbreviated packument.
pub(super) const ABBREVIATED: &str = "application/vnd.npm.install-v1+json";
const FULL: &str = "application/json";

/// Whether the client names the abbreviated type and likes it no less than the full one.
pub(super) fn prefers_abbreviated(headers: &HeaderMap) -> bool {
    let mut abbreviated = 0;
    let mut full = 0;
    let values = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let weight = parts.find_map(weight).unwrap_or(1000);
        if media.eq_ignore_ascii_case(ABBREVIATED) {
            abbreviated = weight;
        } else if media.eq_ignore_ascii_case(FULL) {
            full = weight;
        }
    }
    abbreviated > 0 && abbreviated >= full
}

/// Whether a `Content-Type` is that of an abbreviated packument.
pub(super) fn is_abbreviated(content_type: &str) -> bool {
    content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case(ABBREVIATED)
}

/// `q=0.8` in thousandths. What is no weight counts as the default, 1.
fn weight(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let value: f32 = value.trim().parse().unwrap_or(1.0);
    Some((value.clamp(0.0, 1.0) * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn abbreviated(accept: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        prefers_abbreviated(&headers)
    }

    #[test]
    fn clients_that_install_get_the_abbreviated_form() {
        for accept in [
            "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*",
            "application/vnd.npm.install-v1+json",
            "application/json;q=0.8,APPLICATION/VND.NPM.INSTALL-V1+JSON",
            "application/vnd.npm.install-v1+json, application/json",
        ] {
            assert!(abbreviated(accept), "{accept}");
        }
    }

    #[test]
    fn everyone_else_gets_the_full_form() {
        for accept in [
            "application/json",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "application/json, application/vnd.npm.install-v1+json; q=0.5",
            "application/vnd.npm.install-v1+json; q=0",
            "application/vnd.npm.install-v1+json;q=0.0, */*",
            "",
        ] {
            assert!(!abbreviated(accept), "{accept}");
        }
        assert!(!prefers_abbreviated(&HeaderMap::new()));
    }

    #[test]
    fn several_header_lines_are_one_list() {
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT, "application/json; q=0.8".parse().unwrap());
        headers.append(
            ACCEPT,
            "application/vnd.npm.install-v1+json".parse().unwrap(),
        );
        assert!(prefers_abbreviated(&headers));
    }

    #[test]
    fn content_types_are_compared_without_parameters() {
        assert!(is_abbreviated(
            "application/vnd.npm.install-v1+json; charset=utf-8"
        ));
        assert!(!is_abbreviated("application/json; charset=utf-8"));
        assert!(!is_abbreviated(""));
    }
}

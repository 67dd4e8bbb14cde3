//! What a client would rather have (RFC 9110 section 12.5.1).

use http::HeaderMap;
use http::header::ACCEPT;

/// The quality of `{kind}/{subtype}` in `Accept`, in thousandths, by the most specific range that names it; 0 where none does, and where
/// there is no such field.
pub(crate) fn quality(headers: &HeaderMap, kind: &str, subtype: &str) -> u32 {
    let fields = headers.get_all(ACCEPT).into_iter();
    let ranges = fields
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let (of_kind, of_subtype) = parts.next()?.split_once('/')?;
            let is_kind = of_kind.eq_ignore_ascii_case(kind);
            let specific = match of_subtype {
                named if is_kind && named.eq_ignore_ascii_case(subtype) => 2,
                "*" if is_kind => 1,
                "*" if of_kind == "*" => 0,
                _ => return None,
            };
            let weight =
                parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            let weight = weight.map_or(Some(1.0), |weight| weight.parse::<f32>().ok())?;
            Some((specific, (weight.clamp(0.0, 1.0) * 1000.0) as u32))
        });
    ranges
        .max_by_key(|(specific, _)| *specific)
        .map_or(0, |(_, weight)| weight)
}

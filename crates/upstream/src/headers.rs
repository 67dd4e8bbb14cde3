//! The header fields of one hop, built from nothing: no field of a client's request gets upstream unless the format named it.
//!
//! The repository's own headers are decided here, hop by hop, by the hop's origin; `Authorization` by whoever sends the hop.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED,
    HOST, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
    REFERER, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use larder_core::{Credentials, Pseudonym, UpstreamSettings, field_value};
use url::Url;

use crate::hop::Bearing;
use crate::request::UpstreamRequest;
use crate::trail::passed;

/// An entry of `headers:` that cannot be sent. Names the field, never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the entry {0:?} of headers cannot be sent; correct it in the repository's configuration")]
pub(crate) struct UnusableHeader(pub(crate) String);

/// The fields of the hop to `url`. `Host` and `User-Agent` are added by the HTTP client.
///
/// # Errors
/// The repository's `headers:` hold a field that is malformed or belongs to the connection.
pub(crate) fn outgoing(
    request: &UpstreamRequest,
    settings: &UpstreamSettings,
    url: &Url,
    bearing: &Bearing,
) -> Result<HeaderMap, UnusableHeader> {
    let mut fields = HeaderMap::with_capacity(10);
    let configured = settings.is_configured_origin(url);
    if configured || url.origin() == request.url.origin() {
        for (name, value) in request.headers.iter().filter(|(name, _)| passes(name)) {
            fields.append(name.clone(), value.clone());
        }
    }
    fields.insert(
        ACCEPT,
        HeaderValue::from_static(request.accept.unwrap_or("*/*")),
    );
    // Stored and hashed bytes are the bytes on the wire.
    fields.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    conditions(request, &mut fields);
    fields.extend(
        bearing
            .authorization()
            .map(|value| (AUTHORIZATION, value.clone())),
    );
    if configured && bearing.own_headers() {
        for (name, value) in &settings.headers {
            let unusable = || UnusableHeader(name.clone());
            let field = HeaderName::try_from(name).map_err(|_| unusable())?;
            if of_the_connection(&field)
                || field == ACCEPT_ENCODING
                || field == RANGE
                || field == IF_RANGE
            {
                return Err(unusable());
            }
            let mut value = HeaderValue::try_from(value.expose()).map_err(|_| unusable())?;
            value.set_sensitive(true);
            fields.insert(field, value);
        }
    }
    Ok(fields)
}

/// Validators, or the range to resume at. A resume goes out without its strong `If-Range` (RFC 9110 section 13.1.5) only if a digest
/// vouches for the whole: a range of another version glued to what is there would be a wrong body.
fn conditions(request: &UpstreamRequest, fields: &mut HeaderMap) {
    let value = field_value;
    if let Some(resume) = &request.resume {
        let strong = !resume.if_range.is_empty() && !resume.if_range.starts_with("W/");
        let if_range = value(&resume.if_range).filter(|_| strong);
        if if_range.is_some() || resume.vouched {
            fields.extend(if_range.map(|tag| (IF_RANGE, tag)));
            fields.extend(value(&format!("bytes={}-", resume.offset)).map(|range| (RANGE, range)));
        }
        return;
    }
    let given = [
        (IF_NONE_MATCH, &request.conditions.if_none_match),
        (IF_MODIFIED_SINCE, &request.conditions.if_modified_since),
    ];
    for (name, text) in given {
        if let Some(text) = text.as_deref().and_then(value) {
            fields.insert(name, text);
        }
    }
}

/// `Via`: the larders that the request has passed, and this one. Beside a line that the operator may have configured.
pub(crate) fn sign(fields: &mut HeaderMap, own: Pseudonym) {
    if let Some(line) = field_value(&passed().line(own)) {
        fields.append(VIA, line);
    }
}

/// `Authorization: Basic` (RFC 7617).
pub(crate) fn basic(credentials: &Credentials) -> HeaderValue {
    let pair = format!("{}:{}", credentials.username, credentials.password.expose());
    let text = format!("Basic {}", STANDARD.encode(pair));
    // Base64 is always a legal field value.
    let mut value =
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("Basic"));
    value.set_sensitive(true);
    value
}

/// Takes out of an answer what is for this connection only: `Connection` and each field that it names (RFC 9110 section 7.6.1).
pub(crate) fn drop_of_the_connection(fields: &mut HeaderMap) {
    let lines: Vec<HeaderValue> = fields.get_all(CONNECTION).iter().cloned().collect();
    let names = lines
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    for name in names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()) {
        fields.remove(name);
    }
    fields.remove(CONNECTION);
}

fn of_the_connection(name: &HeaderName) -> bool {
    [
        CONNECTION,
        CONTENT_LENGTH,
        EXPECT,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ]
    .contains(name)
        || matches!(name.as_str(), "keep-alive" | "http2-settings")
        || name.as_str().starts_with("proxy-")
}

/// Whether a field that a format lets through may go out: a second line of defence behind the format's own list (hazards S9, S11, S12).
fn passes(name: &HeaderName) -> bool {
    const OWN: [HeaderName; 17] = [
        ACCEPT,
        ACCEPT_ENCODING,
        AUTHORIZATION,
        COOKIE,
        FORWARDED,
        HOST,
        IF_MATCH,
        IF_MODIFIED_SINCE,
        IF_NONE_MATCH,
        IF_RANGE,
        IF_UNMODIFIED_SINCE,
        RANGE,
        REFERER,
        SET_COOKIE,
        USER_AGENT,
        VIA,
        EXPECT,
    ];
    !OWN.contains(name)
        && !of_the_connection(name)
        && !name.as_str().starts_with("x-forwarded-")
        && !matches!(name.as_str(), "x-real-ip" | "x-api-key" | "x-auth-token")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9110 section 7.6.1: an intermediary takes out the fields that `Connection` names, whatever they are.
    #[test]
    fn fields_that_connection_names_end_here() {
        let mut fields = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, Content-Disposition"),
            ("connection", " x-of-this-hop ,,not a name"),
            ("content-disposition", "attachment"),
            ("x-of-this-hop", "1"),
            ("x-of-this-hop", "2"),
            ("content-type", "text/plain"),
        ] {
            fields.append(name, HeaderValue::from_static(value));
        }
        drop_of_the_connection(&mut fields);
        assert_eq!(
            fields.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["content-type"]
        );
    }
}

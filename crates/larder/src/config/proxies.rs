//! The proxy of those repositories that name none of their own: the top-level `proxy`, else the variables that other programs read.

use larder_core::{ProxyBypass, ProxyRules, SafeUrl};
use url::Url;

use super::diagnostic::Report;
use super::env::Environment;
use super::fields::Section;
use super::urls::proxy_url;

/// Words that turn a proxy off.
const OFF: &[&str] = &["none", "off", "false", "no", "direct"];

/// Whether a value of `proxy` means that there is none.
pub(super) fn is_off(text: &str) -> bool {
    OFF.contains(&text.to_ascii_lowercase().as_str())
}

/// Reads them, and tells which are used. A key of the file wins over the variables, which are the whole machine's; `NO_PROXY` holds for
/// both.
pub(super) fn general(
    top: &Section<'_>,
    environment: &Environment,
    report: &mut Report,
) -> Option<ProxyRules> {
    let bypass = |report: &mut Report| bypass(environment, report);
    if let Some((text, place)) = top.text("proxy", report) {
        if is_off(text) {
            return None;
        }
        let url = proxy_url(text)
            .map_err(|why| report.error(place, format!("`proxy` {why}")))
            .ok()?;
        let bypass = bypass(report);
        tell(report, "upstreams", &url, "`proxy`");
        return Some(ProxyRules::with_exceptions(
            Some(url.clone()),
            Some(url),
            bypass,
        ));
    }
    let all = variable(["ALL_PROXY", "all_proxy"], environment, report);
    let mut one = |scheme, names| {
        let (name, url) = variable(names, environment, report).or_else(|| all.clone())?;
        tell(report, &format!("{scheme} upstreams"), &url, name);
        Some(url)
    };
    let http = one("http", ["HTTP_PROXY", "http_proxy"]);
    let https = one("https", ["HTTPS_PROXY", "https_proxy"]);
    if http.is_none() && https.is_none() {
        return None;
    }
    let bypass = bypass(report);
    Some(ProxyRules::with_exceptions(http, https, bypass))
}

fn tell(report: &mut Report, what: &str, url: &Url, whence: &str) {
    let shown = SafeUrl(url.clone());
    report.note(
        None,
        format!(
            "{what} are reached through the proxy {shown} ({whence}), but for loopback and NO_PROXY"
        ),
    );
}

/// A proxy that the environment names, by the first of these variables that is set.
fn variable(
    names: [&'static str; 2],
    environment: &Environment,
    report: &mut Report,
) -> Option<(&'static str, Url)> {
    let (name, text) = names
        .into_iter()
        .find_map(|name| Some((name, environment.get(name)?)))?;
    // Other programs take a host and port alone for an http proxy.
    let whole = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    match proxy_url(whole.trim()) {
        Ok(url) => Some((name, url)),
        Err(why) => {
            report.error(None, format!("the environment variable {name} {why}; correct it, unset it, or write `proxy: none`"));
            None
        }
    }
}

fn bypass(environment: &Environment, report: &mut Report) -> ProxyBypass {
    let Some((name, text)) = ["NO_PROXY", "no_proxy"]
        .into_iter()
        .find_map(|name| Some((name, environment.get(name)?)))
    else {
        return ProxyBypass::default();
    };
    ProxyBypass::parse(text).unwrap_or_else(|entry| {
        let forms = "a domain, an address, a network such as 10.0.0.0/8, each with `:port` if need be, or `*`";
        report.error(None, format!("the environment variable {name} holds {entry:?}, which is not {forms}"));
        ProxyBypass::default()
    })
}

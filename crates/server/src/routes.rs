//! The whole URL table.

use http::Method;

/// What answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Artifact,
    Upload,
    Virtual,
    VirtualUpload,
    Oci,
    OciAlias,
    Flush,
    Discovery,
    Jobs,
    Archive,
    Blob,
    Explain,
    Gc,
    Scrub,
    Health,
    Ready,
    Live,
    Config,
    Root,
    Metrics,
    OpenApi,
    Peer,
    Ui,
}

/// A line of the table.
#[derive(Debug)]
pub(crate) struct Route {
    /// `{name}` stands for one segment, `{path}` at the end for all that follows, the empty path included.
    pub(crate) template: &'static str,
    pub(crate) methods: &'static [Method],
    pub(crate) endpoint: Endpoint,
    /// Whether the guard is asked first (`origin_guard.rs`).
    pub(crate) changes_state: bool,
}

const READ: &[Method] = &[Method::GET, Method::HEAD];
const WRITES: &[Method] = &[Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

const fn reads(template: &'static str, methods: &'static [Method], endpoint: Endpoint) -> Route {
    Route {
        template,
        methods,
        endpoint,
        changes_state: false,
    }
}

const fn writes(template: &'static str, methods: &'static [Method], endpoint: Endpoint) -> Route {
    Route {
        template,
        methods,
        endpoint,
        changes_state: true,
    }
}

pub(crate) const ROUTES: &[Route] = &[
    reads("/api/v1/remote/{repo}/{path}", READ, Endpoint::Artifact),
    // What a format passes through to its upstream, such as npm's audit: the body is a question.
    reads(
        "/api/v1/remote/{repo}/{path}",
        &[Method::POST],
        Endpoint::Artifact,
    ),
    writes(
        "/api/v1/remote/{repo}/{path}",
        &[Method::PUT, Method::DELETE],
        Endpoint::Upload,
    ),
    reads("/api/v1/virtual/{repo}/{path}", READ, Endpoint::Virtual),
    writes(
        "/api/v1/virtual/{repo}/{path}",
        WRITES,
        Endpoint::VirtualUpload,
    ),
    reads("/v2/{path}", READ, Endpoint::Oci),
    writes("/v2/{path}", WRITES, Endpoint::Oci),
    writes("/cache/flush", &[Method::PUT], Endpoint::Flush),
    reads("/api/v1/artifacts", READ, Endpoint::Discovery),
    writes("/api/v1/artifacts/cache", &[Method::POST], Endpoint::Jobs),
    reads("/api/v1/artifacts/{repo}", READ, Endpoint::Discovery),
    writes(
        "/api/v1/artifacts/{repo}/cache",
        &[Method::POST],
        Endpoint::Jobs,
    ),
    reads("/api/v1/jobs", READ, Endpoint::Jobs),
    reads("/api/v1/jobs/{id}", READ, Endpoint::Jobs),
    writes("/api/v1/jobs/{id}", &[Method::DELETE], Endpoint::Jobs),
    reads("/api/v1/archive/{repo}", READ, Endpoint::Archive),
    writes("/api/v1/archive/{repo}", &[Method::POST], Endpoint::Archive),
    reads("/api/v1/blobs/{digest}", READ, Endpoint::Blob),
    writes("/api/v1/blobs/{digest}", &[Method::PUT], Endpoint::Blob),
    reads("/api/v1/explain/{repo}/{path}", READ, Endpoint::Explain),
    writes("/api/v1/gc", &[Method::POST], Endpoint::Gc),
    reads("/api/v1/scrub", READ, Endpoint::Scrub),
    writes(
        "/api/v1/scrub",
        &[Method::POST, Method::DELETE],
        Endpoint::Scrub,
    ),
    reads("/health", READ, Endpoint::Health),
    reads("/ready", READ, Endpoint::Ready),
    reads("/live", READ, Endpoint::Live),
    reads("/config", READ, Endpoint::Config),
    reads("/metrics", READ, Endpoint::Metrics),
    reads("/api/openapi.json", READ, Endpoint::OpenApi),
    reads("/internal/v1/flight", &[Method::GET], Endpoint::Peer),
    reads("/", READ, Endpoint::Root),
    // Clients that put the path of a mirror in front of the whole API.
    reads("/{repo}/v2/{path}", READ, Endpoint::OciAlias),
    writes("/{repo}/v2/{path}", WRITES, Endpoint::OciAlias),
    // Behind those: a repository may be called `ui`, and no page is called `v2`.
    reads("/ui/{path}", READ, Endpoint::Ui),
    // Has a guard of its own: who signs in, or is signed in, has no header of its own to send (`ui/guard.rs`).
    reads("/ui/{path}", &[Method::POST], Endpoint::Ui),
];

/// Whether a raw path is one of those that only ask how larder does.
pub(crate) fn is_probe(path: &str) -> bool {
    matches!(path, "/live" | "/ready" | "/health")
}

/// What the table says of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'p> {
    /// An endpoint, with the repository's name and the raw path below it where the template has them.
    Endpoint {
        endpoint: Endpoint,
        changes_state: bool,
        repository: &'p str,
        rest: &'p str,
    },
    /// The path is there, the method is not: what `Allow` says.
    OtherMethods(String),
    /// No such path.
    Nothing,
}

/// Looks up a request by its raw path: nothing is decoded here, so that no two readings of a path exist (hazard S1).
pub(crate) fn find<'p>(method: &Method, path: &'p str) -> Found<'p> {
    let mut allowed: Vec<&str> = Vec::new();
    for route in ROUTES {
        let Some((repository, rest)) = matches(route.template, path) else {
            continue;
        };
        if route.methods.contains(method) {
            return Found::Endpoint {
                endpoint: route.endpoint,
                changes_state: route.changes_state,
                repository,
                rest,
            };
        }
        allowed.extend(route.methods.iter().map(Method::as_str));
    }
    if allowed.is_empty() {
        Found::Nothing
    } else {
        Found::OtherMethods(allowed.join(", "))
    }
}

/// The repository segment and the rest of a path that fits a template.
fn matches<'p>(template: &str, path: &'p str) -> Option<(&'p str, &'p str)> {
    let (mut repository, mut rest) = ("", path.strip_prefix('/')?);
    for part in template.strip_prefix('/')?.split('/') {
        if part == "{path}" {
            return Some((repository, rest));
        }
        let (segment, after) = rest.split_once('/').unwrap_or((rest, ""));
        match part {
            "{repo}" | "{id}" | "{digest}" if !segment.is_empty() => repository = segment,
            literal if literal == segment => {}
            _ => return None,
        }
        rest = after;
    }
    // Without `{path}` nothing may follow, not even a slash.
    (path.matches('/').count() == template.matches('/').count()).then_some((repository, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(method: &Method, path: &str) -> Option<Endpoint> {
        match find(method, path) {
            Found::Endpoint { endpoint, .. } => Some(endpoint),
            _ => None,
        }
    }

    #[test]
    fn an_artifact_s_path_is_passed_on_raw() {
        let artifact = |repository, rest| Found::Endpoint {
            endpoint: Endpoint::Artifact,
            changes_state: false,
            repository,
            rest,
        };
        let get = |path| find(&Method::GET, path);
        assert_eq!(
            get("/api/v1/remote/npm/@a%2fb/-/c.tgz"),
            artifact("npm", "@a%2fb/-/c.tgz")
        );
        assert_eq!(
            get("/api/v1/remote/pypi//simple/"),
            artifact("pypi", "/simple/")
        );
        assert_eq!(get("/api/v1/remote/pypi/"), artifact("pypi", ""));
        assert_eq!(get("/api/v1/remote/pypi"), artifact("pypi", ""));
        assert_eq!(
            get("/api/v1/remote/pypi/a/../b"),
            artifact("pypi", "a/../b")
        );
    }

    #[test]
    fn hazard_s1_nothing_is_decoded_or_repaired_to_find_a_route() {
        for path in [
            "/api/v1/remote//x",
            "/api/v1/rem%6fte/npm/x",
            "/api//v1/remote/npm/x",
            "/config/",
            "/health/x",
            "/Config",
        ] {
            assert_eq!(find(&Method::GET, path), Found::Nothing, "{path}");
        }
        // The name of a repository is not decoded either: this one does not exist.
        assert!(matches!(
            find(&Method::GET, "/api/v1/remote/pri%76ate/x"),
            Found::Endpoint {
                repository: "pri%76ate",
                ..
            }
        ));
    }

    #[test]
    fn the_other_endpoints() {
        let get = |path| endpoint(&Method::GET, path);
        assert_eq!(get("/"), Some(Endpoint::Root));
        assert_eq!(get("/v2/"), Some(Endpoint::Oci));
        assert_eq!(
            get("/v2/hub/library/alpine/manifests/latest"),
            Some(Endpoint::Oci)
        );
        assert_eq!(get("/v2"), Some(Endpoint::Oci));
        assert_eq!(
            get("/hub/v2/library/alpine/manifests/latest"),
            Some(Endpoint::OciAlias)
        );
        assert_eq!(get("/v2/v2/a/manifests/latest"), Some(Endpoint::Oci));
        assert_eq!(
            get("/api/v1/virtual/all/index.yaml"),
            Some(Endpoint::Virtual)
        );
        assert_eq!(get("/api/v1/artifacts"), Some(Endpoint::Discovery));
        assert_eq!(get("/api/v1/artifacts/npm"), Some(Endpoint::Discovery));
        assert_eq!(get("/api/v1/jobs"), Some(Endpoint::Jobs));
        assert_eq!(get("/api/v1/jobs/7"), Some(Endpoint::Jobs));
        assert_eq!(
            get("/api/v1/explain/npm/@a%2fb/-/c.tgz"),
            Some(Endpoint::Explain)
        );
        assert_eq!(
            endpoint(&Method::POST, "/api/v1/artifacts/npm/cache"),
            Some(Endpoint::Jobs)
        );
        assert_eq!(endpoint(&Method::HEAD, "/live"), Some(Endpoint::Live));
        assert_eq!(get("/ui"), Some(Endpoint::Ui));
        assert_eq!(get("/ui/repositories/npm"), Some(Endpoint::Ui));
        assert_eq!(get("/ui/v2/a/manifests/latest"), Some(Endpoint::OciAlias));
    }

    #[test]
    fn other_methods_are_told_which_ones_are_allowed() {
        assert_eq!(
            find(&Method::GET, "/cache/flush"),
            Found::OtherMethods("PUT".into())
        );
        assert_eq!(
            find(&Method::OPTIONS, "/config"),
            Found::OtherMethods("GET, HEAD".into())
        );
        let artifact = Found::OtherMethods("GET, HEAD, POST, PUT, DELETE".into());
        assert_eq!(find(&Method::PATCH, "/api/v1/remote/npm/x"), artifact);
    }

    #[test]
    fn exactly_the_routes_that_change_something_say_so() {
        for route in ROUTES {
            let safe = route.methods.iter().all(Method::is_safe);
            // The one passes a question through, the other has a guard of its own.
            let is_apart = matches!(route.endpoint, Endpoint::Artifact | Endpoint::Ui);
            assert_eq!(
                route.changes_state,
                !safe && !is_apart,
                "{} {:?}",
                route.template,
                route.methods
            );
        }
    }
}

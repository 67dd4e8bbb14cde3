//! Where a URL lies within a registry: below which root of the API, and which image it is about. Pure.

use larder_core::UpstreamSettings;
use url::Url;

/// A place below the root of a registry's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place<'u> {
    /// Path of the API's root, `/v2/` for most.
    pub(crate) root: &'u str,
    /// The rest of the path.
    below: &'u str,
}

impl<'u> Place<'u> {
    /// `None`: nothing in the path looks like a registry's API.
    pub(crate) fn of(url: &'u Url, settings: &UpstreamSettings) -> Option<Self> {
        let path = url.path();
        let configured = settings
            .base_urls
            .iter()
            .filter(|base| base.origin() == url.origin());
        let root = configured
            .filter_map(|base| root_of(base.path(), path))
            .max();
        // Names may hold `v2` too: elsewhere the first one is the API's.
        let root = root.or_else(|| path.find("/v2/").map(|at| at + "/v2/".len()))?;
        let (root, below) = path.split_at_checked(root)?;
        Some(Self { root, below })
    }

    /// The name in `{name}/manifests/{reference}` and the like. Names may hold these words too, so it is read from the right.
    pub(crate) fn image(&self) -> Option<&'u str> {
        let (before, _) = self.below.rsplit_once('/')?;
        match before.rsplit_once('/')? {
            (image, "manifests" | "blobs" | "tags" | "referrers") => Some(image),
            _ => None,
        }
    }

    /// What a token has to allow for the image to be pulled (the token specification of container registries).
    pub(crate) fn scope(&self) -> Option<String> {
        self.image().map(|image| format!("repository:{image}:pull"))
    }
}

/// Length of the API's root in `path`, which is asked for below a configured `base`. A `base` that holds the root already names a part
/// of the registry.
fn root_of(base: &str, path: &str) -> Option<usize> {
    let below = path.strip_prefix(base)?;
    if base.starts_with("/v2/") {
        return Some("/v2/".len());
    }
    if base.ends_with("/v2/") {
        return Some(base.len());
    }
    below.starts_with("v2/").then_some(base.len() + "v2/".len())
}

#[cfg(test)]
mod tests {
    use super::super::realm::tests::settings;
    use super::*;

    #[test]
    fn the_image_is_what_a_client_would_name_that_asks_the_registry_itself() {
        for (base, path, root, image) in [
            (
                "/",
                "/v2/library/demo/manifests/latest",
                "/v2/",
                Some("library/demo"),
            ),
            (
                "/",
                "/v2/library/demo/blobs/sha256:00",
                "/v2/",
                Some("library/demo"),
            ),
            ("/", "/v2/a/tags/list", "/v2/", Some("a")),
            ("/", "/v2/a/referrers/sha256:00", "/v2/", Some("a")),
            (
                "/",
                "/v2/a/v2/b/manifests/blobs/manifests/latest",
                "/v2/",
                Some("a/v2/b/manifests/blobs"),
            ),
            ("/", "/v2/", "/v2/", None),
            ("/", "/v2/_catalog", "/v2/", None),
            (
                "/artifactory/hub/",
                "/artifactory/hub/v2/v2/a/manifests/1",
                "/artifactory/hub/v2/",
                Some("v2/a"),
            ),
            (
                "/v2/mirror/",
                "/v2/mirror/a/manifests/1",
                "/v2/",
                Some("mirror/a"),
            ),
            (
                "/hub/v2/",
                "/hub/v2/v2/a/manifests/1",
                "/hub/v2/",
                Some("v2/a"),
            ),
            // A redirect has led out of the configured folder.
            ("/mirror/", "/v2/x/a/manifests/1", "/v2/", Some("x/a")),
        ] {
            let url = Url::parse(&format!("https://r.example.com{path}")).unwrap();
            let place = Place::of(
                &url,
                &settings(&format!("https://r.example.com{base}"), false),
            )
            .unwrap();
            assert_eq!((place.root, place.image()), (root, image), "{base} {path}");
        }
        let elsewhere = Url::parse("https://cdn.example.com/blobs/x/data").unwrap();
        assert_eq!(
            Place::of(&elsewhere, &settings("https://r.example.com/", false)),
            None
        );
    }
}

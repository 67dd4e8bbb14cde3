//! What was wanted where: so that only the first request for an image meets a 401. Pure memory; whether what is remembered may still
//! be used is judged anew each time.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_core::RepositoryName;
use url::{Origin, Url};

use super::challenge::Bearer;
use super::place::Place;

/// With more spaces than this, all are forgotten and learned again, at the cost of a 401 each.
const MAX_SPACES: usize = 4096;

/// Requests that get in with the same challenge (RFC 9110 section 11.5 calls this a protection space): an image of a registry, or,
/// where the path is none of a registry, that path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Space {
    repository: RepositoryName,
    origin: Origin,
    prefix: String,
}

impl Space {
    /// The space of `url`, which lies at `place` if that is a registry's.
    pub(crate) fn of(repository: &RepositoryName, url: &Url, place: Option<Place<'_>>) -> Self {
        let image = place.and_then(|place| Some(format!("{}{}", place.root, place.image()?)));
        Self {
            repository: repository.clone(),
            origin: url.origin(),
            prefix: image.unwrap_or_else(|| url.path().to_owned()),
        }
    }
}

/// What opened a space the last time.
#[derive(Debug, Clone)]
pub(crate) enum Remembered {
    Basic,
    Bearer(Arc<Bearer>),
}

/// All spaces that something opened.
#[derive(Default)]
pub(crate) struct Spaces(Mutex<HashMap<Space, Remembered>>);

impl Spaces {
    pub(crate) fn recall(&self, space: &Space) -> Option<Remembered> {
        self.lock().get(space).cloned()
    }

    pub(crate) fn remember(&self, space: Space, what: Remembered) {
        let mut spaces = self.lock();
        if spaces.len() >= MAX_SPACES && !spaces.contains_key(&space) {
            spaces.clear();
        }
        spaces.insert(space, what);
    }

    pub(crate) fn forget(&self, space: &Space) {
        self.lock().remove(space);
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Space, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Spaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spaces")
            .field("kept", &self.lock().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::realm::tests::settings;

    fn space(repository: &str, url: &str) -> Space {
        let url = Url::parse(url).unwrap();
        let place = Place::of(&url, &settings("https://r.example.com/", false));
        Space::of(&RepositoryName::parse(repository).unwrap(), &url, place)
    }

    #[test]
    fn a_space_is_an_image() {
        for (path, want) in [
            ("/v2/library/demo/manifests/latest", "/v2/library/demo"),
            ("/v2/library/demo/blobs/sha256:00", "/v2/library/demo"),
            (
                "/v2/a/manifests/blobs/manifests/latest",
                "/v2/a/manifests/blobs",
            ),
            ("/v2/", "/v2/"),
            ("/v2/manifests", "/v2/manifests"),
            ("/cdn/blobs/x/data", "/cdn/blobs/x/data"),
            ("/", "/"),
        ] {
            assert_eq!(
                space("a", &format!("https://r.example.com{path}")).prefix,
                want,
                "{path}"
            );
        }
    }

    #[test]
    fn repositories_and_origins_do_not_share_and_the_number_is_bounded() {
        let spaces = Spaces::default();
        let home = space("a", "https://r.example.com/v2/x/tags/list");
        spaces.remember(home.clone(), Remembered::Basic);
        assert!(
            spaces
                .recall(&space(
                    "a",
                    "https://R.example.com:443/v2/x/blobs/sha256:00?y"
                ))
                .is_some()
        );
        for (repository, other) in [
            ("b", "https://r.example.com/v2/x/tags/list"),
            ("a", "https://r.example.com:444/v2/x/tags/list"),
            ("a", "http://r.example.com/v2/x/tags/list"),
            ("a", "https://r.example.com/v2/y/tags/list"),
        ] {
            assert!(
                spaces.recall(&space(repository, other)).is_none(),
                "{repository} {other}"
            );
        }
        spaces.forget(&home);
        assert!(spaces.recall(&home).is_none());
        for n in 0..=MAX_SPACES {
            spaces.remember(
                space("a", &format!("https://r.example.com/v2/{n}/tags/list")),
                Remembered::Basic,
            );
        }
        assert_eq!(spaces.lock().len(), 1);
    }
}

//! What a page is, and what surrounds each of them.

use larder_core::UnixMillis;
use serde::Serialize;

use crate::values::Beginning;

/// Why a page could not be written.
pub use askama::Error as RenderError;

/// A page. What it serializes to is its JSON form: numbers and times, no words that only decorate.
pub trait Page: Serialize {
    /// The whole document.
    ///
    /// # Errors
    /// None that data can cause; the template engine's interface has them.
    fn html(&self, frame: &Frame) -> Result<String, RenderError>;
}

/// An entry of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// How everything does.
    Overview,
    /// The repositories and what is in them.
    Repositories,
    /// Search in what is held.
    Search,
    /// Jobs.
    Jobs,
    /// Backends and upstreams.
    Health,
    /// The configuration.
    Configuration,
    /// Why a path is answered as it is.
    Explain,
    /// None of these.
    Other,
}

/// An entry of the navigation, as a page shows it.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its address below the root.
    pub address: &'static str,
    /// Its word.
    pub word: &'static str,
    /// Whether the page belongs to it.
    pub is_current: bool,
}

impl Section {
    const ALL: [(Self, &'static str, &'static str); 7] = [
        (Self::Overview, "/ui/", "Overview"),
        (Self::Repositories, "/ui/repositories", "Repositories"),
        (Self::Search, "/ui/search", "Search"),
        (Self::Jobs, "/ui/jobs", "Jobs"),
        (Self::Health, "/ui/health", "Health"),
        (Self::Configuration, "/ui/configuration", "Configuration"),
        (Self::Explain, "/ui/explain", "Explain"),
    ];

    /// The navigation as a page of this section has it.
    pub fn navigation(self) -> [Entry; 7] {
        Self::ALL.map(|(section, address, word)| Entry {
            address,
            word,
            is_current: section == self,
        })
    }
}

/// Whether the visitor may change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Signed in as the administrator.
    In,
    /// Not signed in; there is a token to sign in with.
    Out,
    /// There is no token to sign in with: nothing can be changed from here.
    Closed,
}

/// Bytes that are shown of a text of which a page may have hundreds.
pub const SHORT: usize = 160;

/// What surrounds a page, and what all pages need to know of the visit.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The path in front of larder's own addresses, as in `/cache`; no slash at its end, and usually empty.
    pub root: String,
    /// Larder's version.
    pub version: &'static str,
    /// Whether the visitor is signed in.
    pub sign: Sign,
    /// The token that each form carries which changes something; empty unless signed in.
    pub csrf: String,
    /// The present time.
    pub now: UnixMillis,
    /// The address of this page below the root, with its query: where signing in leads back to.
    pub here: String,
}

impl Frame {
    /// Whether forms that change something are shown.
    pub fn may_change(&self) -> bool {
        self.sign == Sign::In
    }

    /// Whether signing in would allow that.
    pub fn may_sign_in(&self) -> bool {
        self.sign == Sign::Out
    }

    /// The address of a file of `static/`, with a name that changes when its content does.
    pub fn asset(&self, name: &str) -> String {
        crate::files::address(&self.root, name)
    }

    /// The address of a repository's page, or of one below it: `below` begins with a slash, or is empty. Names of repositories need no
    /// escaping in addresses.
    pub fn repository(&self, name: &str, below: &str) -> String {
        format!("{}/ui/repositories/{name}{below}", self.root)
    }

    /// The address that says why a path is answered as it is.
    pub fn explain(&self, repository: &str, path: &str) -> String {
        let asked = self.query(&format!("{repository}/{}", self.path(path)));
        format!("{}/ui/explain?url={asked}", self.root)
    }

    /// The beginning of a text of which a page may have hundreds.
    pub fn short<'t>(&self, text: &'t str) -> Beginning<'t> {
        Beginning { text, most: SHORT }
    }

    /// The beginning of a text of which a page has a few.
    pub fn long<'t>(&self, text: &'t str) -> Beginning<'t> {
        Beginning { text, most: 2_000 }
    }

    /// `text` as part of the query of an address.
    pub fn query(&self, text: &str) -> String {
        crate::values::percent_encoded(text, false)
    }

    /// `path` as the rest of the path of an address: slashes stay.
    pub fn path(&self, path: &str) -> String {
        crate::values::percent_encoded(path, true)
    }
}

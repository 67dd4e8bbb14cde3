//! One repository: how to use it, what it is, how it does.

use serde::Serialize;

use super::view::page;
use crate::pages::repositories::tone;
use crate::pages::trends::Trends;
use crate::values::{Bytes, Count, Moment, Share, Span};

/// What every page about a repository begins with.
#[derive(Debug, Clone, Serialize)]
pub struct RepositoryHead {
    /// Its name.
    pub name: String,
    /// `remote`, `local` or `virtual`.
    pub kind: &'static str,
    /// Its package type.
    pub package: &'static str,
    /// What the operator has written about it.
    pub description: String,
    /// As in the list of repositories.
    pub state: &'static str,
}

/// A page about a repository, as the tabs show it.
#[derive(Debug, Clone, Copy)]
pub struct Tab {
    /// What the page calls itself.
    pub name: &'static str,
    /// Its address below the repository's.
    pub below: &'static str,
    /// Its word.
    pub word: &'static str,
}

const fn tab(name: &'static str, below: &'static str, word: &'static str) -> Tab {
    Tab { name, below, word }
}

impl RepositoryHead {
    /// The class of the mark that shows the state.
    pub fn tone(&self) -> &'static str {
        tone(self.state)
    }

    /// The pages that there are about a repository of this kind.
    pub fn tabs(&self) -> Vec<Tab> {
        let mut tabs = vec![tab("summary", "", "Summary")];
        if self.state == "not served" {
            return tabs;
        }
        tabs.push(tab("browse", "/browse/", "Browse"));
        if self.kind == "remote" {
            tabs.push(tab("outage", "/outage", "If the upstream died"));
            tabs.push(tab("flush", "/flush", "Flush"));
        }
        if self.kind == "virtual" {
            tabs.push(tab("outage", "/outage", "If the upstreams died"));
        }
        tabs
    }
}

/// The page.
#[derive(Debug, Clone, Serialize)]
pub struct Repository {
    /// What it is.
    pub repository: RepositoryHead,
    /// Its address for clients.
    pub address: String,
    /// Whether the configuration says that address (`public_url`); else it is the one that this request came by, as far as larder sees.
    pub is_public: bool,
    /// Why it is not served, or what its state means.
    pub remark: Option<String>,
    /// The lines for each client.
    pub set_up: Vec<SetUp>,
    /// What is held, and how it is used.
    pub facts: Facts,
    /// The same over time; `None`: not recorded.
    pub trends: Option<Trends>,
    /// The places of the upstream, first choice first.
    pub mirrors: Vec<Mirror>,
    /// What may be asked for, and how copies are kept.
    pub rules: Vec<Rule>,
    /// The members of a virtual repository, highest priority first.
    pub members: Vec<String>,
    /// The virtual repositories that it is a member of.
    pub member_of: Vec<String>,
    /// All counters since the start, by name.
    pub counters: Vec<Counter>,
    /// What clients asked for and did not get by the rules; `None`: not recorded.
    pub refused: Option<Vec<RefusedGroup>>,
}

impl Repository {
    /// The address below larder's root.
    pub fn place(&self) -> &str {
        let at = self.address.rfind("/api/v1/");
        at.and_then(|at| self.address.get(at..)).unwrap_or_default()
    }

    /// Whether there are mirrors that can be asked how old their indexes are.
    pub fn has_mirrors(&self) -> bool {
        let own = self
            .mirrors
            .iter()
            .filter(|mirror| mirror.requests.is_some());
        own.count() > 1
    }
}

page!(Repository, "repository.html", crate::Section::Repositories);

/// Lines that set one client up.
#[derive(Debug, Clone, Serialize)]
pub struct SetUp {
    /// The client.
    pub client: &'static str,
    /// Where the lines go.
    pub place: &'static str,
    /// The lines.
    pub text: String,
}

/// What is held, and how it is used since the start.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Facts {
    /// Files that are held.
    pub files: Option<Count>,
    /// Their bytes.
    pub bytes: Option<Bytes>,
    /// The bytes that may be kept (`max_disk`, or the quota of a local repository).
    pub most: Option<Bytes>,
    /// Requests.
    pub requests: Count,
    /// The part that was answered from what is held.
    pub hit_ratio: Option<Share>,
    /// Bytes sent to clients.
    pub sent: Bytes,
    /// Bytes received from the upstream.
    pub fetched: Bytes,
    /// What the upstream allows in its present window, where it says so.
    pub quota_limit: Option<Count>,
    /// What is left of that.
    pub quota_left: Option<Count>,
}

/// One place of the upstream.
#[derive(Debug, Clone, Serialize)]
pub struct Mirror {
    /// Its address, without secrets.
    pub upstream: String,
    /// `ok`, `failing` or `unknown`.
    pub state: &'static str,
    /// Since when.
    pub since: Option<Moment>,
    /// Requests sent to it; `None` where that is not counted for each place.
    pub requests: Option<Count>,
    /// Failures among them.
    pub failures: Option<Count>,
    /// Whether it is asked at its place in the list.
    pub in_order: bool,
    /// The last failure, in a sentence.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<Moment>,
    /// When it last answered, whatever it said.
    pub last_answer_at: Option<Moment>,
    /// How long its answers take to begin at present, in milliseconds.
    pub first_byte_ms: Option<f64>,
    /// How far its index is behind the newest among the mirrors of the repository.
    pub lag: Lag,
}

/// How far a mirror is behind the newest.
#[derive(Debug, Clone, Serialize)]
pub struct Lag {
    /// How much older its index is; `None`: that is not known.
    pub behind: Option<Span>,
    /// Why it is not known.
    pub unknown: Option<&'static str>,
    /// The index that tells.
    pub index: Option<String>,
    /// When the mirror gave it.
    pub seen_at: Option<Moment>,
}

impl Mirror {
    /// The latency in words.
    pub fn latency(&self) -> String {
        match self.first_byte_ms {
            None => "-".to_owned(),
            Some(ms) if ms >= 1_000.0 => format!("{:.1}\u{202f}s", ms / 1_000.0),
            Some(ms) if ms >= 10.0 => format!("{ms:.0}\u{202f}ms"),
            Some(ms) => format!("{ms:.1}\u{202f}ms"),
        }
    }

    /// The class of the mark that shows the state.
    pub fn tone(&self) -> &'static str {
        tone(self.state)
    }
}

/// One rule with what it says.
#[derive(Debug, Clone, Serialize)]
pub struct Rule {
    /// The key of the configuration: `deny_patterns`.
    pub key: &'static str,
    /// What it means, in words.
    pub meaning: &'static str,
    /// Its values; none is not shown.
    pub values: Vec<String>,
    /// Whether it stands nowhere, so that the default holds.
    pub is_default: bool,
    /// Where it stands (`file:line`), for whoever may see the configuration.
    pub line: Option<String>,
}

/// A counter.
#[derive(Debug, Clone, Serialize)]
pub struct Counter {
    /// Its name in the metrics.
    pub name: &'static str,
    /// Its value.
    pub value: Count,
}

/// Paths that were refused, and what would admit them.
#[derive(Debug, Clone, Serialize)]
pub struct RefusedGroup {
    /// The repository whose rules they are: of a virtual one itself or a member.
    pub repository: String,
    /// How often.
    pub count: Count,
    /// The last time.
    pub last: Moment,
    /// The rule that refused them.
    pub rule: String,
    /// Some of the paths.
    pub examples: Vec<String>,
    /// The deny pattern that refused them, where it was one.
    pub refused_by: Option<String>,
    /// A pattern that would admit them; `None` where adding one would not help.
    pub pattern: Option<String>,
    /// The settings to which it is to be added: all of them.
    pub add_to: Vec<String>,
}

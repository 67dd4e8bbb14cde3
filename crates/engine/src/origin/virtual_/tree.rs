//! A virtual repository taken apart: its members as they stand within each other, and which of them give a name.
//!
//! Whose a name is gets decided from the inside out. Each virtual repository decides among its own members, and to the one that it is a
//! member of it is one member, with what it has decided to give.

use std::sync::Arc;

use larder_core::{Fault, RepositoryKind, RepositoryName};

use super::given::Leaf;
use crate::repositories::{Repositories, RepositoryState};

/// Virtual repositories within each other, the outermost included.
const DEEPEST: usize = 4;

/// A repository in its place: the virtual one that was asked, or a member.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) entry: Arc<RepositoryState>,
    /// Which of the leaves it is; `None` for a virtual one.
    leaf: Option<usize>,
    members: Vec<Place>,
    /// Whether it has no index to give: then it has nothing, but what is reserved in it stays so.
    is_out: bool,
}

/// Who gives a name.
#[derive(Debug, Default)]
pub(super) struct Givers {
    /// Those that nobody else's right to the name keeps out, in the order of priority, whether they have it or not.
    pub(super) leaves: Vec<usize>,
    /// Whether a member whose names are its own has it: these are that member's.
    pub(super) is_owned: bool,
    is_there: bool,
    is_reserved: bool,
}

/// Takes a virtual repository apart. The leaves are all members that hold documents, in the order of priority, each once; one that is
/// reached in two ways has two places.
pub(super) fn take_apart(
    repositories: &Repositories,
    owner: &Arc<RepositoryState>,
) -> (Place, Vec<Leaf>) {
    let mut leaves = Vec::new();
    let members = places_in(repositories, owner, false, 1, &mut leaves);
    let root = Place {
        entry: Arc::clone(owner),
        leaf: None,
        members,
        is_out: false,
    };
    (root, leaves)
}

fn places_in(
    repositories: &Repositories,
    owner: &RepositoryState,
    is_owned: bool,
    depth: usize,
    leaves: &mut Vec<Leaf>,
) -> Vec<Place> {
    let mut places = Vec::new();
    for name in owner.repository.members() {
        // The configuration has been checked; a member that is gone all the same contributes nothing.
        let Some(entry) = repositories.get(name) else {
            continue;
        };
        let is_owned = is_owned || owns_names(entry);
        let (leaf, members) = if entry.repository.kind() != RepositoryKind::Virtual {
            (Some(number(leaves, entry, is_owned)), Vec::new())
        } else if depth < DEEPEST {
            let below = places_in(repositories, entry, is_owned, depth + 1, leaves);
            (None, below)
        } else {
            continue;
        };
        places.push(Place {
            entry: Arc::clone(entry),
            leaf,
            members,
            is_out: false,
        });
    }
    places
}

/// The number of a leaf.
fn number(leaves: &mut Vec<Leaf>, entry: &Arc<RepositoryState>, is_owned: bool) -> usize {
    let name = &entry.repository.name;
    let known = leaves
        .iter()
        .position(|leaf| leaf.entry.repository.name == *name);
    let number = known.unwrap_or(leaves.len());
    match leaves.get_mut(number) {
        Some(leaf) => leaf.owns_names |= is_owned,
        None => leaves.push(Leaf {
            entry: Arc::clone(entry),
            owns_names: is_owned,
        }),
    }
    number
}

/// Whether the names that a member has are its own.
fn owns_names(entry: &RepositoryState) -> bool {
    entry.repository.authoritative || entry.repository.kind() == RepositoryKind::Local
}

impl Place {
    /// Who gives a name (`None`: something that has none), where `has` says which leaves have it, and `admits` which virtual repositories'
    /// rules let it through. What the rules keep out is nobody else's to fill in for.
    pub(super) fn givers(
        &self,
        name: Option<&str>,
        has: &dyn Fn(usize) -> bool,
        admits: &dyn Fn(&RepositoryState) -> bool,
    ) -> Givers {
        let mut givers = match self.leaf {
            Some(leaf) => Givers {
                leaves: vec![leaf],
                is_there: has(leaf),
                ..Givers::default()
            },
            None => self.givers_below(name, has, admits),
        };
        givers.is_owned |= owns_names(&self.entry) && givers.is_there;
        givers.is_reserved |= name.is_some_and(|name| self.reserves(name));
        givers
    }

    fn givers_below(
        &self,
        name: Option<&str>,
        has: &dyn Fn(usize) -> bool,
        admits: &dyn Fn(&RepositoryState) -> bool,
    ) -> Givers {
        let below = self.members.iter();
        let mut parts: Vec<Givers> = below
            .map(|member| member.givers(name, has, admits))
            .collect();
        if parts.iter().any(|part| part.is_reserved) {
            parts.retain(|part| part.is_reserved);
        }
        if let Some(owner) = parts.iter().position(|part| part.is_owned) {
            parts = vec![parts.swap_remove(owner)];
        }
        let mut givers = Givers::default();
        for part in parts {
            for leaf in part.leaves {
                if !givers.leaves.contains(&leaf) {
                    givers.leaves.push(leaf);
                }
            }
            givers.is_there |= part.is_there;
            givers.is_owned |= part.is_owned;
            givers.is_reserved |= part.is_reserved;
        }
        if self.is_out {
            (givers.is_there, givers.is_owned) = (false, false);
        }
        if self.is_out || !admits(&self.entry) {
            givers.leaves.clear();
        }
        givers
    }

    fn reserves(&self, name: &str) -> bool {
        self.entry.repository.reserved.has(name)
    }

    /// The leaves below, each once.
    pub(super) fn leaves(&self) -> Vec<usize> {
        self.givers(None, &|_| false, &|_| true).leaves
    }

    /// The first repository below that reserves a name.
    pub(super) fn reserver(&self, name: &str) -> Option<&RepositoryName> {
        self.members.iter().find_map(|member| {
            let own = member.reserves(name).then(|| &member.entry.repository.name);
            own.or_else(|| member.reserver(name))
        })
    }

    /// Whether names are anybody's own: else everybody gives every name.
    pub(super) fn has_owners(&self) -> bool {
        self.members.iter().any(|member| {
            let is_plain = member.entry.repository.reserved.is_empty();
            owns_names(&member.entry) || !is_plain || member.has_owners()
        })
    }

    /// The leaf for which this virtual repository has nothing to give: its names are its own, it `failed`, and `fail_closed` says that no
    /// others may take their place.
    pub(super) fn closed_by(&self, failed: &dyn Fn(usize) -> bool) -> Option<usize> {
        let settings = self.entry.repository.virtual_settings()?;
        let mut below = self.members.iter().filter(|_| settings.fail_closed);
        below.find_map(|member| member.lost(false, failed))
    }

    fn lost(&self, is_owned: bool, failed: &dyn Fn(usize) -> bool) -> Option<usize> {
        let is_owned = is_owned || owns_names(&self.entry);
        match self.leaf {
            Some(leaf) => (is_owned && failed(leaf)).then_some(leaf),
            None => self
                .members
                .iter()
                .find_map(|member| member.lost(is_owned, failed)),
        }
    }

    /// Takes out the virtual repositories below for which there is a reason; gives their leaves that have no other place, each with that
    /// reason.
    pub(super) fn prune(&mut self, why: &dyn Fn(&Self) -> Option<Fault>) -> Vec<(usize, Fault)> {
        let mut out = Vec::new();
        self.prune_into(why, &mut out);
        let left = self.leaves();
        out.retain(|(leaf, _)| !left.contains(leaf));
        out
    }

    fn prune_into(&mut self, why: &dyn Fn(&Self) -> Option<Fault>, out: &mut Vec<(usize, Fault)>) {
        for member in &mut self.members {
            if member.leaf.is_some() || member.is_out {
                continue;
            }
            if let Some(fault) = why(member) {
                let leaves = member.leaves().into_iter();
                out.extend(leaves.map(|leaf| (leaf, fault.clone())));
                member.is_out = true;
            } else {
                member.prune_into(why, out);
            }
        }
    }

    /// The virtual repositories below that a leaf is in.
    pub(super) fn above(&self, leaf: usize) -> Vec<&Arc<RepositoryState>> {
        let has = |member: &&Self| member.leaf.is_none() && member.leaves().contains(&leaf);
        let below = self.members.iter().filter(has);
        below
            .flat_map(|member| std::iter::once(&member.entry).chain(member.above(leaf)))
            .collect()
    }

    /// All that decides who gives which name, beside the names themselves.
    pub(super) fn shape(&self) -> String {
        let repository = &self.entry.repository;
        let below: Vec<String> = self.members.iter().map(Self::shape).collect();
        let (name, globs) = (&repository.name, repository.reserved.globs());
        let flags = (owns_names(&self.entry), self.is_out);
        format!("{name} {flags:?} {globs:?} [{}]", below.join(", "))
    }
}

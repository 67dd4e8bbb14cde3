//! How the merged document is made of the members' documents.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use larder_core::{Dates, Fault, Mutability, RepositoryName, UnixMillis, Verdict};
use larder_formats::{LinkBase, Links, Malformed, MergeFault, MergeMember, Merged};

use super::assembled::step_of;
use super::given::{Contribution, Given, Leaf};
use super::state::Virtual;
use super::tree::Place;
use crate::causes::warn_once;
use crate::document::derive::{Made, tell_left_out};
use crate::document::load::DocumentSource;
use crate::document::marking::Marking;
use crate::fault::{internal, malformed};
use crate::policy::ruling::{Facts, judge_admitted};

/// One member's part of a merge, ready for the parser.
struct Input {
    document: Arc<crate::loaded::LoadedDocument>,
    leaf: Leaf,
    base: LinkBase,
    /// When larder first had the document.
    first_seen_at: UnixMillis,
    /// Which of the leaves it is of.
    number: usize,
}

/// Whose the names in the members' documents are.
struct Whose {
    root: Place,
    /// Of the members whose names decide what others give: all that they have.
    names: HashMap<usize, HashSet<String>>,
    /// What has been found out already, by name.
    givers: RefCell<HashMap<String, Vec<usize>>>,
}

impl Whose {
    /// Of all names in these documents; or the place of the document that cannot be read, and why.
    fn of(root: Place, inputs: &[Input]) -> Result<Self, (usize, Malformed)> {
        let mut names = HashMap::new();
        for (at, input) in inputs.iter().enumerate() {
            if input.leaf.owns_names {
                let format = input.document.wanted().format;
                let all = format.names(&input.document.view());
                names.insert(input.number, all.map_err(|malformed| (at, malformed))?);
            }
        }
        let givers = RefCell::default();
        Ok(Self {
            root,
            names,
            givers,
        })
    }

    /// Whether a member is not to give a name: others have the right to it.
    fn is_anothers(&self, leaf: usize, name: &str) -> bool {
        if let Some(givers) = self.givers.borrow().get(name) {
            return !givers.contains(&leaf);
        }
        let has = |of: usize| {
            let names = self.names.get(&of);
            names.is_some_and(|names| names.contains(name))
        };
        let givers = self.root.givers(Some(name), &has, &|_| true).leaves;
        let is_anothers = !givers.contains(&leaf);
        self.givers.borrow_mut().insert(name.to_owned(), givers);
        is_anothers
    }
}

impl Input {
    /// How links of this member are written.
    fn links<'a>(&'a self, engine: &'a Virtual) -> Links<'a> {
        let query = self.document.wanted().spec.query.as_deref();
        let (repository, key) = (&self.leaf.entry.repository, &engine.registry.link_key);
        Links::new(repository, key, self.base.clone()).asked_with(query)
    }

    /// A version is dated by what the index says of it; where that says nothing, larder first saw it when it first had the index.
    fn is_held(&self, created: Option<UnixMillis>, now: UnixMillis) -> bool {
        let dates = Dates {
            stated: None,
            last_modified: created,
            first_seen_at: created.map_or(self.first_seen_at, |_| now),
        };
        let repository = &self.leaf.entry.repository;
        judge_admitted(repository, Mutability::Immutable, &Facts { dates, now })
            .is_some_and(|ruling| ruling.verdict != Verdict::Clear)
    }
}

/// Makes the merged document of what the members gave. A member whose document cannot be read is written into `unusable`, and the merge
/// is to be made without it.
pub(super) async fn make(
    engine: &Arc<Virtual>,
    (given, root): (&[Given], &Place),
    form: &'static str,
    base_of: impl Fn(&Leaf) -> LinkBase,
    marking: Option<Marking>,
    unusable: &Arc<OnceLock<(RepositoryName, Malformed)>>,
) -> Result<Made, Fault> {
    let sources: Vec<(DocumentSource, Leaf, LinkBase, UnixMillis, usize)> = given
        .iter()
        .enumerate()
        .filter_map(|(number, one)| {
            let Contribution {
                wanted, settled, ..
            } = one.document.as_ref().ok()?;
            let source = DocumentSource::settled(wanted, settled);
            let base = base_of(&one.leaf);
            let first_seen_at = settled.record.first_seen_at;
            Some((source, one.leaf.clone(), base, first_seen_at, number))
        })
        .collect();
    let (of, unusable, root) = (Arc::clone(engine), Arc::clone(unusable), root.clone());
    // Whoever waits for the merge is one of them: it is made on account of the first.
    let owner = sources
        .first()
        .map(|(source, ..)| source.repository().clone());
    let owner = owner.ok_or_else(|| internal("nothing to merge"))?;
    let bytes = sources.iter().map(|(source, ..)| source.length()).sum();
    let merged = engine.documents.parse_blocking(&owner, bytes, move || {
        let mut inputs = Vec::with_capacity(sources.len());
        for (source, leaf, base, first_seen_at, number) in sources {
            inputs.push(Input {
                document: source.load()?,
                base,
                first_seen_at,
                leaf,
                number,
            });
        }
        let Some(first) = inputs.first() else {
            return Err(internal("nothing to merge"));
        };
        let (body, content_type) = merge(&of, &inputs, root, form, &unusable)
            .map_err(|error| malformed(first.document.wanted(), &error))?;
        let body = body.into();
        Ok(of.documents.made(body, content_type, marking.as_ref()))
    });
    merged.await?
}

fn merge(
    engine: &Virtual,
    inputs: &[Input],
    root: Place,
    form: &'static str,
    unusable: &OnceLock<(RepositoryName, Malformed)>,
) -> Result<(Vec<u8>, String), Malformed> {
    let cannot_use = |(at, malformed): (usize, Malformed)| {
        if let Some(input) = inputs.get(at) {
            let name = input.leaf.entry.repository.name.clone();
            let _ = unusable.set((name, malformed.clone()));
        }
        malformed
    };
    let links: Vec<Links<'_>> = inputs.iter().map(|input| input.links(engine)).collect();
    let whose = Whose::of(root, inputs).map_err(cannot_use)?;
    let now = step_of(engine.now());
    let merged = merge_by(inputs, &links, &whose, now, form);
    let merged = merged.map_err(|fault| cannot_use((fault.member, fault.malformed)))?;
    for (input, links) in inputs.iter().zip(&links) {
        tell_left_out(input.document.wanted(), links.left_out());
    }
    warn_of(inputs, &merged.remarks);
    Ok((merged.derived.body, merged.derived.content_type.to_owned()))
}

fn merge_by(
    inputs: &[Input],
    links: &[Links<'_>],
    whose: &Whose,
    now: UnixMillis,
    form: &'static str,
) -> Result<Merged, MergeFault> {
    let cannot = |message: String| MergeFault {
        member: usize::MAX,
        malformed: Malformed(message),
    };
    let held: Vec<_> = inputs
        .iter()
        .map(|input| move |created| input.is_held(created, now))
        .collect();
    let anothers: Vec<_> = inputs
        .iter()
        .map(|input| move |name: &str| whose.is_anothers(input.number, name))
        .collect();
    let has_owners = whose.root.has_owners();
    let members: Vec<MergeMember<'_>> = inputs
        .iter()
        .zip(links)
        .zip(held.iter().zip(&anothers))
        .map(|((input, links), (is_held, is_anothers))| MergeMember {
            document: input.document.view(),
            links,
            is_anothers: has_owners.then_some(is_anothers as &dyn Fn(&str) -> bool),
            is_held: input
                .leaf
                .entry
                .repository
                .quarantine
                .hides_in_merges()
                .then_some(is_held as &dyn Fn(Option<UnixMillis>) -> bool),
        })
        .collect();
    let format = inputs.first().map(|input| input.document.wanted().format);
    let format = format.ok_or_else(|| cannot("there is nothing to merge".to_owned()))?;
    let merged = format.merge(&members, form);
    merged.unwrap_or_else(|| Err(cannot(format!("there is no merged form {form:?}"))))
}

/// Tells the operator what of the members is not in the merged document, by the member's place among them.
fn warn_of(inputs: &[Input], remarks: &[(usize, String)]) {
    for (member, remark) in remarks {
        if let Some(input) = inputs.get(*member) {
            let wanted = input.document.wanted();
            warn_once!(
                wanted,
                "merge_left_out",
                "entries of this index are not in the merged one",
                remark = remark.as_str()
            );
        }
    }
}

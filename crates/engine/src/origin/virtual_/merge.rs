//! How the merged document is made of the members' documents.

use std::sync::{Arc, OnceLock};

use larder_core::{Dates, Fault, Mutability, RepositoryName, UnixMillis, Verdict};
use larder_formats::{LinkBase, Links, Malformed, MergeMember};

use super::assembled::step_of;
use super::given::{Contribution, Given, Leaf, reserved_for};
use super::state::Virtual;
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
    /// All members.
    leaves: Arc<[Leaf]>,
}

impl Input {
    /// How links of this member are written.
    fn links<'a>(&'a self, engine: &'a Virtual) -> Links<'a> {
        let query = self.document.wanted().spec.query.as_deref();
        let (repository, key) = (&self.leaf.entry.repository, &engine.registry.link_key);
        Links::new(repository, key, self.base.clone()).asked_with(query)
    }

    fn is_anothers(&self, name: &str) -> bool {
        reserved_for(&self.leaves, &self.leaf, name).is_some()
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
    given: &[Given],
    form: &'static str,
    base_of: impl Fn(&Leaf) -> LinkBase,
    marking: Option<Marking>,
    unusable: &Arc<OnceLock<(RepositoryName, Malformed)>>,
) -> Result<Made, Fault> {
    let sources: Vec<(DocumentSource, Leaf, LinkBase, UnixMillis)> = given
        .iter()
        .filter_map(|one| {
            let Contribution {
                wanted, settled, ..
            } = one.document.as_ref().ok()?;
            let source = DocumentSource::settled(wanted, settled);
            let base = base_of(&one.leaf);
            Some((source, one.leaf.clone(), base, settled.record.first_seen_at))
        })
        .collect();
    let leaves: Arc<[Leaf]> = given.iter().map(|one| one.leaf.clone()).collect();
    let (of, unusable) = (Arc::clone(engine), Arc::clone(unusable));
    // Whoever waits for the merge is one of them: it is made on account of the first.
    let owner = sources
        .first()
        .map(|(source, ..)| source.repository().clone());
    let owner = owner.ok_or_else(|| internal("nothing to merge"))?;
    let bytes = sources.iter().map(|(source, ..)| source.length()).sum();
    let merged = engine.documents.parse_blocking(&owner, bytes, move || {
        let mut inputs = Vec::with_capacity(sources.len());
        for (source, leaf, base, first_seen_at) in sources {
            inputs.push(Input {
                document: source.load()?,
                base,
                first_seen_at,
                leaf,
                leaves: Arc::clone(&leaves),
            });
        }
        let Some(first) = inputs.first() else {
            return Err(internal("nothing to merge"));
        };
        let (body, content_type) = merge(&of, &inputs, form, &unusable)
            .map_err(|error| malformed(first.document.wanted(), &error))?;
        let body = body.into();
        Ok(of.documents.made(body, content_type, marking.as_ref()))
    });
    merged.await?
}

fn merge(
    engine: &Virtual,
    inputs: &[Input],
    form: &'static str,
    unusable: &OnceLock<(RepositoryName, Malformed)>,
) -> Result<(Vec<u8>, String), Malformed> {
    let now = step_of(engine.now());
    let links: Vec<Links<'_>> = inputs.iter().map(|input| input.links(engine)).collect();
    let held: Vec<_> = inputs
        .iter()
        .map(|input| move |created| input.is_held(created, now))
        .collect();
    let anothers: Vec<_> = inputs
        .iter()
        .map(|input| move |name: &str| input.is_anothers(name))
        .collect();
    let members: Vec<MergeMember<'_>> = inputs
        .iter()
        .zip(&links)
        .zip(held.iter().zip(&anothers))
        .map(|((input, links), (is_held, is_anothers))| MergeMember {
            document: input.document.view(),
            links,
            owns_names: input.leaf.owns_names,
            is_anothers: Some(is_anothers),
            is_held: input
                .leaf
                .entry
                .repository
                .quarantine
                .hides_in_merges()
                .then_some(is_held as &dyn Fn(Option<UnixMillis>) -> bool),
        })
        .collect();
    let Some(format) = inputs.first().map(|input| input.document.wanted().format) else {
        return Err(Malformed("there is nothing to merge".to_owned()));
    };
    let merged = format.merge(&members, form).unwrap_or_else(|| {
        let malformed = Malformed(format!("there is no merged form {form:?}"));
        Err(larder_formats::MergeFault {
            member: usize::MAX,
            malformed,
        })
    });
    let merged = merged.map_err(|fault| {
        if let Some(input) = inputs.get(fault.member) {
            let name = input.leaf.entry.repository.name.clone();
            let _ = unusable.set((name, fault.malformed.clone()));
        }
        fault.malformed
    })?;
    for (input, links) in inputs.iter().zip(&links) {
        tell_left_out(input.document.wanted(), links.left_out());
    }
    warn_of(inputs, &merged.remarks);
    Ok((merged.derived.body, merged.derived.content_type.to_owned()))
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

//! The answers of a virtual repository: which of its rooms a request is for, and its merged document.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use larder_core::{
    ArtifactPath, ErrorCode, Fault, FaultKind, MemberUrls, Mount, RepositoryName, Source,
    UnixMillis,
};
use larder_formats::{Form, LinkBase, Malformed, Operation};

use super::assembled::Assembled;
use super::given::{self, Given, Leaf};
use super::reading::{MEMBER, Reading, check_rules};
use super::state::{Answering, Virtual};
use super::tree::{Place, take_apart};
use super::{members, merge};
use crate::answer::{Answer, Freshness, HotTicket, Representation};
use crate::causes::warn_once;
use crate::counters::count;
use crate::document::derive::ForClient;
use crate::document::derived::Sendable;
use crate::document::marking::Marking;
use crate::document::named::Named;
use crate::policy::admission::{parts, path_fault};
use crate::policy::clearance::clear_non_artifact;
use crate::repositories::RepositoryState;
use crate::representation::{SKIPPED, vary};
use crate::target::ArtifactRequest;

pub(super) async fn serve(
    engine: &Arc<Virtual>,
    port: &dyn Answering,
    owner: &Arc<RepositoryState>,
    request: &ArtifactRequest<'_>,
) -> Result<Answer, Fault> {
    let repository = &owner.repository;
    let named = |fault: Fault| fault.in_repository(&repository.name);
    let format = owner.format;
    if !matches!(*request.method, Method::GET | Method::HEAD) {
        let message = format!(
            "{} is a virtual repository: it is read with GET and HEAD",
            repository.name
        );
        return Err(named(Fault::new(
            FaultKind::MethodNotAllowed,
            ErrorCode::MethodNotAllowed,
            message,
        )));
    }
    let path = ArtifactPath::parse(request.raw_path, format.profile().path_rules)
        .map_err(|error| named(path_fault(error)))?;
    let (root, leaves) = take_apart(&engine.registry.load(), owner);
    let mut depends_on = vec![engine.dependency_on(owner)];
    depends_on.extend(leaves.iter().map(|leaf| engine.dependency_on(&leaf.entry)));
    let reading = Reading {
        engine,
        port,
        owner,
        format,
        request,
        leaves,
        root,
        depends_on,
    };
    if path.as_str().starts_with(MEMBER) {
        return reading.of_member(&path).await;
    }
    check_rules(owner, path.as_str())?;
    let is_external = format.profile().links_elsewhere && path.as_str().starts_with("_ext/");
    if !is_external
        && let Operation::Read(read) = format.operation(&parts(owner, request, &path))
        && let Form::Derived(form) = read.form
    {
        return reading.merged(form, &path).await;
    }
    reading.file(&path).await
}

impl Reading<'_> {
    /// The merged document at a path.
    async fn merged(&self, form: &'static str, path: &ArtifactPath) -> Result<Answer, Fault> {
        let remembered = [
            self.owner.repository.name.as_str(),
            path.as_str(),
            self.request.query.unwrap_or_default(),
        ]
        .join("\n");
        let registry = &self.engine.registry;
        let base = registry.link_base(self.format, &self.request.mount);
        let marking = (!registry.link_bases_are_known(self.format))
            .then(|| Marking::of(&registry.link_key, self.request.mount.base));
        if let Some(assembled) = &self.holding(&remembered) {
            let named = self.named(assembled, form, &base);
            if let Some(document) = self.made_already(&named, marking.as_ref()).await {
                count(&self.owner.counters.hits);
                let documents = &self.engine.documents;
                let sendable = documents.sendable(&named, document, self.request.headers);
                return Ok(self.answer(assembled, &sendable.await, true));
            }
        }
        let mut given = members::obtain_all(self.engine, &self.leaves, self.request).await;
        // One member whose document cannot be merged is left out, and the others are merged without it: at most once for each.
        for _ in 0..=self.leaves.len() {
            let root = self.standing(&mut given, path.as_str())?;
            let assembled = self.assembled(&given, &root);
            let named = self.named(&assembled, form, &base);
            let unusable = Arc::new(OnceLock::new());
            let made = self.merge(&given, &root, &named, marking.as_ref(), &unusable);
            let document = match (made.await, unusable.get()) {
                (Ok(document), _) => document,
                (Err(fault), Some((member, _))) => {
                    for one in &mut given {
                        if one.leaf.entry.repository.name == *member {
                            one.document = Err(fault.clone().in_repository(member));
                        }
                    }
                    continue;
                }
                (Err(fault), None) => return Err(fault),
            };
            self.tell_skipped(&given);
            let counters = &self.owner.counters;
            count(if assembled.status.hit {
                &counters.hits
            } else {
                &counters.misses
            });
            let documents = &self.engine.documents;
            let sendable = documents.sendable(&named, document, self.request.headers);
            let sendable = sendable.await;
            let assembled = self.remember(remembered, assembled);
            return Ok(self.answer(&assembled, &sendable, false));
        }
        Err(self.none_left(&given))
    }

    fn assembled(&self, given: &[Given], root: &Place) -> Assembled {
        let mut depends_on = self.depends_on.clone();
        // One was given by each member.
        for (one, given) in depends_on.iter_mut().skip(1).zip(given) {
            let document = given.document.as_ref().ok();
            one.used = document.map(|document| self.engine.catalog.used(&document.wanted.key));
        }
        Assembled::new(given, root, depends_on, self.engine.now())
    }

    /// What the last merge was made of, if that still holds.
    fn holding(&self, name: &str) -> Option<Arc<Assembled>> {
        let last = self.engine.assembled.get(name)?;
        let is_of_these_rules = last.rules_epoch == self.owner.repository.rules_epoch;
        (is_of_these_rules && last.is_good(self.engine.now())).then_some(last)
    }

    /// What is served from now on, with its dates.
    fn remember(&self, name: String, assembled: Assembled) -> Arc<Assembled> {
        let all = &self.engine.assembled;
        let assembled = assembled.following(all.get(&name).as_deref(), self.engine.now());
        let assembled = Arc::new(assembled);
        all.insert(name, Arc::clone(&assembled));
        assembled
    }

    /// The base that stands in a merged document for those of all clients, and what that document is named by.
    fn marked(&self, named: &Named, marking: &Marking) -> (LinkBase, Named) {
        let mount = marking.mount(&self.request.mount);
        let base = self.engine.registry.link_base(self.format, &mount);
        let marked = Named {
            link_base: base.0.clone(),
            ..named.clone()
        };
        (base, marked)
    }

    async fn made_already(&self, named: &Named, marking: Option<&Marking>) -> Option<ForClient> {
        let documents = &self.engine.documents;
        let Some(marking) = marking else {
            return documents.derived_already(named).await.map(ForClient::Own);
        };
        let (_, marked) = self.marked(named, marking);
        documents
            .for_client_already(named, &marked, &marking.base)
            .await
    }

    /// The document of what the members gave.
    async fn merge(
        &self,
        given: &[Given],
        root: &Place,
        named: &Named,
        marking: Option<&Marking>,
        unusable: &Arc<OnceLock<(RepositoryName, Malformed)>>,
    ) -> Result<ForClient, Fault> {
        let documents = &self.engine.documents;
        let Some(marking) = marking else {
            let own = LinkBase(named.link_base.clone());
            let base_of = |leaf: &Leaf| self.base_of(leaf, &self.request.mount, &own);
            let make = merge::make(
                self.engine,
                (given, root),
                named.form,
                base_of,
                None,
                unusable,
            );
            return Ok(ForClient::Own(documents.derived(named, make).await?));
        };
        let (base, marked) = self.marked(named, marking);
        let mount = marking.mount(&self.request.mount);
        let base_of = |leaf: &Leaf| self.base_of(leaf, &mount, &base);
        let marked_with = Some(marking.clone());
        let make = merge::make(
            self.engine,
            (given, root),
            named.form,
            base_of,
            marked_with,
            unusable,
        );
        documents
            .for_client(named, &marked, &marking.base, make)
            .await
    }

    fn named(&self, assembled: &Assembled, form: &'static str, base: &LinkBase) -> Named {
        // What hides something for a time is not kept over a restart.
        let persist = self.engine.registry.link_bases_are_known(self.format)
            && !assembled.visibility.is_timed();
        let repository = &self.owner.repository;
        assembled.named(
            &repository.name,
            repository.rules_epoch,
            self.format,
            form,
            base,
            persist,
        )
    }

    /// Where the links of a member begin in the merged document, for a client that sees it at `mount` and whose links begin with `own`.
    fn base_of(&self, leaf: &Leaf, mount: &Mount<'_>, own: &LinkBase) -> LinkBase {
        let settings = self.owner.repository.virtual_settings();
        match settings.map_or(MemberUrls::Member, |settings| settings.member_urls) {
            MemberUrls::Member => self
                .engine
                .registry
                .link_base(self.format, &given::mount_of(leaf, mount)),
            MemberUrls::Virtual => LinkBase(format!(
                "{}{MEMBER}{}/",
                own.as_str(),
                leaf.entry.repository.name
            )),
        }
    }

    /// Says once for each cause which members are not in the merged document.
    fn tell_skipped(&self, given: &[Given]) {
        for one in given {
            let Err(fault) = &one.document else {
                continue;
            };
            let owner = self.owner.repository.name.as_str();
            count(&one.leaf.entry.counters.members_skipped);
            let told = Told {
                entry: &one.leaf.entry,
                key: fault.code.as_str(),
            };
            warn_once!(
                told,
                fault.code.as_str(),
                "a member is not in a virtual repository's index: it has none to give",
                owner = owner,
                reason = fault.message.as_str()
            );
        }
    }

    fn answer(&self, assembled: &Assembled, sendable: &Sendable, is_hit: bool) -> Answer {
        let now = self.engine.now();
        assembled.touch(now);
        let by_host = self.engine.registry.links_depend_on_host(self.format);
        let mut representation = Representation {
            last_modified: assembled.last_modified(now),
            served_since: Some(assembled.served_since),
            vary: vary(&[], true, by_host),
            ..Representation::default()
        };
        sendable.describe(&mut representation);
        if !assembled.skipped.is_empty()
            && let Ok(names) = HeaderValue::from_str(&assembled.skipped.join(","))
        {
            representation.extra.insert(SKIPPED, names);
        }
        let is_good = assembled.is_good(now);
        let hot = (is_good && sendable.lasts())
            .then(|| ticket(assembled, now))
            .flatten();
        Answer {
            status: StatusCode::OK,
            representation,
            body: clear_non_artifact(sendable.body()),
            cache_status: if is_hit {
                assembled.status_of_hit(now)
            } else {
                assembled.status
            },
            source: if is_hit {
                Source::Cache
            } else {
                assembled.source
            },
            freshness: Freshness {
                contacted_at: assembled.contacted_at,
                remaining: Some(
                    assembled
                        .fresh_until
                        .map_or(Duration::ZERO, |until| until.since(now)),
                ),
                no_store: false,
            },
            location: None,
            hot,
            reading: None,
        }
    }
}

/// For `warn_once!`, which says of what it warns.
struct Told<'a> {
    entry: &'a RepositoryState,
    key: &'static str,
}

fn ticket(assembled: &Assembled, now: UnixMillis) -> Option<HotTicket> {
    let (first, members) = assembled.depends_on.split_first()?;
    let settled = assembled.is_settled_at();
    Some(HotTicket {
        epoch: Arc::clone(&first.epoch),
        epoch_value: first.epoch_value,
        others: members.to_vec(),
        fresh_until: assembled.fresh_until,
        // An answer without its date is given until the date may be told.
        whose_until: (now < settled).then_some(settled),
        contacted_at: assembled.contacted_at,
        for_anyone: true,
        held: None,
        used: None,
    })
}

//! From a request to an [`Answer`]: admit, obtain, clear, answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::{Method, StatusCode};
use larder_core::{
    ArtifactRecord, CacheStatus, Clock, Content, Decision, Fault, Source, UnixMillis, decide,
};
use larder_formats::{Form, Operation};
use larder_storage::{BlobStore, GrowingBody};

use crate::answer::{Answer, Body, HeldBlob, not_held};
use crate::catalog::{Catalog, Epoch, NotHeld, Reading, Use};
use crate::counters::count;
use crate::decided;
use crate::document::Documents;
use crate::document::named::Named;
use crate::document::{derive::ForClient, marking::Marking};
use crate::fault::{internal, refused, storage_fault};
use crate::origin::local::{self, Local};
use crate::origin::remote::Remote;
use crate::origin::remote::patience::Waited;
use crate::origin::virtual_::{self, Answering, Virtual};
use crate::origin::{Held, Need, Origin};
use crate::policy::admission::{self, Admission, Admitted};
use crate::policy::clearance::{Cleared, clear, clear_non_artifact};
use crate::policy::ruling::{Facts, dates_of};
use crate::policy::visibility::Visibility;
use crate::presign::redirected;
use crate::repositories::{Registry, RepositoryState};
use crate::representation::{freshness, passing_folder_on, plain, representation, ticket, vary};
use crate::target::{ArtifactRequest, Target};
use crate::transfer::fill::Fill;
use crate::transfer::flight::Settled;
use crate::transfer::flights::Flights;

/// What is needed to answer a request.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) registry: Arc<Registry>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) documents: Arc<Documents>,
    pub(crate) remote: Arc<Remote>,
    pub(crate) blobs: Arc<dyn BlobStore>,
    pub(crate) local: Arc<Local>,
    pub(crate) virtuals: Arc<Virtual>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Answering for Pipeline {
    fn answer_member<'a>(
        &'a self,
        request: ArtifactRequest<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, Fault>> + Send + 'a>> {
        Box::pin(self.answer(request))
    }
}

impl Pipeline {
    fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    pub(crate) async fn answer(&self, request: ArtifactRequest<'_>) -> Result<Answer, Fault> {
        if let Some(owner) = virtual_::of(&self.virtuals, &request) {
            return Box::pin(virtual_::serve(&self.virtuals, self, &owner, &request)).await;
        }
        match admission::admit(&self.registry, &request)? {
            Admission::Read(admitted) => {
                let answered = self.read(&admitted, &request).await;
                self.catalog
                    .note_asked(&admitted.wanted().key, not_held(&answered));
                answered
            }
            Admission::Local(entry) if !matches!(*request.method, Method::GET | Method::HEAD) => {
                Err(local::other_method(&entry))
            }
            Admission::Local(entry) => local::read(&self.local, &entry, &request).await,
            Admission::PassThrough { wanted, pass } => {
                self.catalog
                    .note_asked(&wanted.key, Some(NotHeld::PassedThrough));
                self.remote.pass_through(&wanted, &pass, &request).await
            }
            Admission::Other { entry, operation } => self.serve_other(&entry, operation, &request),
        }
    }

    /// Answers what has been admitted. It is not noted as asked for: jobs ask, too, and are no clients.
    pub(crate) async fn read(
        &self,
        admitted: &Admitted,
        request: &ArtifactRequest<'_>,
    ) -> Result<Answer, Fault> {
        let answered = match admitted.form() {
            Form::Verbatim => self.serve_verbatim(admitted, request).await,
            Form::Derived(form) => self.serve_derived(admitted, form, request).await,
        };
        let Target { key, facts, .. } = &**admitted.wanted();
        answered.map_err(|fault| fault.about(key).missing_as(facts.missing_code))
    }

    fn serve_other(
        &self,
        entry: &Arc<RepositoryState>,
        operation: Operation,
        request: &ArtifactRequest<'_>,
    ) -> Result<Answer, Fault> {
        match operation {
            Operation::Redirect(to) => {
                let location = self.registry.location(&to, &request.mount);
                Ok(Answer {
                    location: Some(location),
                    ..plain(
                        StatusCode::MOVED_PERMANENTLY,
                        Body::Empty,
                        Some(0),
                        self.now(),
                    )
                })
            }
            Operation::Answer(answer) => {
                let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
                let length = Some(answer.body.len() as u64);
                let mut made = plain(status, Body::Memory(answer.body), length, self.now());
                made.representation.content_type = Some(answer.content_type.to_owned());
                Ok(made)
            }
            Operation::Refuse(refusal) => Err(refused(&entry.repository.name, refusal)),
            Operation::Read(_) | Operation::PassThrough(_) => {
                Err(internal("what asks the upstream was not admitted"))
            }
        }
    }

    /// A document whose links begin with what this client calls larder.
    async fn for_client(
        &self,
        wanted: &Arc<Target>,
        settled: &Settled,
        own: &Named,
        request: &ArtifactRequest<'_>,
    ) -> Result<ForClient, Fault> {
        let client_base = request.mount.base;
        let marking = Marking::of(&self.registry.link_key, client_base);
        let base = self
            .registry
            .link_base(wanted.format, &marking.mount(&request.mount));
        let marked = Named {
            link_base: base.0.clone(),
            ..own.clone()
        };
        let documents = &self.documents;
        let make = documents.derive_document(wanted, settled, base, own.form, Some(marking));
        documents.for_client(own, &marked, client_base, make).await
    }

    /// A document in the form that the client wants, links leading back to larder.
    pub(crate) async fn serve_derived(
        &self,
        admitted: &Admitted,
        form: &'static str,
        request: &ArtifactRequest<'_>,
    ) -> Result<Answer, Fault> {
        let wanted = admitted.wanted();
        let epoch = self.catalog.epoch(&wanted.entry);
        let settled = self.remote.document(wanted, need(admitted)).await?;
        let by_host = self.registry.links_depend_on_host(wanted.format);
        let link_base = self.registry.link_base(wanted.format, &request.mount);
        let persist = self.registry.link_bases_are_known(wanted.format) && !admitted.bypass_cache();
        // Of what a document of one repository lists, nothing is hidden yet.
        let visibility = Visibility::default();
        let named = Named::of_document(
            wanted,
            &settled.record,
            &link_base,
            form,
            &visibility,
            persist,
        )?;
        let identity = if self.registry.link_bases_are_known(wanted.format) {
            let make = self
                .documents
                .derive_document(wanted, &settled, link_base, form, None);
            ForClient::Own(self.documents.derived(&named, make).await?)
        } else {
            self.for_client(wanted, &settled, &named, request).await?
        };
        let sendable = self
            .documents
            .sendable(&named, identity, request.headers)
            .await;
        let record = &settled.record;
        let mut representation = representation(wanted, &record.headers, None, None, None);
        sendable.describe(&mut representation);
        representation.served_since = Some(record.served_since);
        representation.vary = vary(wanted.facts.vary, true, by_host);
        let lasting = settled.reusable && sendable.lasts() && !admitted.bypass_cache();
        let used = self.catalog.used(&wanted.key);
        let mut hot = lasting
            .then(|| ticket(wanted, record, epoch, &visibility, self.now()))
            .flatten();
        if let Some(hot) = &mut hot {
            hot.used = Some(Arc::clone(&used));
        }
        Ok(Answer {
            status: StatusCode::OK,
            representation,
            body: clear_non_artifact(sendable.body()),
            cache_status: settled.status,
            source: settled.source,
            freshness: freshness(record, wanted, settled.reusable, &visibility, self.now()),
            location: None,
            hot,
            reading: Reading::counted(&used),
        })
    }

    /// A file, or a document that is served as it came.
    pub(crate) async fn serve_verbatim(
        &self,
        admitted: &Admitted,
        request: &ArtifactRequest<'_>,
    ) -> Result<Answer, Fault> {
        let wanted = admitted.wanted();
        let epoch = self.catalog.epoch(&wanted.entry);
        self.clear_subject(admitted).await?;
        self.clear_known(admitted).await?;
        let vary = vary(wanted.facts.vary, false, false);
        if request.method == Method::HEAD && !self.is_at_hand(wanted).await? {
            decided::tell(
                self.now(),
                wanted,
                None,
                "forward",
                "a HEAD of what is not held",
            );
            match self.remote.head_or_copy(admitted, request).await {
                Waited::Ready(Ok(Some(answer))) => return Ok(answer),
                Waited::Ready(Ok(None)) => {}
                Waited::Overdue(copy) => {
                    return self.answer_settled(admitted, copy, epoch, vary, request);
                }
                Waited::Ready(Err(fault)) => {
                    let settled = self.remote.copies.lent_instead(wanted, fault).await?;
                    return self.answer_settled(admitted, settled, epoch, vary, request);
                }
            }
        }
        let obtained = self.remote.file(wanted, need(admitted)).await?;
        match obtained {
            Held::Whole(settled) => {
                let record = Arc::clone(&settled.record);
                let answer = self.answer_settled(admitted, settled, epoch, vary, request)?;
                Ok(self.redirected(admitted, &record, request, answer).await)
            }
            Held::InFlight(fill, body, cache_status) => {
                let arriving = (&*fill, body, cache_status);
                self.answer_in_flight(admitted, arriving, vary, request)
            }
        }
    }

    fn answer_in_flight(
        &self,
        admitted: &Admitted,
        (fill, body, cache_status): (&Fill, GrowingBody, CacheStatus),
        vary: &'static [&'static str],
        request: &ArtifactRequest<'_>,
    ) -> Result<Answer, Fault> {
        let (wanted, draft) = (admitted.wanted(), &fill.draft);
        let mut representation = representation(wanted, &draft.headers, None, None, fill.total());
        representation.served_since = Some(draft.served_since);
        representation.vary = vary;
        let all = Visibility::default();
        let freshness = freshness(draft, wanted, fill.will_be_kept(), &all, self.now());
        let body = self.clear_artifact(admitted, draft, fill.total(), Body::Growing(body))?;
        let answer = Answer {
            status: StatusCode::OK,
            representation,
            body,
            cache_status,
            source: Source::Remote,
            freshness,
            location: None,
            hot: None,
            reading: self.reading(wanted).1,
        };
        Ok(passing_folder_on(
            &self.registry,
            &draft.headers,
            request,
            answer,
            self.now(),
        ))
    }

    /// The answer, or a redirect to where the object store has these bytes.
    async fn redirected(
        &self,
        admitted: &Admitted,
        record: &ArtifactRecord,
        request: &ArtifactRequest<'_>,
        answer: Answer,
    ) -> Answer {
        let wanted = admitted.wanted();
        let is_file = !wanted.spec.is_document && !wanted.is_member();
        let lasts = is_file && !wanted.class_of(record).is_mutable();
        let blob = record.blob().filter(|_| lasts);
        let repository = &wanted.entry.repository;
        redirected(&*self.blobs, repository, blob, request, answer, self.now()).await
    }

    fn answer_settled(
        &self,
        admitted: &Admitted,
        settled: Settled,
        epoch: Epoch,
        vary: &'static [&'static str],
        request: &ArtifactRequest<'_>,
    ) -> Result<Answer, Fault> {
        let wanted = admitted.wanted();
        let Settled {
            record,
            body,
            status,
            source,
            reusable,
            document: _,
        } = settled;
        let untagged = record.blob().filter(|_| record.headers.etag.is_none());
        let digest_tag = untagged.map(|blob| format!("\"sha256-{}\"", blob.digest.to_hex()));
        let length = record.blob().map(|blob| blob.size);
        let digest = record.blob().map(|blob| &blob.digest);
        let mut representation =
            representation(wanted, &record.headers, digest, digest_tag, length);
        representation.served_since = Some(record.served_since);
        representation.vary = vary;
        let is_stored = matches!(body, Body::File { .. });
        let body = self.clear_artifact(admitted, &record, length, body)?;
        let checked = record.verified || !admission::may_be_named(wanted);
        // Whoever reads a file of a generation is to be known of.
        let lasting = reusable && checked && !admitted.bypass_cache() && !wanted.is_member();
        // What has been cleared stays clear.
        let all = Visibility::default();
        let mut hot = lasting
            .then(|| ticket(wanted, &record, epoch, &all, self.now()))
            .flatten();
        let (used, reading) = self.reading(wanted);
        if let Some(hot) = &mut hot {
            hot.used = Some(Arc::clone(&used));
        }
        if let Some(hot) = hot.as_mut().filter(|_| is_stored) {
            hot.held = HeldBlob::of(&record, &wanted.entry.counters);
        }
        let freshness = freshness(&record, wanted, reusable, &all, self.now());
        let answer = Answer {
            status: StatusCode::OK,
            representation,
            body,
            cache_status: status,
            source,
            freshness,
            location: None,
            hot,
            reading,
        };
        Ok(passing_folder_on(
            &self.registry,
            &record.headers,
            request,
            answer,
            self.now(),
        ))
    }

    /// The use of what an answer is made from, and what keeps its bytes from being evicted until they are sent.
    fn reading(&self, wanted: &Target) -> (Arc<Use>, Option<Reading>) {
        let used = self.catalog.used(&wanted.key);
        let reading = Reading::counted(&used);
        (used, reading)
    }

    /// Clears an artifact's own bytes; a sidecar's clearance is its subject's, which has been asked before.
    fn clear_artifact<T>(
        &self,
        admitted: &Admitted,
        record: &ArtifactRecord,
        length: Option<u64>,
        body: T,
    ) -> Result<Cleared<T>, Fault> {
        if admitted.subject().is_some() {
            return Ok(clear_non_artifact(body));
        }
        self.clear_record(admitted.wanted(), record, length, body)
    }

    fn clear_record<T>(
        &self,
        wanted: &Target,
        record: &ArtifactRecord,
        length: Option<u64>,
        what: T,
    ) -> Result<Cleared<T>, Fault> {
        let class = wanted.judged(record, length)?;
        let facts = Facts {
            dates: dates_of(wanted, record),
            now: self.now(),
        };
        clear(&wanted.entry.repository, class, &facts, what)
            .inspect_err(|_| count(&wanted.entry.counters.quarantined))
    }

    /// What quarantine says from what is remembered: a held artifact is refused without asking the upstream again.
    async fn clear_known(&self, admitted: &Admitted) -> Result<(), Fault> {
        let wanted = admitted.wanted();
        if wanted.entry.repository.quarantine.hold.is_none()
            || wanted.class.is_mutable()
            || admitted.subject().is_some()
        {
            return Ok(());
        }
        match self
            .catalog
            .record(&wanted.key)
            .await
            .map_err(|error| storage_fault(&wanted.entry, &error))?
        {
            Some(record) if !matches!(record.content, Content::Negative { .. }) => {
                self.clear_record(wanted, &record, None, ()).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// A sidecar is cleared by its subject's date.
    async fn clear_subject(&self, admitted: &Admitted) -> Result<(), Fault> {
        let Some(subject) = admitted.subject() else {
            return Ok(());
        };
        if subject.entry.repository.quarantine.hold.is_none() || subject.class.is_mutable() {
            return Ok(());
        }
        let known = self
            .catalog
            .record(&subject.key)
            .await
            .map_err(|error| storage_fault(&subject.entry, &error))?;
        let record =
            match known.filter(|record| !matches!(record.content, Content::Negative { .. })) {
                Some(record) => record,
                None => self.remote.first_contact(subject).await?,
            };
        self.clear_record(subject, &record, None, ()).map(drop)
    }

    /// Whether a GET would be answered from what is held or running.
    async fn is_at_hand(&self, wanted: &Arc<Target>) -> Result<bool, Fault> {
        if wanted.spec.is_document || self.flights.running(&wanted.key).is_some() {
            return Ok(true);
        }
        if self.documents.absence(wanted).await.is_some() {
            return Ok(true);
        }
        let record = self
            .catalog
            .record(&wanted.key)
            .await
            .map_err(|error| storage_fault(&wanted.entry, &error))?;
        if let Some(pointer) = record
            .as_deref()
            .filter(|record| matches!(record.content, Content::Pointer(_)))
        {
            let held = self.remote.copies.follow_pointer(wanted, pointer).await;
            return Ok(held.is_some());
        }
        let class = record
            .as_deref()
            .map_or(wanted.class, |record| wanted.class_of(record));
        let decision = decide(
            record.as_deref(),
            class,
            &wanted.entry.repository.cache,
            self.now(),
        );
        Ok(decision != Decision::Fetch { expired: false })
    }
}

/// How much a request wants to be found out.
fn need(admitted: &Admitted) -> Need {
    if admitted.bypass_cache() {
        Need::Anew
    } else {
        Need::Usual
    }
}

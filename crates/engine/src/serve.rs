//! Step 7: from what was obtained to an [`Answer`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, StatusCode, header};
use larder_core::{
    ArtifactRecord, CacheStatus, Content, Decision, Digest, ErrorCode, Fault, FaultKind, Source,
    StoredHeaders, decide, field_text, fresh_until,
};
use larder_formats::{Held, Malformed};
use larder_storage::StorageError;
use larder_upstream::in_request;

use crate::admission::{Admitted, Wanted};
use crate::answer::{Answer, Body, Freshness, HotTicket, Representation};
use crate::clearance::{Cleared, Dates, clear, clear_non_artifact};
use crate::counters::count;
use crate::engine::{ArtifactRequest, Engine};
use crate::flight::{Settled, SettledBody};
use crate::obtain::Obtained;
use crate::reader::FlightBody;
use crate::repositories::Entry;

impl Engine {
    /// A file, or a document that is served as it came.
    pub(crate) async fn serve_verbatim(
        self: &Arc<Self>,
        admitted: &Admitted,
        request: &ArtifactRequest<'_>,
    ) -> Result<Answer, Fault> {
        let wanted = admitted.wanted();
        let epoch = wanted.entry.epoch.load(Ordering::Acquire);
        self.clear_subject(admitted).await?;
        self.clear_known(admitted).await?;
        let vary = vary(wanted.format.varies_by(&wanted.spec.key_path), false, false);
        if request.method == Method::HEAD && !self.is_at_hand(wanted).await? {
            self.tell(wanted, None, "forward", "a HEAD of what is not held");
            match self.forward_head(admitted, request).await {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                Err(fault) => {
                    let settled = self.lent_instead(wanted, fault).await?;
                    return self.answer_settled(admitted, settled, epoch, vary, request);
                }
            }
        }
        let obtained = self.obtain(wanted, false, admitted.bypass_cache()).await?;
        match obtained {
            Obtained::Held(settled) => self.answer_settled(admitted, settled, epoch, vary, request),
            Obtained::InFlight(attached, cache_status) => {
                let fill = Arc::clone(attached.fill());
                let draft = &fill.draft;
                let mut representation =
                    representation(wanted, &draft.headers, None, None, fill.total);
                representation.began_at = Some(draft.began_at);
                representation.vary = vary;
                let freshness = self.freshness(draft, wanted, !fill.will_be_kept);
                let body = self.clear_artifact(
                    admitted,
                    draft,
                    fill.total,
                    Body::InFlight(FlightBody::new(attached)),
                )?;
                let answer = Answer {
                    status: StatusCode::OK,
                    representation,
                    body,
                    cache_status,
                    source: Source::Remote,
                    freshness,
                    location: None,
                    hot: None,
                };
                Ok(self.passing_folder_on(wanted, &draft.headers, request, answer))
            }
        }
    }

    fn answer_settled(
        &self,
        admitted: &Admitted,
        settled: Settled,
        epoch: u64,
        vary: &'static [&'static str],
        request: &ArtifactRequest<'_>,
    ) -> Result<Answer, Fault> {
        let wanted = admitted.wanted();
        let Settled {
            record,
            body,
            status,
            source,
            for_once,
            document: _,
        } = settled;
        let tag_of_digest = || {
            record
                .blob()
                .map(|blob| format!("\"sha256-{}\"", blob.digest.to_hex()))
        };
        let digest_tag = if record.headers.etag.is_none() {
            tag_of_digest()
        } else {
            None
        };
        let length = record.blob().map(|blob| blob.size);
        let digest = record.blob().map(|blob| &blob.digest);
        let mut representation =
            representation(wanted, &record.headers, digest, digest_tag, length);
        representation.began_at = Some(record.began_at);
        representation.vary = vary;
        let body = match body {
            SettledBody::Blob(open) => Body::File {
                file: open.file,
                length: open.length,
            },
            SettledBody::Fill(fill) => Body::InFlight(FlightBody::new(fill.attach(0))),
        };
        let body = self.clear_artifact(admitted, &record, length, body)?;
        let checked = record.verified
            || wanted
                .format
                .named_by(&wanted.entry.repository, &wanted.spec.key_path)
                .is_none();
        // Whoever reads a file of a generation is to be known of.
        let lasting =
            !for_once && checked && !admitted.bypass_cache() && wanted.member_of().is_none();
        let hot = lasting
            .then(|| self.ticket(wanted, &record, epoch))
            .flatten();
        let freshness = self.freshness(&record, wanted, for_once);
        let answer = Answer {
            status: StatusCode::OK,
            representation,
            body,
            cache_status: status,
            source,
            freshness,
            location: None,
            hot,
        };
        Ok(self.passing_folder_on(wanted, &record.headers, request, answer))
    }

    /// What an answer made from this record may be remembered by.
    pub(crate) fn ticket(
        &self,
        wanted: &Wanted,
        record: &ArtifactRecord,
        epoch_value: u64,
    ) -> Option<HotTicket> {
        let until = fresh_until(
            record,
            wanted.class_of(record),
            &wanted.entry.repository.cache,
        );
        if until.is_some_and(|until| until <= self.now()) {
            return None;
        }
        Some(HotTicket {
            epoch: Arc::clone(&wanted.entry.epoch),
            epoch_value,
            others: Vec::new(),
            fresh_until: until,
            contacted_at: record.contacted_at,
        })
    }

    pub(crate) fn freshness(
        &self,
        record: &ArtifactRecord,
        wanted: &Wanted,
        for_once: bool,
    ) -> Freshness {
        let now = self.now();
        let remaining = fresh_until(
            record,
            wanted.class_of(record),
            &wanted.entry.repository.cache,
        )
        .map(|until| until.since(now));
        let remaining = if for_once {
            Some(Duration::ZERO)
        } else {
            remaining
        };
        Freshness {
            contacted_at: record.contacted_at,
            remaining,
            no_store: false,
        }
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
        wanted: &Wanted,
        record: &ArtifactRecord,
        length: Option<u64>,
        what: T,
    ) -> Result<Cleared<T>, Fault> {
        let class = wanted.judged(record, length)?;
        let dates = Dates {
            published_at: record.published_at,
            first_seen_at: record.first_seen_at,
        };
        clear(&wanted.entry.repository, class, dates, self.now(), what)
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
            .records
            .get(&wanted.key)
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
    async fn clear_subject(self: &Arc<Self>, admitted: &Admitted) -> Result<(), Fault> {
        let Some(subject) = admitted.subject() else {
            return Ok(());
        };
        if subject.entry.repository.quarantine.hold.is_none() || subject.class.is_mutable() {
            return Ok(());
        }
        let known = self
            .records
            .get(&subject.key)
            .await
            .map_err(|error| storage_fault(&subject.entry, &error))?;
        let record =
            match known.filter(|record| !matches!(record.content, Content::Negative { .. })) {
                Some(record) => record,
                None => self.first_contact(subject).await?,
            };
        self.clear_record(subject, &record, None, ()).map(drop)
    }

    /// Whether a GET would be answered from what is held or running.
    async fn is_at_hand(self: &Arc<Self>, wanted: &Arc<Wanted>) -> Result<bool, Fault> {
        if wanted.spec.is_document || self.flights.running(&wanted.key).is_some() {
            return Ok(true);
        }
        if self.absence(wanted).await.is_some() {
            return Ok(true);
        }
        let record = self
            .records
            .get(&wanted.key)
            .await
            .map_err(|error| storage_fault(&wanted.entry, &error))?;
        if let Some(pointer) = record
            .as_deref()
            .filter(|record| matches!(record.content, Content::Pointer(_)))
        {
            return Ok(self.follow_pointer(wanted, pointer).await.is_some());
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

/// A representation's headers from those that were kept.
pub(crate) fn representation(
    wanted: &Wanted,
    headers: &StoredHeaders,
    digest: Option<&Digest>,
    fallback_tag: Option<String>,
    length: Option<u64>,
) -> Representation {
    let held = Held {
        path: &wanted.spec.key_path,
        digest,
        headers,
        key: &wanted.entry.link_key,
    };
    let mut extra = wanted
        .format
        .answer_headers(&wanted.entry.repository, &held);
    let own_type = extra
        .remove(header::CONTENT_TYPE)
        .map(|value| field_text(&value).into_owned());
    Representation {
        content_type: own_type.or_else(|| headers.content_type.clone()),
        content_encoding: headers.content_encoding.clone(),
        content_disposition: headers.content_disposition.clone(),
        content_language: headers.content_language.clone(),
        etag: headers.etag.clone().or(fallback_tag),
        last_modified: headers.last_modified.clone(),
        began_at: None,
        length,
        vary: &[],
        extra,
    }
}

/// The names that choose between representations. `host` tells the hot set only; it is never sent.
pub(crate) fn vary(
    by_format: &'static [&'static str],
    by_coding: bool,
    by_host: bool,
) -> &'static [&'static str] {
    match (!by_format.is_empty(), by_coding, by_host) {
        (false, false, false) => &[],
        (true, false, false) => &["accept"],
        (false, true, false) => &["accept-encoding"],
        (false, false, true) => &["host"],
        (true, true, false) => &["accept", "accept-encoding"],
        (true, false, true) => &["accept", "host"],
        (false, true, true) => &["accept-encoding", "host"],
        (true, true, true) => &["accept", "accept-encoding", "host"],
    }
}

/// `offline: true` and nothing held.
pub(crate) fn offline(wanted: &Wanted) -> Fault {
    let message = format!(
        "repository {} is offline and does not hold {}; set offline: false to let larder ask the upstream",
        wanted.entry.repository.name,
        larder_core::shown(&wanted.spec.key_path)
    );
    Fault::new(FaultKind::BadGateway, ErrorCode::Offline, message)
        .in_repository(&wanted.entry.repository.name)
        .by_rule("offline")
        .briefly(format!(
            "repository {} is offline and does not hold this",
            wanted.entry.repository.name
        ))
}

/// Storage did not do what was asked: the gate stays closed. Said once a minute for each repository: every request meets it.
pub(crate) fn storage_fault(entry: &Entry, error: &StorageError) -> Fault {
    let repository = &entry.repository.name;
    in_request(|| {
        if let Some(times) = entry.learnt.causes.trouble_due("storage") {
            tracing::error!(%repository, %error, times, "storage failed");
        } else {
            tracing::debug!(%repository, %error, "storage failed again");
        }
    });
    let message =
        "larder's own storage did not answer; ask again in a moment (/health and the log say more)";
    Fault::new(
        FaultKind::Unavailable,
        ErrorCode::StorageUnavailable,
        message,
    )
    .in_repository(&entry.repository.name)
    .retry_after(Some(Duration::from_secs(2)))
}

/// A document that passed its check but cannot be derived from.
pub(crate) fn malformed(wanted: &Wanted, error: &Malformed) -> Fault {
    count(&wanted.entry.counters.malformed_documents);
    let path = larder_core::shown(&wanted.spec.key_path);
    let name = &wanted.entry.repository.name;
    let message = format!("the document {path} of repository {name} cannot be used: {error}");
    Fault::new(FaultKind::BadGateway, ErrorCode::MalformedDocument, message)
        .briefly(format!("a document of repository {name} cannot be used"))
        .in_repository(&wanted.entry.repository.name)
        .by_rule("upstream")
}

/// A fault of larder's own.
pub(crate) fn internal(message: &str) -> Fault {
    Fault::new(FaultKind::Internal, ErrorCode::Internal, message)
}

/// The status of an answer that nothing was cached for.
pub(crate) fn forwarded_status(reason: larder_core::ForwardReason, status: u16) -> CacheStatus {
    CacheStatus {
        forward: Some(reason),
        forward_status: Some(status),
        ..CacheStatus::default()
    }
}

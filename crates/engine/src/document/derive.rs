//! Rewritten documents and their compressed forms: pure functions of what they are made from, made once, kept, never invalidated.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderMap, header};
use larder_core::{BlobDescriptor, DigestAlgorithm, Fault};
use larder_formats::{LeftOut, LinkBase, Links, Pieces};
use larder_storage::{Body, Change, DerivedRecord, SealedSpool, Spool};

use crate::counters::count;
use crate::document::coding::Coding;
use crate::document::derived::{Coded, DerivedBody, Keeping, Sendable, tag};
use crate::document::load::DocumentSource;
use crate::document::marking::{self, Bases, Marking};
use crate::document::named::Named;
use crate::document::{Documents, coding};
use crate::fault::{internal, malformed};
use crate::target::Target;
use crate::transfer::flight::Settled;
use crate::transfer::spliced::SplicedBody;

/// Longer ones are written to a file before anybody gets them, in bytes.
const LONGEST_IN_MEMORY: usize = 1 << 20;
/// Documents below this are not worth compressing.
const SMALLEST_CODED: u64 = 1 << 10;
/// Documents up to this length are compressed while the client waits: that takes a few milliseconds, and each request gets the same form.
const CODED_AT_ONCE: u64 = 128 << 10;

/// A new derivation, with its `Content-Type`.
#[derive(Debug)]
pub(crate) enum Made {
    Bytes(Vec<u8>, Option<Bases>, String),
    /// In a file of this length.
    File(Spool, u64, Option<Bases>, String),
}

/// A document for one client, not compressed.
#[derive(Debug)]
pub(crate) enum ForClient {
    /// Kept as it is sent.
    Own(Arc<DerivedBody>),
    /// Put together while it is sent; with its `Content-Type` and tag.
    Spliced(SplicedBody, String, String),
}

impl Documents {
    /// One document in the form that a client wants, links leading back to larder.
    pub(crate) async fn derive_document(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        settled: &Settled,
        base: LinkBase,
        form: &'static str,
        marking: Option<Marking>,
    ) -> Result<Made, Fault> {
        let source = DocumentSource::settled(wanted, settled);
        let documents = Arc::clone(self);
        let bytes = source.length();
        let derived = self.parse_blocking(&wanted.entry.repository.name, bytes, move || {
            let document = source.load_to_derive()?;
            let wanted = Arc::clone(document.wanted());
            let query = wanted.spec.query.as_deref();
            let links =
                Links::new(&wanted.entry.repository, &documents.link_key, base).asked_with(query);
            let rewritten = wanted
                .format
                .rewrite(&document.view(), form, &links)
                .map_err(|error| malformed(&wanted, &error))?;
            tell_left_out(&wanted, links.left_out());
            let content_type = rewritten.content_type.to_owned();
            Ok::<_, Fault>(documents.made(rewritten.body, content_type, marking.as_ref()))
        });
        derived.await?
    }

    /// What was derived, on a thread that may wait and has a parser's place: a long one is put together in a file, and is there before
    /// that place is free. Many in memory at once would fill it.
    pub(crate) fn made(
        &self,
        body: Pieces<'_>,
        content_type: String,
        marking: Option<&Marking>,
    ) -> Made {
        let spool = (body.length() > LONGEST_IN_MEMORY)
            .then(|| self.transfers.new_spool())
            .flatten();
        // A disk that has no room leaves it in memory.
        if let Some(mut spool) = spool
            && let Ok((length, bases)) = marking::write(&body, marking, |part| spool.append(part))
        {
            return Made::File(spool, length, bases, content_type);
        }
        if marking.is_none() {
            return Made::Bytes(body.into_bytes(), None, content_type);
        }
        let mut whole = Vec::with_capacity(body.length());
        let sink = |part: &[u8]| {
            whole.extend_from_slice(part);
            Ok::<_, Infallible>(())
        };
        let Ok((_, bases)) = marking::write(&body, marking, sink);
        Made::Bytes(whole, bases, content_type)
    }

    /// A document whose links begin with what this client calls larder: derived once for all clients, as `marked` by `make`. Who uses a
    /// name that is really used gets a document of its own, `own`, which is kept and compressed like any other.
    pub(crate) async fn for_client(
        self: &Arc<Self>,
        own: &Named,
        marked: &Named,
        client_base: &str,
        make: impl Future<Output = Result<Made, Fault>>,
    ) -> Result<ForClient, Fault> {
        let key = own.key(Coding::Identity);
        let is_familiar = self.familiar_bases.admit(client_base, self.now());
        if is_familiar && let Some(body) = self.derivations.get(&key) {
            return Ok(ForClient::Own(body));
        }
        let body = self.derived(marked, make).await?;
        let content_type = body.content_type.clone();
        if !is_familiar {
            let spliced = body.spliced(client_base);
            return Ok(ForClient::Spliced(spliced, content_type, tag(&key)));
        }
        let make = self.own_of(own, &key, &body, client_base);
        let kept = self.derivations.0.get_or_insert_async(&key, make).await?;
        Ok(ForClient::Own(kept))
    }

    /// The same, of what is made already.
    pub(crate) async fn for_client_already(
        self: &Arc<Self>,
        own: &Named,
        marked: &Named,
        client_base: &str,
    ) -> Option<ForClient> {
        if self
            .derivations
            .get(&marked.key(Coding::Identity))
            .is_none()
            && self.derivations.get(&own.key(Coding::Identity)).is_none()
        {
            return None;
        }
        // Should it be forgotten just now, it is as if it had not been there.
        let make = async { Err(internal("a derivation is gone")) };
        self.for_client(own, marked, client_base, make).await.ok()
    }

    /// What one client gets of `body`, which is written for whoever asked first. Who that was gets the same file.
    async fn own_of(
        self: &Arc<Self>,
        own: &Named,
        key: &str,
        body: &DerivedBody,
        client_base: &str,
    ) -> Result<Arc<DerivedBody>, Fault> {
        let is_as_written = body
            .bases
            .as_ref()
            .is_some_and(|bases| &*bases.base == client_base);
        let content_type = body.content_type.clone();
        let bytes = match &body.body {
            Body::Memory(bytes) if is_as_written => bytes.clone(),
            lasting if is_as_written => {
                let (lasting, keeping) = (lasting.clone(), body.keeping);
                let own = DerivedBody::new(lasting, keeping, content_type, key, None);
                return Ok(Arc::new(own));
            }
            _ => {
                let spliced = body.spliced(client_base);
                let bytes = spliced.length();
                let whole = self
                    .parse_blocking(&own.repository, bytes, move || spliced.whole())
                    .await?;
                whole
                    .map_err(|_| internal("a derivation could not be read back"))?
                    .into()
            }
        };
        Ok(self.keep_derivation(own, key, bytes, None, content_type))
    }

    /// A derivation: what is made already, or what `make` gives, which is then kept. Made once, however many ask meanwhile.
    pub(crate) async fn derived(
        self: &Arc<Self>,
        named: &Named,
        make: impl Future<Output = Result<Made, Fault>>,
    ) -> Result<Arc<DerivedBody>, Fault> {
        let key = named.key(Coding::Identity);
        if let Some(body) = self.derivations.get(&key) {
            return Ok(body);
        }
        let make = async {
            if let Some(body) = self.stored_derivation(&key).await {
                return Ok(body);
            }
            let made = make.await?;
            count(&self.counters.derivations);
            Ok(match made {
                Made::Bytes(body, bases, content_type) => {
                    self.keep_derivation(named, &key, body.into(), bases, content_type)
                }
                Made::File(spool, length, bases, content_type) => {
                    let body = Body::file(spool.reader(), length);
                    let body = DerivedBody::new(body, Keeping::Lasting, content_type, &key, bases);
                    let body = Arc::new(body);
                    if named.persist {
                        let (documents, named, key) =
                            (Arc::clone(self), named.clone(), key.clone());
                        let kept = Arc::clone(&body);
                        larder_upstream::spawn(async move {
                            documents.store_derivation(named, key, spool, &kept).await;
                        });
                    }
                    body
                }
            })
        };
        self.derivations.0.get_or_insert_async(&key, make).await
    }

    /// A derivation that is made already.
    pub(crate) async fn derived_already(&self, named: &Named) -> Option<Arc<DerivedBody>> {
        let key = named.key(Coding::Identity);
        if let Some(body) = self.derivations.get(&key) {
            return Some(body);
        }
        let body = self.stored_derivation(&key).await?;
        self.derivations.0.insert(key, Arc::clone(&body));
        Some(body)
    }

    /// A document as it is sent to the client: in the coding that the client takes, if that is made.
    pub(crate) async fn sendable(
        self: &Arc<Self>,
        named: &Named,
        document: ForClient,
        headers: &HeaderMap,
    ) -> Sendable {
        match document {
            ForClient::Own(identity) => {
                Sendable::Coded(self.coded_for(named, identity, headers).await)
            }
            ForClient::Spliced(body, content_type, etag) => Sendable::Spliced {
                body,
                content_type,
                etag,
            },
        }
    }

    /// A derivation in the coding that the client takes, as far as it is made.
    async fn coded_for(
        self: &Arc<Self>,
        named: &Named,
        identity: Arc<DerivedBody>,
        headers: &HeaderMap,
    ) -> Coded {
        let accepted = headers.get_all(header::ACCEPT_ENCODING).iter();
        let accepted: Vec<&str> = accepted.filter_map(|value| value.to_str().ok()).collect();
        let coding = coding::negotiate(
            (!accepted.is_empty())
                .then(|| accepted.join(","))
                .as_deref(),
        );
        let coded = if coding == Coding::Identity || identity.length < SMALLEST_CODED {
            None
        } else {
            Some(self.coded(named, &identity, coding).await)
        };
        // Until the coded form is made, identity is served, and not remembered as the answer.
        let is_final = !matches!(coded, Some(None));
        let (body, coding) = match coded.flatten() {
            Some(body) => (body, coding),
            None => (identity, Coding::Identity),
        };
        Coded {
            body,
            coding,
            is_final,
        }
    }

    /// The compressed form, if it is made. Else it is made now: of a short document at once, of a long one behind the scenes.
    async fn coded(
        self: &Arc<Self>,
        named: &Named,
        identity: &Arc<DerivedBody>,
        coding: Coding,
    ) -> Option<Arc<DerivedBody>> {
        let key = named.key(coding);
        if let Some(body) = self.derivations.get(&key) {
            return Some(body);
        }
        if named.persist
            && let Some(body) = self.stored_derivation(&key).await
        {
            self.derivations.0.insert(key, Arc::clone(&body));
            return Some(body);
        }
        let at_once = identity.length <= CODED_AT_ONCE;
        let (engine, named, identity) = (Arc::clone(self), named.clone(), Arc::clone(identity));
        let making = larder_upstream::spawn(async move {
            let make = async {
                let plain = Arc::clone(&identity);
                let coded = engine
                    .parse_blocking(&named.repository, plain.length, move || {
                        coding::encode(&plain.body, coding)
                    })
                    .await?;
                let coded = coded.map_err(|_| internal("a document could not be compressed"))?;
                Ok::<_, Fault>(engine.keep_derivation(
                    &named,
                    &key,
                    coded.into(),
                    None,
                    identity.content_type.clone(),
                ))
            };
            let made = engine.derivations.0.get_or_insert_async(&key, make).await;
            made.inspect_err(|fault| tracing::warn!(%fault, "a compressed form was not made"))
                .ok()
        });
        if at_once {
            making.await.ok().flatten()
        } else {
            None
        }
    }

    async fn stored_derivation(&self, key: &str) -> Option<Arc<DerivedBody>> {
        let derived = self.catalog.derivation(key).await?;
        let body = self.blobs.open(&derived.blob).await.ok()?;
        Some(Arc::new(DerivedBody::new(
            body,
            Keeping::Lasting,
            derived.content_type,
            key,
            None,
        )))
    }

    /// Serves a derivation from memory until it is in a file; persistent ones are then made durable. Both behind the scenes.
    fn keep_derivation(
        self: &Arc<Self>,
        named: &Named,
        key: &str,
        bytes: Bytes,
        bases: Option<Bases>,
        content_type: String,
    ) -> Arc<DerivedBody> {
        let body = Arc::new(DerivedBody::new(
            Body::Memory(bytes.clone()),
            Keeping::OnTheirWay,
            content_type,
            key,
            bases,
        ));
        let (engine, named, key, kept) = (
            Arc::clone(self),
            named.clone(),
            key.to_owned(),
            Arc::clone(&body),
        );
        larder_upstream::spawn(async move {
            let (writing, unwritten) = (Arc::clone(&engine), bytes.clone());
            let write = tokio::task::spawn_blocking(move || {
                let mut spool = writing.transfers.new_spool()?;
                spool.append(&bytes).ok().map(|()| spool)
            });
            let settle = |body, keeping| {
                let (content_type, bases) = (kept.content_type.clone(), kept.bases.clone());
                let settled = DerivedBody::new(body, keeping, content_type, &key, bases);
                engine.derivations.0.insert(key.clone(), Arc::new(settled));
            };
            // Without room on the disk it stays in memory, weighed for what it is; the longest are made again when they are asked for.
            let Ok(Some(spool)) = write.await else {
                return settle(Body::Memory(unwritten), Keeping::Stuck);
            };
            let file = Body::file(spool.reader(), kept.length);
            settle(file, Keeping::Lasting);
            if named.persist {
                engine.store_derivation(named, key, spool, &kept).await;
            }
        });
        body
    }

    async fn store_derivation(&self, named: Named, key: String, spool: Spool, body: &DerivedBody) {
        let Ok(digest) = self
            .transfers
            .hash_file(spool.reader(), body.length, DigestAlgorithm::Sha256)
            .await
        else {
            return;
        };
        let spool = SealedSpool {
            spool,
            descriptor: BlobDescriptor {
                digest,
                size: body.length,
            },
        };
        // One that is not kept is made again.
        if !self
            .catalog
            .has_room_for(&named.repository, body.length)
            .await
        {
            return;
        }
        let Some(Ok(blob)) = self.blobs.publish(vec![spool]).await.pop() else {
            return;
        };
        let derived = DerivedRecord {
            blob: blob.descriptor.clone(),
            content_type: body.content_type.clone(),
            made_at: self.now(),
        };
        let change = Change::PutDerivation {
            key,
            repository: named.repository,
            sources: named.sources,
            derived,
            blob,
        };
        if let Err(error) = self.catalog.keep_derivation(change).await {
            tracing::warn!(%error, "a derivation was not kept");
        }
    }
}

/// Counts the links of an index that are not carried, and says it once for each document.
pub(crate) fn tell_left_out(wanted: &Target, left: LeftOut) {
    let LeftOut {
        count,
        first: Some((place, why)),
    } = left
    else {
        return;
    };
    wanted
        .entry
        .counters
        .links_not_carried
        .fetch_add(count, Ordering::Relaxed);
    if wanted.entry.learnt.is_news(&wanted.key.path) {
        tracing::warn!(
            repository = %wanted.entry.repository.name, document = wanted.spec.key_path.as_str(), links = count, first = place, why,
            "links of this index are not carried: clients do not get these files through larder. Said once for each index; the metric \
             larder_repository_links_not_carried_total counts on"
        );
    }
}

//! Rewritten documents and their compressed forms: pure functions of what they are made from, made once, kept, never invalidated.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{StatusCode, header};
use larder_core::{BlobDescriptor, DigestAlgorithm, Fault};
use larder_formats::{Links, Mark};
use larder_storage::{Change, DerivedRecord, OpenBlob, SealedSpool, Spool};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::admission::{Admitted, Wanted};
use crate::answer::{Answer, Body, Representation};
use crate::claims::derivation_key;
use crate::clearance::clear_non_artifact;
use crate::coding::{self, Coding};
use crate::counters::count;
use crate::document::read_file;
use crate::engine::{ArtifactRequest, Engine};
use crate::flight::Settled;
use crate::learnt::tell_left_out;
use crate::obtain::Obtained;
use crate::serve::{internal, malformed, representation, vary};
use crate::spliced::{Marked, SplicedBody};

/// Open derivations, as memory: a file counts for its table entry only.
const BUDGET: u64 = 32 << 20;
const FILE_WEIGHT: u64 = 16 << 10;
/// No body in memory weighs more: the cache takes nothing that is heavier than one of its shards.
const MOST_WEIGHT: u64 = 1 << 20;
/// Longer ones are written to a file before anybody gets them.
const LONGEST_IN_MEMORY: usize = 1 << 20;
/// Documents below this are not worth compressing.
const SMALLEST_CODED: u64 = 1 << 10;
/// Documents up to this length are compressed while the client waits: that takes a few milliseconds, and each request gets the same form.
const CODED_AT_ONCE: u64 = 128 << 10;

/// A derivation ready to be served: in memory at first, so that nobody waits for the disk; another takes its place when it is in a file.
#[derive(Debug)]
pub(crate) struct DerivedBody {
    place: Place,
    length: u64,
    content_type: String,
    etag: String,
    /// Where the marks are, if it has any.
    points: Option<Arc<[u64]>>,
    /// The table subtracts what it has added only if this never changes.
    weight: u64,
}

#[derive(Debug, Clone)]
enum Place {
    /// Stored, or in an unnamed file that goes when it is forgotten.
    File(OpenBlob),
    /// On its way into a file.
    Memory(Bytes),
    /// The disk had no room.
    Stuck(Bytes),
}

impl DerivedBody {
    fn new(place: Place, content_type: String, key: &str, points: Option<Arc<[u64]>>) -> Self {
        let (length, weight) = match &place {
            Place::File(open) => (open.length, 0),
            // Moves to a file in a moment, and must not crowd out everything else until then.
            Place::Memory(bytes) => (
                bytes.len() as u64,
                (bytes.len() as u64 / 8).min(MOST_WEIGHT),
            ),
            Place::Stuck(bytes) => (bytes.len() as u64, bytes.len() as u64),
        };
        Self {
            place,
            length,
            content_type,
            etag: tag(key),
            weight: FILE_WEIGHT
                + weight
                + points.as_ref().map_or(0, |points| 8 * points.len() as u64),
            points,
        }
    }

    /// Whether its file still has all its bytes.
    fn is_intact(&self) -> bool {
        match &self.place {
            Place::File(open) => open
                .file
                .metadata()
                .is_ok_and(|metadata| metadata.len() == open.length),
            Place::Memory(_) | Place::Stuck(_) => true,
        }
    }

    /// The same with `base` in the place of each mark.
    fn spliced(&self, mark: &Mark, base: &str) -> SplicedBody {
        let source = match &self.place {
            Place::File(open) => Marked::File(Arc::clone(&open.file)),
            Place::Memory(bytes) | Place::Stuck(bytes) => Marked::Bytes(bytes.clone()),
        };
        let points = self.points.clone().unwrap_or_default();
        SplicedBody::new(source, self.length, points, mark.as_str().len(), base)
    }

    fn bytes(&self) -> io::Result<Bytes> {
        match &self.place {
            Place::File(open) => read_file(&open.file, open.length).map(Bytes::from),
            Place::Memory(bytes) | Place::Stuck(bytes) => Ok(bytes.clone()),
        }
    }
}

#[derive(Debug, Clone)]
struct ByMemory;

impl Weighter<String, Arc<DerivedBody>> for ByMemory {
    fn weight(&self, _: &String, body: &Arc<DerivedBody>) -> u64 {
        body.weight
    }
}

#[derive(Debug)]
pub(crate) struct Derivations(Cache<String, Arc<DerivedBody>, ByMemory>);

impl Derivations {
    pub(crate) fn new() -> Self {
        Self(Cache::with_weighter(512, BUDGET, ByMemory))
    }

    /// What is made already. A file that somebody has shortened is forgotten, and made again.
    fn get(&self, key: &str) -> Option<Arc<DerivedBody>> {
        let body = self.0.get(key)?;
        if body.is_intact() {
            return Some(body);
        }
        larder_upstream::in_request(|| {
            tracing::warn!(
                key,
                "a derivation's file has been shortened; it is made again"
            );
        });
        self.0.remove(key);
        None
    }
}

/// What a derivation is made of and named by.
#[derive(Clone)]
struct Recipe {
    wanted: Arc<Wanted>,
    settled: Settled,
    form: &'static str,
    link_base: larder_formats::LinkBase,
    /// What stands in the place of what the client calls larder, where that is not known.
    mark: Option<Mark>,
    /// Links that begin with whatever the client calls larder are not worth keeping over a restart.
    persist: bool,
}

/// A new derivation, with its `Content-Type`.
enum Made {
    Bytes(Vec<u8>, String),
    /// In a file of this length, with the places of its marks.
    File(Spool, u64, Option<Arc<[u64]>>, String),
}

/// A document for one client.
enum ForClient {
    /// Kept as it is sent.
    Own(Arc<DerivedBody>),
    /// Put together while it is sent; with its `Content-Type`.
    Spliced(SplicedBody, String),
}

impl Recipe {
    /// For work behind the scenes, which must not hold a large document in memory.
    fn for_later(&self) -> Self {
        Self {
            settled: Settled {
                document: None,
                ..self.settled.clone()
            },
            ..self.clone()
        }
    }

    fn key(&self, coding: Coding) -> Result<String, Fault> {
        derivation_key(
            &self.wanted,
            &self.settled.record,
            &self.link_base.0,
            self.form,
            coding.as_str(),
        )
        .ok_or_else(|| internal("a document has no bytes"))
    }
}

impl Engine {
    /// A document in the form that the client wants, links leading back to larder.
    pub(crate) async fn serve_derived(
        self: &Arc<Self>,
        admitted: &Admitted,
        form: &'static str,
        request: &ArtifactRequest<'_>,
    ) -> Result<Answer, Fault> {
        let wanted = admitted.wanted();
        let epoch = wanted.entry.epoch.load(Ordering::Acquire);
        let Obtained::Held(settled) = self.obtain(wanted, true, admitted.bypass_cache()).await?
        else {
            return Err(internal("a document was not whole"));
        };
        let by_host = self.links_depend_on_host(wanted.format);
        let recipe = Recipe {
            wanted: Arc::clone(wanted),
            settled: settled.clone(),
            form,
            link_base: self.link_base(&wanted.entry, wanted.format, request.client_base),
            mark: None,
            persist: self.link_bases_are_known(wanted.format) && !admitted.bypass_cache(),
        };
        let identity = if self.link_bases_are_known(wanted.format) {
            self.derived(&recipe).await?
        } else {
            match self.for_client(&recipe, request.client_base).await? {
                ForClient::Own(body) => body,
                ForClient::Spliced(body, content_type) => {
                    return self.spliced_answer(&recipe, body, content_type, by_host);
                }
            }
        };
        let accepted: Vec<&str> = request
            .headers
            .get_all(header::ACCEPT_ENCODING)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let coding = coding::negotiate(
            (!accepted.is_empty())
                .then(|| accepted.join(","))
                .as_deref(),
        );
        let coded = if coding == Coding::Identity || identity.length < SMALLEST_CODED {
            None
        } else {
            Some(self.coded(&recipe, &identity, coding).await)
        };
        // Until the coded form is made, identity is served, and not remembered as the answer.
        let waiting = matches!(coded, Some(None));
        let (body, coding) = match coded.flatten() {
            Some(body) => (body, coding),
            None => (identity, Coding::Identity),
        };
        let record = &settled.record;
        let representation = described(
            &recipe,
            by_host,
            body.length,
            body.content_type.clone(),
            body.etag.clone(),
            coding,
        );
        let (place, settling) = match &body.place {
            Place::File(open) => (
                Body::File {
                    file: Arc::clone(&open.file),
                    length: open.length,
                },
                false,
            ),
            Place::Memory(bytes) | Place::Stuck(bytes) => (Body::Bytes(bytes.clone()), true),
        };
        // What is in memory only until its file is written is not remembered: the file will be.
        let lasting = !settled.for_once && !waiting && !settling && !admitted.bypass_cache();
        let hot = lasting
            .then(|| self.ticket(wanted, record, epoch))
            .flatten();
        Ok(Answer {
            status: StatusCode::OK,
            representation,
            body: clear_non_artifact(place),
            cache_status: settled.status,
            source: settled.source,
            freshness: self.freshness(record, wanted, settled.for_once),
            location: None,
            hot,
        })
    }

    /// The answer with a document that is put together while it is sent: it has no compressed forms, and is not remembered.
    fn spliced_answer(
        &self,
        recipe: &Recipe,
        body: SplicedBody,
        content_type: String,
        by_host: bool,
    ) -> Result<Answer, Fault> {
        let Recipe {
            wanted, settled, ..
        } = recipe;
        let etag = tag(&recipe.key(Coding::Identity)?);
        let length = body.length();
        Ok(Answer {
            status: StatusCode::OK,
            representation: described(
                recipe,
                by_host,
                length,
                content_type,
                etag,
                Coding::Identity,
            ),
            body: clear_non_artifact(Body::Spliced(body)),
            cache_status: settled.status,
            source: settled.source,
            freshness: self.freshness(&settled.record, wanted, settled.for_once),
            location: None,
            hot: None,
        })
    }

    /// A document whose links begin with what this client calls larder: derived once for all clients. Who uses a name that is really
    /// used gets a document of its own, which is kept and compressed like any other.
    async fn for_client(
        self: &Arc<Self>,
        recipe: &Recipe,
        client_base: &str,
    ) -> Result<ForClient, Fault> {
        let mark = Mark::of(self.link_key(), client_base);
        let (entry, format) = (&recipe.wanted.entry, recipe.wanted.format);
        let marked = Recipe {
            link_base: self.link_base(entry, format, mark.as_str()),
            mark: Some(mark.clone()),
            ..recipe.clone()
        };
        let key = recipe.key(Coding::Identity)?;
        let is_familiar = self.familiar_bases.admit(client_base, self.now());
        if is_familiar && let Some(body) = self.derivations.get(&key) {
            return Ok(ForClient::Own(body));
        }
        let body = self.derived(&marked).await?;
        let spliced = body.spliced(&mark, client_base);
        let content_type = body.content_type.clone();
        if !is_familiar {
            return Ok(ForClient::Spliced(spliced, content_type));
        }
        let make = async {
            let whole = self.parse_blocking(move || spliced.whole()).await?;
            let whole = whole.map_err(|_| internal("a derivation could not be read back"))?;
            Ok(self.keep_derivation(recipe, &key, whole, content_type))
        };
        let own = self.derivations.0.get_or_insert_async(&key, make).await?;
        Ok(ForClient::Own(own))
    }

    async fn derived(self: &Arc<Self>, recipe: &Recipe) -> Result<Arc<DerivedBody>, Fault> {
        let key = recipe.key(Coding::Identity)?;
        if let Some(body) = self.derivations.get(&key) {
            return Ok(body);
        }
        let make = async {
            if let Some(body) = self.stored_derivation(&key).await {
                return Ok(body);
            }
            let source = Self::settled_source(&recipe.wanted, &recipe.settled);
            let (engine, base, form) = (Arc::clone(self), recipe.link_base.clone(), recipe.form);
            let mark = recipe.mark.clone();
            let derived = self.parse_blocking(move || {
                let document = source.load()?;
                let wanted = document.wanted();
                let query = wanted.spec.query.as_deref();
                let links =
                    Links::new(&wanted.entry.repository, engine.link_key(), base).asked_with(query);
                let derived = wanted
                    .format
                    .derive(&document.view(), form, &links)
                    .map_err(|error| malformed(wanted, &error))?;
                tell_left_out(wanted, links.left_out());
                let content_type = derived.content_type.to_owned();
                // A long one is in a file before its place among the parsers is free: many at once would fill memory.
                let spool = (derived.body.len() > LONGEST_IN_MEMORY)
                    .then(|| engine.new_spool())
                    .flatten()
                    .and_then(|mut spool| spool.append(&derived.body).ok().map(|()| spool));
                let Some(spool) = spool else {
                    return Ok::<_, Fault>(Made::Bytes(derived.body, content_type));
                };
                let points = mark.map(|mark| mark.points(&derived.body).into());
                let length = derived.body.len() as u64;
                Ok(Made::File(spool, length, points, content_type))
            });
            let made = derived.await??;
            count(&self.counters.derivations);
            Ok(match made {
                Made::Bytes(body, content_type) => {
                    self.keep_derivation(recipe, &key, body, content_type)
                }
                Made::File(spool, length, points, content_type) => {
                    let file = spool.reader();
                    let place = Place::File(OpenBlob { file, length });
                    let body = Arc::new(DerivedBody::new(place, content_type, &key, points));
                    if recipe.persist {
                        let (engine, recipe, key) =
                            (Arc::clone(self), recipe.for_later(), key.clone());
                        let kept = Arc::clone(&body);
                        larder_upstream::spawn(async move {
                            engine.store_derivation(&recipe, key, spool, &kept).await;
                        });
                    }
                    body
                }
            })
        };
        self.derivations.0.get_or_insert_async(&key, make).await
    }

    /// The compressed form, if it is made. Else it is made now: of a short document at once, of a long one behind the scenes.
    async fn coded(
        self: &Arc<Self>,
        recipe: &Recipe,
        identity: &Arc<DerivedBody>,
        coding: Coding,
    ) -> Option<Arc<DerivedBody>> {
        let key = recipe.key(coding).ok()?;
        if let Some(body) = self.derivations.get(&key) {
            return Some(body);
        }
        if recipe.persist
            && let Some(body) = self.stored_derivation(&key).await
        {
            self.derivations.0.insert(key, Arc::clone(&body));
            return Some(body);
        }
        let at_once = identity.length <= CODED_AT_ONCE;
        let (engine, recipe, identity) =
            (Arc::clone(self), recipe.for_later(), Arc::clone(identity));
        let making = larder_upstream::spawn(async move {
            let make = async {
                let plain = Arc::clone(&identity);
                let coded = engine
                    .parse_blocking(move || coding::encode(&plain.bytes()?, coding))
                    .await?;
                let coded = coded.map_err(|_| internal("a document could not be compressed"))?;
                Ok::<_, Fault>(engine.keep_derivation(
                    &recipe,
                    &key,
                    coded,
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
        let derived = self.metadata.derivation(key).await.ok()??;
        let open = self.blobs.open(&derived.blob).ok()?;
        Some(Arc::new(DerivedBody::new(
            Place::File(open),
            derived.content_type,
            key,
            None,
        )))
    }

    /// Serves a derivation from memory until it is in a file; persistent ones are then made durable. Both behind the scenes.
    fn keep_derivation(
        self: &Arc<Self>,
        recipe: &Recipe,
        key: &str,
        body: Vec<u8>,
        content_type: String,
    ) -> Arc<DerivedBody> {
        let points = recipe.mark.as_ref().map(|mark| mark.points(&body).into());
        let bytes = Bytes::from(body);
        let body = Arc::new(DerivedBody::new(
            Place::Memory(bytes.clone()),
            content_type,
            key,
            points,
        ));
        let (engine, recipe, key, kept) = (
            Arc::clone(self),
            recipe.for_later(),
            key.to_owned(),
            Arc::clone(&body),
        );
        larder_upstream::spawn(async move {
            let (writing, unwritten) = (Arc::clone(&engine), bytes.clone());
            let write = tokio::task::spawn_blocking(move || {
                let mut spool = writing.new_spool()?;
                spool.append(&bytes).ok().map(|()| spool)
            });
            let settle = |place| {
                let points = kept.points.clone();
                let settled = DerivedBody::new(place, kept.content_type.clone(), &key, points);
                engine.derivations.0.insert(key.clone(), Arc::new(settled));
            };
            // Without room on the disk it stays in memory, weighed for what it is; the longest are made again when they are asked for.
            let Ok(Some(spool)) = write.await else {
                return settle(Place::Stuck(unwritten));
            };
            settle(Place::File(OpenBlob {
                file: spool.reader(),
                length: kept.length,
            }));
            if recipe.persist {
                engine.store_derivation(&recipe, key, spool, &kept).await;
            }
        });
        body
    }

    async fn store_derivation(
        &self,
        recipe: &Recipe,
        key: String,
        spool: Spool,
        body: &DerivedBody,
    ) {
        let Ok(digest) = self
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
        let blobs = Arc::clone(&self.blobs);
        let published = tokio::task::spawn_blocking(move || blobs.publish(vec![spool]).pop()).await;
        let Ok(Some(Ok(blob))) = published else {
            return;
        };
        let Some(source) = recipe.settled.record.blob().map(|blob| blob.digest.clone()) else {
            return;
        };
        let derived = DerivedRecord {
            blob: blob.descriptor.clone(),
            content_type: body.content_type.clone(),
            made_at: self.now(),
        };
        let repository = recipe.wanted.entry.repository.name.clone();
        let change = Change::PutDerivation {
            key,
            repository,
            sources: vec![source],
            derived,
            blob,
        };
        if let Err(error) = self.metadata.apply(vec![change]).await {
            tracing::warn!(%error, "a derivation was not kept");
        }
    }
}

/// The header fields of a derived document.
fn described(
    recipe: &Recipe,
    by_host: bool,
    length: u64,
    content_type: String,
    etag: String,
    coding: Coding,
) -> Representation {
    let (wanted, record) = (&recipe.wanted, &recipe.settled.record);
    let described = representation(wanted, &record.headers, None, None, Some(length));
    Representation {
        content_type: Some(content_type),
        content_encoding: (coding != Coding::Identity).then(|| coding.as_str().to_owned()),
        etag: Some(etag),
        began_at: Some(record.began_at),
        vary: vary(
            wanted.format.varies_by(&wanted.spec.key_path),
            true,
            by_host,
        ),
        ..described
    }
}

/// A derivation's entity tag: its key names its bytes, coding included, because it is a pure function of what the key is made of.
fn tag(key: &str) -> String {
    format!("\"{}\"", key.get(..40).unwrap_or(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table subtracts what a value weighs when it goes: if that is not what was added, its budget melts away.
    #[test]
    fn hazard_x2_a_body_that_has_got_its_file_weighs_what_a_file_does() {
        let derivations = Derivations::new();
        let put = |place| {
            derivations.0.insert(
                "k".to_owned(),
                Arc::new(DerivedBody::new(place, String::new(), "k", None)),
            );
        };
        for _ in 0..100 {
            put(Place::Memory(Bytes::from(vec![b'x'; 4 << 20])));
            put(Place::File(OpenBlob {
                file: Arc::new(tempfile::tempfile().unwrap()),
                length: 4 << 20,
            }));
            assert_eq!(derivations.0.weight(), FILE_WEIGHT);
        }
        derivations.0.remove("k");
        assert_eq!(derivations.0.weight(), 0);
    }

    #[test]
    fn hazard_x2_what_a_full_disk_leaves_in_memory_weighs_all_of_it() {
        let derivations = Derivations::new();
        for n in 0..100 {
            let place = Place::Stuck(Bytes::from(vec![b'x'; 1 << 20]));
            derivations.0.insert(
                n.to_string(),
                Arc::new(DerivedBody::new(place, String::new(), "k", None)),
            );
        }
        assert!(
            derivations.0.len() as u64 * (1 << 20) <= BUDGET,
            "{} MiB",
            derivations.0.len()
        );
        assert!(derivations.0.len() > 10);
    }
}

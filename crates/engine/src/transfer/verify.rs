//! Is the body that came the right one? Nothing is committed and no reader gets the last bytes before this file has said so.

use std::fs::File;
use std::sync::Arc;

use larder_core::{ArtifactRecord, Digest, DigestAlgorithm, ErrorCode, StoredHeaders, Verify};
use larder_formats::Identifier;

use crate::causes::warn_once;
use crate::claim::{Stated, StoredClaim};
use crate::counters::count;
use crate::fault::FetchError;
use crate::target::Target;
use crate::transfer::Transfers;
use crate::transfer::files::{hash_bytes, received_bytes};
use crate::transfer::fill::Fill;
use crate::transfer::flight::Flight;
use crate::transfer::received;
use crate::transfer::received::{FetchedBody, Received, Whole, finished_record};

/// What the format of one body has to say of it, and what the documents that name it state.
pub(crate) trait Inspector: Send + Sync {
    /// Digests worth computing while the body arrives; all that may be needed if it cannot be read again.
    fn algorithms(&self, can_be_read_again: bool) -> Vec<DigestAlgorithm>;

    /// The SHA-256 that the bytes must have to be kept, if it is known before they come.
    fn expected(&self) -> Option<Digest>;

    /// Computes what a document may name the file by, where that is no digest.
    fn identifier(&self) -> Option<Box<dyn Identifier>>;

    /// The same of bytes that have been written; `None` if they cannot be read, or have no such names.
    fn identities(
        &self,
        file: Arc<File>,
        length: u64,
    ) -> impl Future<Output = Option<Vec<String>>> + Send;

    /// The part of a short body that its digest is of.
    fn digested_part(&self, content_type: &str, body: &[u8]) -> Option<Vec<u8>>;

    /// Whether a coded body is kept as it came. Elsewhere a file is what its name says.
    fn keeps_coding(&self) -> bool;

    /// Whether the name says that the bytes are compressed: then a coding is a server's mistake.
    fn is_compressed_by_name(&self) -> bool;

    /// Undoes a coding that was not asked for.
    fn decode(
        &self,
        whole: &Whole,
        coding: &str,
    ) -> impl Future<Output = Result<Whole, FetchError>> + Send;

    /// What is stated of the file; documents that are on their way are waited for.
    fn claim(&mut self) -> impl Future<Output = Option<StoredClaim>> + Send;

    /// What is stated of the file when the documents are read once more.
    fn claim_read_again(&self) -> impl Future<Output = Option<StoredClaim>> + Send;

    /// Puts a file that is looked into to its format's check.
    fn check(&self, whole: &Whole) -> impl Future<Output = Result<(), FetchError>> + Send;

    /// Checks a document, and makes of it what is kept.
    fn accept_document(
        &self,
        fill: &Arc<Fill>,
        received: Received,
        prior: Option<&ArtifactRecord>,
    ) -> impl Future<Output = Result<FetchedBody, FetchError>> + Send;
}

/// One body that is looked at.
pub(super) struct Verification<'a, I> {
    pub(super) transfers: &'a Transfers,
    pub(super) flight: &'a Flight,
    pub(super) wanted: &'a Target,
    pub(super) inspector: &'a mut I,
}

/// A body that was found right.
struct Proven {
    whole: Whole,
    /// Whether a digest said so.
    verified: bool,
    /// Whether it is what the received bytes decode to.
    decoded: bool,
}

impl Proven {
    fn stated(whole: Whole, decoded: bool) -> Self {
        Self {
            whole,
            verified: true,
            decoded,
        }
    }
}

impl<I: Inspector> Verification<'_, I> {
    /// What is kept and served of a received body.
    pub(super) async fn verify(
        self,
        fill: &Arc<Fill>,
        received: Received,
        prior: Option<&ArtifactRecord>,
    ) -> Result<FetchedBody, FetchError> {
        if self.wanted.spec.is_document {
            return self.inspector.accept_document(fill, received, prior).await;
        }
        let mut headers = fill.draft.headers.clone();
        let coding = if self.inspector.keeps_coding() {
            None
        } else {
            headers.content_encoding.take()
        };
        let whole = Whole {
            received,
            fill: Arc::clone(fill),
        };
        let claim = self.inspector.claim().await;
        let size = claim.as_ref().and_then(|claim| claim.size);
        let stated = claim.and_then(|claim| claim.stated());
        let proven = match stated {
            Some(stated) => self.enforce(whole, coding.as_deref(), stated).await?,
            None => self.accept_unproven(whole, coding.as_deref()).await?,
        };
        without_validators_of_others(&mut headers, &proven);
        let Proven {
            whole, verified, ..
        } = proven;
        if self.wanted.facts.check_limit.is_some() {
            self.inspector.check(&whole).await?;
        }
        let Whole {
            received,
            fill: holder,
        } = whole;
        if let Some(size) = size.filter(|size| verified && *size != received.length) {
            // ADR 0029.
            warn_once!(
                self.wanted,
                "size",
                "a file has another size than its index states, and the right digest: it is kept; the index should be mended",
                stated = size,
                sent = received.length
            );
        }
        let now = self.transfers.now();
        let record = finished_record(fill, headers, &received, verified, prior, now);
        holder.verified(received.length);
        Ok(received::hand_over(self.wanted, &holder, received, record))
    }

    /// Nothing is stated of the bytes.
    async fn accept_unproven(
        &self,
        whole: Whole,
        coding: Option<&str>,
    ) -> Result<Proven, FetchError> {
        if whole.received.needs_digest {
            let message = "the upstream broke off the transfer, and nothing says whether what it sent then belongs to the same file";
            return Err(FetchError::unusable(ErrorCode::UpstreamCut, message));
        }
        let coding = coding.filter(|_| !self.inspector.is_compressed_by_name());
        let whole = match coding {
            None => whole,
            Some(coding) => self.inspector.decode(&whole, coding).await?,
        };
        Ok(Proven {
            whole,
            verified: false,
            decoded: coding.is_some(),
        })
    }

    /// The bytes as received, or what they decode to, must be what the ecosystem states of them.
    async fn enforce(
        &self,
        whole: Whole,
        coding: Option<&str>,
        stated: Stated,
    ) -> Result<Proven, FetchError> {
        if self.is_stated(&whole, &stated).await {
            return Ok(Proven::stated(whole, false));
        }
        let length = whole.received.length;
        let decoded = match coding {
            Some(coding) => self.inspector.decode(&whole, coding).await.ok(),
            None => None,
        };
        let mut candidates = vec![Proven::stated(whole, false)];
        if let Some(whole) = decoded {
            let decoded = Proven::stated(whole, true);
            if self.is_stated(&decoded.whole, &stated).await {
                return Ok(decoded);
            }
            candidates.push(decoded);
        }
        if let Some(now) = self.stated_now().await.filter(|now| *now != stated) {
            for at in 0..candidates.len() {
                if self.is_stated(&candidates[at].whole, &now).await {
                    return Ok(candidates.swap_remove(at));
                }
            }
        }
        let sent = match (&stated, candidates.first()) {
            (Stated::Digests(digests), Some(first)) if !digests.is_empty() => {
                let algorithm = digests[0].algorithm();
                self.transfers.digest_of(&first.whole, algorithm).await
            }
            _ => None,
        };
        if keeps_contradicted(self.wanted)
            && let Some(first) = candidates.into_iter().next()
        {
            let kept = self.accept_unproven(first.whole, coding).await?;
            tell_contradicted(self.wanted, &stated);
            return Ok(Proven {
                verified: true,
                ..kept
            });
        }
        count(&self.wanted.entry.counters.digest_mismatches);
        // The log warns of it with the upstream's other failures (`upstreams.rs`).
        tracing::debug!(key = %self.wanted.key, stated = %stated, "the upstream sent other bytes than are stated; nothing is kept");
        Err(mismatch(self.wanted, &stated, sent.as_ref(), length))
    }

    /// The document may be older than the file: it is read once more before the file is given up.
    async fn stated_now(&self) -> Option<Stated> {
        self.flight.set_rereads(true);
        let claim = self.inspector.claim_read_again().await;
        self.flight.set_rereads(false);
        claim.and_then(|claim| claim.stated())
    }

    async fn is_stated(&self, whole: &Whole, stated: &Stated) -> bool {
        match stated {
            Stated::Digests(stated) => {
                for digest in stated {
                    let algorithm = digest.algorithm();
                    if self.transfers.digest_of(whole, algorithm).await.as_ref() == Some(digest)
                        || self.digest_of_part(whole, algorithm).as_ref() == Some(digest)
                    {
                        return true;
                    }
                }
                false
            }
            Stated::Identities(stated) => self
                .identities_of(whole)
                .await
                .is_some_and(|all| all.iter().any(|one| stated.contains(one))),
        }
    }

    /// The identities of received bytes: computed on the way, or now from where they are.
    async fn identities_of(&self, Whole { received, fill }: &Whole) -> Option<Vec<String>> {
        if received.identities.is_some() {
            return received.identities.clone();
        }
        match &received.spool {
            Some(spool) => {
                let file = spool.reader();
                self.inspector.identities(file, received.length).await
            }
            None if fill.holds_everything() => {
                let mut identifier = self.inspector.identifier()?;
                identifier.update(&fill.read_arrived(received.length).ok()?);
                Some(identifier.finish())
            }
            None => None,
        }
    }

    /// The digest of the part that the format says it is of. Such bodies are short.
    fn digest_of_part(&self, whole: &Whole, algorithm: DigestAlgorithm) -> Option<Digest> {
        let limit = self.wanted.facts.check_limit?;
        let content_type = whole.fill.draft.headers.content_type.as_deref()?;
        let body = (whole.received.length <= limit)
            .then(|| received_bytes(&whole.fill, &whole.received).ok())??;
        let part = self.inspector.digested_part(content_type, &body)?;
        Some(hash_bytes(&part, algorithm))
    }
}

impl Transfers {
    /// The digest of received bytes: computed on the way, or now from where they are.
    async fn digest_of(
        &self,
        Whole { received, fill }: &Whole,
        algorithm: DigestAlgorithm,
    ) -> Option<Digest> {
        if let Some(digest) = received
            .digests
            .iter()
            .find(|digest| digest.algorithm() == algorithm)
        {
            return Some(digest.clone());
        }
        match &received.spool {
            Some(spool) => self
                .hash_file(spool.reader(), received.length, algorithm)
                .await
                .ok(),
            None if fill.holds_everything() => {
                let bytes = fill.read_arrived(received.length).ok()?;
                Some(hash_bytes(&bytes, algorithm))
            }
            None => None,
        }
    }
}

/// Whether a file is kept although the index states something else of it (`verify: warn`). A digest that is the file's own name is
/// enforced always, and so are the files of a generation, which are only right together.
pub(crate) fn keeps_contradicted(wanted: &Target) -> bool {
    wanted.entry.repository.cache.verify == Verify::Warn && !wanted.facts.is_digest_binding()
}

/// Says of a file that it is kept although its index states something else of it.
pub(crate) fn tell_contradicted(wanted: &Target, stated: &Stated) {
    count(&wanted.entry.counters.mismatches_kept);
    let stated = tracing::field::display(stated);
    warn_once!(
        wanted,
        "mismatch_kept",
        "the upstream's file is not what its index states; it is kept and served, because this repository has verify: warn",
        stated = stated
    );
}

/// Takes out of the head what it says of other bytes: an upstream's tag belongs to the coded form, and all of it to the first mirror's.
fn without_validators_of_others(headers: &mut StoredHeaders, proven: &Proven) {
    let is_of_another_mirror = proven.whole.received.of_another_mirror;
    if proven.decoded || is_of_another_mirror {
        headers.etag = None;
    }
    if is_of_another_mirror {
        headers.last_modified = None;
    }
}

/// Of the digests as much as tells them apart.
fn mismatch(wanted: &Target, stated: &Stated, sent: Option<&Digest>, length: u64) -> FetchError {
    let begin = |digest: &Digest| digest.to_hex().chars().take(16).collect::<String>();
    let what = match (stated, sent) {
        (Stated::Digests(digests), Some(sent)) => {
            let stated: Vec<String> = digests.iter().map(begin).collect();
            format!(
                "{} is {}…, where {}… is stated",
                sent.algorithm().as_str(),
                begin(sent),
                stated.join("… or ")
            )
        }
        (Stated::Digests(digests), None) => {
            let measure = digests
                .first()
                .map_or("digest", |digest| digest.algorithm().as_str());
            format!("{measure} is not the one that is stated of them")
        }
        (Stated::Identities(_), _) => "identity is not the one that is stated of them".to_owned(),
    };
    let name = &wanted.entry.repository.name;
    let message = format!(
        "the upstream of repository {name} sent {length} bytes whose {what}; nothing was kept"
    );
    FetchError::unusable(ErrorCode::DigestMismatch, message)
}

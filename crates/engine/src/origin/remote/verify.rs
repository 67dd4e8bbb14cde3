//! Is the body that came the right one? Nothing is committed and no reader gets the last bytes before this file has said so.

use std::sync::Arc;

use larder_core::{ArtifactRecord, Digest, DigestAlgorithm, ErrorCode, Verify};

use crate::causes::warn_once;
use crate::claim::Stated;
use crate::counters::count;
use crate::document::coding::name_says_compressed;
use crate::document::expectation::Expectation;
use crate::fault::FetchError;
use crate::origin::remote::Remote;
use crate::target::Target;
use crate::transfer::files::{hash_bytes, received_bytes};
use crate::transfer::fill::Fill;
use crate::transfer::flight::Flight;
use crate::transfer::received;
use crate::transfer::received::{FetchedBody, Received, Whole, finished_record};

/// A body that was found right.
struct Proven {
    whole: Whole,
    /// Whether a digest said so.
    verified: bool,
    /// Whether it is what the received bytes decode to.
    decoded: bool,
}

impl Remote {
    pub(crate) async fn verify(
        self: &Arc<Self>,
        flight: &Flight,
        wanted: &Arc<Target>,
        fill: &Arc<Fill>,
        received: Received,
        expectation: &mut Expectation,
        prior: Option<&ArtifactRecord>,
    ) -> Result<FetchedBody, FetchError> {
        if wanted.spec.is_document {
            return self
                .documents
                .accept_document(wanted, fill, received, prior)
                .await;
        }
        let mut headers = fill.draft.headers.clone();
        // Generic files keep their coding; elsewhere a file is what its name says (mechanics, section 3).
        let coding = if wanted.format.profile().keeps_coding {
            None
        } else {
            headers.content_encoding.take()
        };
        let whole = Whole {
            received,
            fill: Arc::clone(fill),
        };
        let claim = expectation.resolve(&self.inquiry(), wanted).await;
        let size = claim.as_ref().and_then(|claim| claim.size);
        let proven = match claim.and_then(|claim| claim.stated()) {
            Some(stated) => {
                self.enforce(flight, wanted, whole, coding.as_deref(), stated)
                    .await?
            }
            None => {
                self.accept_unproven(wanted, whole, coding.as_deref())
                    .await?
            }
        };
        if proven.decoded {
            // The upstream's tag belongs to the coded form.
            headers.etag = None;
        }
        if proven.whole.received.of_another_mirror {
            (headers.etag, headers.last_modified) = (None, None);
        }
        let Proven {
            whole, verified, ..
        } = proven;
        if wanted.facts.check_limit.is_some() {
            self.check_whole(wanted, &whole).await?;
        }
        let Whole {
            received,
            fill: holder,
        } = whole;
        if let Some(size) = size.filter(|size| verified && *size != received.length) {
            // ADR 0029.
            warn_once!(
                wanted,
                "size",
                "a file has another size than its index states, and the right digest: it is kept; the index should be mended",
                stated = size,
                sent = received.length
            );
        }
        let record = finished_record(fill, headers, &received, verified, prior, self.now());
        holder.verified(received.length);
        Ok(received::hand_over(wanted, &holder, received, record))
    }

    /// Nothing is stated of the bytes.
    async fn accept_unproven(
        self: &Arc<Self>,
        wanted: &Arc<Target>,
        whole: Whole,
        coding: Option<&str>,
    ) -> Result<Proven, FetchError> {
        if whole.received.needs_digest {
            let message = "the upstream broke off the transfer, and nothing says whether what it sent then belongs to the same file";
            return Err(FetchError::unusable(ErrorCode::UpstreamCut, message));
        }
        match coding.filter(|_| !name_says_compressed(&wanted.spec.key_path)) {
            None => Ok(Proven {
                whole,
                verified: false,
                decoded: false,
            }),
            Some(coding) => {
                let whole = self.documents.decode(wanted, &whole, coding).await?;
                Ok(Proven {
                    whole,
                    verified: false,
                    decoded: true,
                })
            }
        }
    }

    /// The bytes as received, or what they decode to, must be what the ecosystem states of them.
    async fn enforce(
        self: &Arc<Self>,
        flight: &Flight,
        wanted: &Arc<Target>,
        whole: Whole,
        coding: Option<&str>,
        stated: Stated,
    ) -> Result<Proven, FetchError> {
        if self.is_stated(wanted, &whole, &stated).await {
            return Ok(Proven {
                whole,
                verified: true,
                decoded: false,
            });
        }
        let length = whole.received.length;
        let decoded = match coding {
            Some(coding) => self.documents.decode(wanted, &whole, coding).await.ok(),
            None => None,
        };
        let mut candidates = vec![Proven {
            whole,
            verified: true,
            decoded: false,
        }];
        if let Some(whole) = decoded {
            let decoded = Proven {
                whole,
                verified: true,
                decoded: true,
            };
            if self.is_stated(wanted, &decoded.whole, &stated).await {
                return Ok(decoded);
            }
            candidates.push(decoded);
        }
        // The document may be older than the file: it is read once more before giving up.
        flight.set_rereads(true);
        let now = self
            .inquiry()
            .refreshed_claim(wanted)
            .await
            .and_then(|claim| claim.stated());
        flight.set_rereads(false);
        if let Some(now) = now.filter(|now| *now != stated) {
            for at in 0..candidates.len() {
                if self.is_stated(wanted, &candidates[at].whole, &now).await {
                    return Ok(candidates.swap_remove(at));
                }
            }
        }
        let sent = match (&stated, candidates.first()) {
            (Stated::Digests(digests), Some(first)) if !digests.is_empty() => {
                self.digest_of(&first.whole, digests[0].algorithm()).await
            }
            _ => None,
        };
        if Self::keeps_contradicted(wanted)
            && let Some(first) = candidates.into_iter().next()
        {
            let kept = self.accept_unproven(wanted, first.whole, coding).await?;
            Self::tell_contradicted(wanted, &stated);
            return Ok(Proven {
                verified: true,
                ..kept
            });
        }
        count(&wanted.entry.counters.digest_mismatches);
        // The log warns of it with the upstream's other failures (`upstreams.rs`).
        tracing::debug!(key = %wanted.key, stated = %stated, "the upstream sent other bytes than are stated; nothing is kept");
        Err(mismatch(wanted, &stated, sent.as_ref(), length))
    }

    async fn is_stated(&self, wanted: &Target, whole: &Whole, stated: &Stated) -> bool {
        match stated {
            Stated::Digests(stated) => {
                for digest in stated {
                    if self.digest_of(whole, digest.algorithm()).await.as_ref() == Some(digest)
                        || Self::digest_of_part(wanted, whole, digest.algorithm()).as_ref()
                            == Some(digest)
                    {
                        return true;
                    }
                }
                false
            }
            Stated::Identities(stated) => self
                .identities_of(wanted, whole)
                .await
                .is_some_and(|all| all.iter().any(|one| stated.contains(one))),
        }
    }

    /// Whether a file is kept although the index states something else of it (`verify: warn`). A digest that is the file's own name is
    /// enforced always, and so are the files of a generation, which are only right together.
    pub(crate) fn keeps_contradicted(wanted: &Target) -> bool {
        wanted.entry.repository.cache.verify == Verify::Warn && !wanted.facts.is_digest_binding()
    }

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

    /// The identities of received bytes: computed on the way, or now from where they are.
    async fn identities_of(
        &self,
        wanted: &Target,
        Whole { received, fill }: &Whole,
    ) -> Option<Vec<String>> {
        if received.identities.is_some() {
            return received.identities.clone();
        }
        let mut identifier = wanted.format.identifier(&wanted.spec.key_path)?;
        match &received.spool {
            Some(spool) => self
                .documents
                .identify_file(spool.reader(), received.length, identifier)
                .await
                .ok(),
            None if fill.holds_everything() => {
                identifier.update(&fill.read_arrived(received.length).ok()?);
                Some(identifier.finish())
            }
            None => None,
        }
    }

    /// The digest of the part that the format says it is of. Such bodies are short.
    fn digest_of_part(
        wanted: &Target,
        whole: &Whole,
        algorithm: DigestAlgorithm,
    ) -> Option<Digest> {
        let limit = wanted.facts.check_limit?;
        let content_type = whole.fill.draft.headers.content_type.as_deref()?;
        let body = (whole.received.length <= limit)
            .then(|| received_bytes(&whole.fill, &whole.received).ok())??;
        let part = wanted
            .format
            .digested_part(&wanted.spec.key_path, content_type, &body)?;
        Some(hash_bytes(&part, algorithm))
    }

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
                .transfers
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

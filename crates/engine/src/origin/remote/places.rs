//! Where a file may be (docs/adr/0035): at the usual place, which its path tells, or where a document says or a redirect has led.
//!
//! One of the two is a **hint**: where documents link to their files ([`Profile::links_elsewhere`](larder_formats::Profile)), the usual
//! place is only guessed until the document has been read; elsewhere a place that a redirect has led to is. A hint that fails, in
//! whatever way, leads to the other place, and is no word of the upstream's on whether there is such a file.

use std::sync::Arc;

use http::{Method, StatusCode};
use larder_upstream::UpstreamResponse;
use url::Url;

use super::mirrors::{Mirrors, wants_get};
use super::query::{Arrival, UpstreamQuery};
use super::routes::elsewhere;
use crate::document::expectation::{Expectation, Lookup};
use crate::document::inquiry::Inquiry;
use crate::fault::FetchError;
use crate::target::Target;

/// Places that are asked for one body at most: a document may name another one each time that it is read.
const MOST: usize = 3;

/// A place; `None` is the usual one.
type Place = Option<Url>;

/// Places whose bytes turned out to be wrong: they are not asked again.
#[derive(Debug, Default)]
pub(super) struct Spoilt(Vec<Place>);

impl Spoilt {
    pub(super) fn add(&mut self, place: Place) {
        self.0.push(place);
    }

    fn has(&self, place: &Place) -> bool {
        self.0.contains(place) || self.0.len() >= MOST
    }
}

/// What came of looking for a file.
pub(super) struct Found {
    pub(super) answer: Result<Arrival, FetchError>,
    /// Whether it is the word of a place that is no hint: then an absence may be remembered.
    pub(super) is_final: bool,
}

impl Found {
    /// What another replica passes on while it downloads it.
    pub(crate) fn relayed(response: UpstreamResponse) -> Self {
        Self::last_word(Ok(Arrival {
            response,
            mirror: None,
            claimed: None,
            has_mirror_beside: false,
            failed: None,
            come_back_in: None,
        }))
    }

    fn last_word(answer: Result<Arrival, FetchError>) -> Self {
        Self {
            answer,
            is_final: true,
        }
    }
}

/// A search for a file: what stays the same from place to place.
pub(super) struct Search<'a> {
    pub(super) mirrors: &'a Arc<Mirrors>,
    pub(super) inquiry: &'a Inquiry,
    pub(super) wanted: &'a Arc<Target>,
    pub(super) ask: &'a UpstreamQuery<'a>,
    pub(super) spoilt: &'a Spoilt,
}

/// Whether a place (`None`: the usual one) is a hint for this source. What no document names has no other place.
pub(super) fn is_hint(wanted: &Target, place: Option<&Url>) -> bool {
    place.is_some() != (wanted.format.profile().links_elsewhere && !wanted.spec.is_document)
}

impl Search<'_> {
    /// Asks for a file where it may be, until a place gives it or all have been asked. `None`: all of them are spoilt.
    pub(super) async fn find(&self, expectation: &mut Expectation) -> Option<Found> {
        let is_usual_spoilt = self.spoilt.has(&None);
        if is_usual_spoilt {
            // The guess was wrong: only the document may know better.
            self.inquiry.look_up(expectation, self.wanted, true).await;
        }
        let first = self.named(expectation);
        if first.is_none() && is_usual_spoilt {
            return None;
        }
        let answer = self.at(first.clone()).await;
        if self.is_given(&answer) {
            return Some(Found::last_word(answer));
        }
        Some(match first {
            Some(place) => self.after_named(expectation, place, answer).await,
            None => self.after_usual(expectation, answer).await,
        })
    }

    /// A place other than the usual one that is known and not spoilt.
    fn named(&self, expectation: &Expectation) -> Place {
        let Expectation::Known(claim) = expectation else {
            return None;
        };
        let place = elsewhere(self.wanted, &claim.url);
        place.filter(|place| !self.spoilt.has(&Some(place.clone())))
    }

    /// Asks one place; where HEAD is not supported, with a GET that is closed after its head.
    async fn at(&self, place: Place) -> Result<Arrival, FetchError> {
        let ask = UpstreamQuery {
            claimed: place,
            ..self.ask.clone()
        };
        let answer = self.mirrors.ask(self.wanted, &ask).await;
        if ask.method == Method::HEAD
            && answer
                .as_ref()
                .is_ok_and(|arrival| wants_get(arrival.response.status))
        {
            return self
                .mirrors
                .ask(
                    self.wanted,
                    &UpstreamQuery {
                        method: Method::GET,
                        ..ask
                    },
                )
                .await;
        }
        answer
    }

    fn is_given(&self, answer: &Result<Arrival, FetchError>) -> bool {
        answer
            .as_ref()
            .is_ok_and(|arrival| match arrival.response.status {
                StatusCode::OK => true,
                StatusCode::NOT_MODIFIED => self.ask.unless_changed.is_some(),
                _ => false,
            })
    }

    /// The usual place does not give it. If that was a guess, its failure says nothing, and the document is waited for.
    async fn after_usual(
        &self,
        expectation: &mut Expectation,
        answer: Result<Arrival, FetchError>,
    ) -> Found {
        let is_final = match expectation {
            Expectation::None => return Found::last_word(answer),
            // A generation is read anew as a whole, behind the scenes.
            Expectation::Known(_) if self.wanted.facts.role.is_some() => {
                return Found::last_word(answer);
            }
            Expectation::Known(_) => self.read_again_if(is_gone(&answer), expectation).await,
            Expectation::Pending(_) | Expectation::Unasked => self
                .inquiry
                .look_up(expectation, self.wanted, answer.is_ok())
                .await
                .is_last_word(),
        };
        match self.named(expectation) {
            Some(place) => Found::last_word(self.at(Some(place)).await),
            // Where no document says where files are, the usual place has the last word whatever the document says of this one.
            None => Found {
                answer,
                is_final: is_final || !self.wanted.format.profile().links_elsewhere,
            },
        }
    }

    /// A place that a document has named or a redirect has led to does not give it.
    async fn after_named(
        &self,
        expectation: &mut Expectation,
        place: Url,
        answer: Result<Arrival, FetchError>,
    ) -> Found {
        let is_hint = is_hint(self.wanted, Some(&place));
        // What is not vouched for is not taken from where the document does not say that it is.
        let is_allowed = is_hint || expectation.is_stated();
        if is_allowed && !self.spoilt.has(&None) {
            let usual = self.at(None).await;
            if is_hint || self.is_given(&usual) {
                return Found::last_word(usual);
            }
        }
        if !is_hint {
            self.read_again_if(is_gone(&answer), expectation).await;
            if let Some(other) = self.named(expectation).filter(|other| *other != place) {
                return Found::last_word(self.at(Some(other)).await);
            }
        }
        Found::last_word(answer)
    }

    /// A place where the held document says that the file is refuses it (`gone`): the document is out of date, and is read once more.
    /// Whether the upstream's last word is known then.
    async fn read_again_if(&self, gone: bool, expectation: &mut Expectation) -> bool {
        if !gone {
            return true;
        }
        let lookup = self.inquiry.learn_again(self.wanted).await;
        let is_last_word = lookup.is_last_word();
        if let Lookup::Claim(claim) = lookup {
            *expectation = Expectation::Known(claim);
        }
        is_last_word
    }
}

/// Whether an answer speaks of the file, and not of the server or of larder's own rights.
fn is_gone(answer: &Result<Arrival, FetchError>) -> bool {
    answer.as_ref().is_ok_and(|arrival| {
        let status = arrival.response.status;
        status.is_client_error() && !matches!(status.as_u16(), 407 | 408 | 425 | 429)
    })
}

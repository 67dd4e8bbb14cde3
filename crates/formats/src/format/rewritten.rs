//! What is made of a document, in pieces: most of a rewritten document is what it is made of, as it stands there, and a long one is not
//! held a second time (docs/adr/0090).

use crate::splice::Splicer;
use crate::{Derived, Piece};

/// The result of a derivation, not put together yet.
#[derive(Debug)]
pub struct Rewritten<'d> {
    /// What it consists of.
    pub body: Pieces<'d>,
    /// `Content-Type`.
    pub content_type: &'static str,
}

impl Rewritten<'_> {
    /// The same in one piece.
    pub fn into_derived(self) -> Derived {
        Derived {
            body: self.body.into_bytes(),
            content_type: self.content_type,
        }
    }
}

impl From<Derived> for Rewritten<'_> {
    fn from(derived: Derived) -> Self {
        Self {
            body: derived.body.into(),
            content_type: derived.content_type,
        }
    }
}

/// A body that consists of parts of a document, `'d`, and of what is written in the place of others.
#[derive(Debug)]
pub struct Pieces<'d>(Form<'d>);

#[derive(Debug)]
enum Form<'d> {
    /// All of it was written anew.
    Whole(Vec<u8>),
    Spliced(Splicer<'d>),
}

impl<'d> Pieces<'d> {
    pub(crate) fn spliced(splicer: Splicer<'d>) -> Self {
        Self(Form::Spliced(splicer))
    }

    /// How long it is, in bytes.
    pub fn length(&self) -> usize {
        match &self.0 {
            Form::Whole(body) => body.len(),
            Form::Spliced(splicer) => splicer.length(),
        }
    }

    /// Everything in it that is not copied, one piece behind the other.
    pub fn written(&self) -> &[u8] {
        match &self.0 {
            Form::Whole(body) => body,
            Form::Spliced(splicer) => splicer.written(),
        }
    }

    /// Hands it on, piece by piece.
    ///
    /// # Errors
    /// The first one of `take`, at which it ends.
    pub fn each<E>(&self, mut take: impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        match &self.0 {
            Form::Whole(text) => take(Piece::Written { text, from: 0 }),
            Form::Spliced(splicer) => splicer.each(take),
        }
    }

    /// All of it in one piece.
    pub fn into_bytes(self) -> Vec<u8> {
        match self.0 {
            Form::Whole(body) => body,
            Form::Spliced(splicer) => splicer.finish(),
        }
    }
}

impl From<Vec<u8>> for Pieces<'_> {
    fn from(body: Vec<u8>) -> Self {
        Self(Form::Whole(body))
    }
}

//! What of a document's entries may not be seen, and how long that holds. A document is derived for what is hidden in it, so that hidden
//! sets stand in the names of derivations; and an answer is remembered no longer than its hidden set stays as it is.

use larder_core::{Digest, UnixMillis, sha256};

/// What is hidden, by name only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Visibility {
    hidden: Option<Digest>,
    clear_until: Option<UnixMillis>,
}

impl Visibility {
    /// Hides what `decided` stands for: the hidden entries themselves, or all that decides which they are, in any order. It holds until
    /// `clear_until`, when the next of them may be seen; `None`: as long as the rules hold. Nothing hidden is [the default](Self::default).
    pub(crate) fn hiding(mut decided: Vec<String>, clear_until: Option<UnixMillis>) -> Self {
        decided.sort_unstable();
        let mut text = Vec::new();
        for one in &decided {
            text.extend((one.len() as u64).to_le_bytes());
            text.extend(one.as_bytes());
        }
        Self {
            hidden: (!decided.is_empty()).then(|| sha256(&text)),
            clear_until: clear_until.filter(|_| !decided.is_empty()),
        }
    }

    /// What stands in the name of a derivation; `None` if nothing is hidden.
    pub(crate) fn hidden(&self) -> Option<&Digest> {
        self.hidden.as_ref()
    }

    /// Whether anything is hidden only for a time.
    pub(crate) fn is_timed(&self) -> bool {
        self.clear_until.is_some()
    }

    /// The end of something that holds until `fresh_until` (`None` = for ever), where it shows no more than this.
    pub(crate) fn bound(&self, fresh_until: Option<UnixMillis>) -> Option<UnixMillis> {
        match (fresh_until, self.clear_until) {
            (Some(fresh), Some(clear)) => Some(fresh.min(clear)),
            (one, other) => one.or(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hiding(names: &[&str]) -> Visibility {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        Visibility::hiding(names, Some(UnixMillis(50)))
    }

    #[test]
    fn two_hidden_sets_have_two_names_and_nothing_hidden_has_none() {
        assert_eq!(hiding(&["a", "b"]), hiding(&["b", "a"]), "a set");
        let different = [hiding(&["a"]), hiding(&["ab"]), hiding(&["a", "b"])];
        for (place, one) in different.iter().enumerate() {
            assert!(one.hidden().is_some());
            for other in different.iter().skip(place + 1) {
                assert_ne!(one.hidden(), other.hidden());
            }
        }
        assert_eq!(hiding(&[]), Visibility::default());
        assert_eq!(Visibility::default().hidden(), None);
    }

    #[test]
    fn an_answer_holds_no_longer_than_its_hidden_set() {
        let at = |millis| Some(UnixMillis(millis));
        let hidden = hiding(&["a"]);
        assert_eq!(hidden.bound(at(40)), at(40));
        assert_eq!(hidden.bound(at(60)), at(50));
        assert_eq!(hidden.bound(None), at(50), "what would hold for ever");
        assert!(hidden.is_timed());
        assert_eq!(Visibility::default().bound(at(60)), at(60));
        assert_eq!(Visibility::default().bound(None), None);
        assert!(!Visibility::default().is_timed());
    }
}

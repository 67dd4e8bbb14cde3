//! The last errors: faults of larder's own, failures of upstreams, and bytes that were not what they should be. Not what is an ordinary
//! answer to a client.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use larder_core::{ErrorCode, Fault, UnixMillis};

use crate::fault::is_failure;

/// So many are remembered.
const MOST: usize = 200;
/// Messages and paths are cut at so many bytes.
const LONGEST: usize = 512;

/// An error that clients were told of, perhaps several times in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecentError {
    /// When it happened last.
    pub at: UnixMillis,
    /// The repository's name; empty if there is none.
    pub repository: String,
    /// The path of the last request, as it was asked for, without its query.
    pub path: String,
    /// The word that clients were told.
    pub code: ErrorCode,
    /// What they were told. No secrets.
    pub message: String,
    /// The last request, as its answer and the log name it.
    pub request_id: String,
    /// How often it happened in a row: with no other error of that repository in between.
    pub times: u64,
}

/// The last errors. Bounded; gone with the process.
#[derive(Debug, Default)]
pub struct RecentErrors(Mutex<VecDeque<RecentError>>);

impl RecentErrors {
    /// Notes a fault that a client was told of, if it is of this kind. `broke_off`: it ended a body whose head had been sent.
    pub fn note(
        &self,
        fault: &Fault,
        broke_off: bool,
        (repository, path, request_id): (&str, &str, String),
        now: UnixMillis,
    ) {
        if !(broke_off || is_failure(fault)) {
            return;
        }
        let new = RecentError {
            at: now,
            repository: repository.to_owned(),
            path: cut(path),
            code: fault.code,
            message: cut(&fault.message),
            request_id,
            times: 1,
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_of = |known: &RecentError| known.repository == new.repository;
        match all.iter().rposition(is_of) {
            Some(last) if all[last].code == new.code => {
                let times = all[last].times + 1;
                all.remove(last);
                all.push_back(RecentError { times, ..new });
            }
            _ => all.push_back(new),
        }
        if all.len() > MOST {
            all.pop_front();
        }
    }

    /// Those that are remembered, the last first.
    pub fn all(&self) -> Vec<RecentError> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().rev().cloned().collect()
    }
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(LONGEST);
    let mut cut = text[..end].to_owned();
    if end < text.len() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use larder_core::FaultKind;

    use super::*;

    fn note(errors: &RecentErrors, repository: &str, kind: FaultKind, code: ErrorCode, at: i64) {
        let fault = Fault::new(kind, code, "what happened");
        let request = (repository, "a/b", format!("id-{at}"));
        errors.note(&fault, false, request, UnixMillis(at));
    }

    #[test]
    fn what_comes_again_is_one_error_and_what_is_nobody_s_fault_is_none() {
        let errors = RecentErrors::default();
        let (away, late) = (ErrorCode::UpstreamUnreachable, ErrorCode::UpstreamTimeout);
        note(&errors, "a", FaultKind::BadGateway, away, 1);
        note(&errors, "b", FaultKind::GatewayTimeout, late, 2);
        note(&errors, "a", FaultKind::BadGateway, away, 3);
        note(&errors, "a", FaultKind::NotFound, ErrorCode::NotFound, 4);
        note(
            &errors,
            "a",
            FaultKind::Forbidden,
            ErrorCode::PatternDenied,
            5,
        );
        note(&errors, "a", FaultKind::GatewayTimeout, late, 6);
        note(&errors, "a", FaultKind::BadGateway, away, 7);
        let seen: Vec<_> = errors
            .all()
            .into_iter()
            .map(|error| {
                (
                    error.at.0,
                    error.repository,
                    error.code,
                    error.times,
                    error.request_id,
                )
            })
            .collect();
        let expected = [
            (7, "a", away, 1),
            (6, "a", late, 1),
            (3, "a", away, 2),
            (2, "b", late, 1),
        ];
        let expected = expected.map(|(at, repository, code, times)| {
            (at, repository.to_owned(), code, times, format!("id-{at}"))
        });
        assert_eq!(seen, expected);
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let errors = RecentErrors::default();
        for at in 0..500 {
            let repository = format!("r{at}");
            note(
                &errors,
                &repository,
                FaultKind::Internal,
                ErrorCode::Internal,
                at,
            );
        }
        let all = errors.all();
        assert_eq!((all.len(), all[0].at.0, all[199].at.0), (MOST, 499, 300));
        let long = Fault::new(FaultKind::Internal, ErrorCode::Internal, "é".repeat(10_000));
        errors.note(&long, false, ("", "x", String::new()), UnixMillis(1));
        assert!(errors.all()[0].message.len() <= LONGEST + '…'.len_utf8());
    }
}

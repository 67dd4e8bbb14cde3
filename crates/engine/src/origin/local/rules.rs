//! What may be written to a local repository. The same rules are asked twice: before the body is read, so that nothing is sent in
//! vain, and inside the transaction, where the answer counts.

use http::HeaderMap;
use http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use larder_core::{
    BlobDescriptor, Conditions, Current, Digest, ErrorCode, Fault, FaultKind, LocalSettings,
    Precondition, RepositoryName, UnixMillis, condition_of_write, evaluate_conditions, field_text,
};
use larder_storage::{LocalDecision, LocalFile, LocalState};

use super::place::Place;

/// The conditions of a request that changes something (RFC 9110 section 13.1; `If-Modified-Since` is for reads alone).
#[derive(Debug, Clone, Default)]
pub(super) struct WriteConditions {
    if_match: Option<String>,
    if_none_match: Option<String>,
    if_unmodified_since: Option<String>,
}

impl WriteConditions {
    /// Reads the fields. One that cannot be read is a fault: taken for none, it would let through what it was to prevent.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Fault> {
        let joined = |name: &HeaderName| {
            let lines = headers.get_all(name).iter().map(field_text);
            let lines: Vec<_> = lines.collect();
            (!lines.is_empty()).then(|| lines.join(", "))
        };
        let tags = |name: HeaderName| match joined(&name) {
            None => Ok(None),
            Some(list) => match condition_of_write(&list) {
                None => Err(unreadable(&name)),
                Some(list) => Ok(Some(list.to_owned())),
            },
        };
        let if_match = tags(IF_MATCH)?;
        // Beside the tags the date counts for nothing (RFC 9110 section 13.1.4).
        let date = joined(&IF_UNMODIFIED_SINCE).filter(|_| if_match.is_none());
        if let Some(date) = &date
            && UnixMillis::from_http_date(date).is_none()
        {
            return Err(unreadable(&IF_UNMODIFIED_SINCE));
        }
        Ok(Self {
            if_match,
            if_none_match: tags(IF_NONE_MATCH)?,
            if_unmodified_since: date,
        })
    }

    /// Whether they hold for what is there.
    fn hold(&self, state: &LocalState) -> bool {
        if !state.exists {
            return self.if_match.is_none();
        }
        let (etag, modified) = state.file.as_ref().map_or((None, None), |file| {
            (Some(etag(&file.blob.digest)), Some(file.written_at))
        });
        let modified = modified.map(UnixMillis::to_http_date);
        let current = Current {
            etag: etag.as_deref(),
            last_modified: modified.as_deref(),
            served_since: None,
        };
        let conditions = Conditions {
            if_match: self.if_match.as_deref(),
            if_none_match: self.if_none_match.as_deref(),
            if_unmodified_since: self.if_unmodified_since.as_deref(),
            ..Conditions::default()
        };
        evaluate_conditions(&conditions, &current) == Precondition::Proceed
    }

    /// The fault if they do not.
    pub(super) fn check(
        &self,
        repository: &RepositoryName,
        state: &LocalState,
    ) -> Result<(), Fault> {
        if self.hold(state) {
            return Ok(());
        }
        let there = match (&state.file, state.exists) {
            (Some(file), _) => format!("there is a file with the ETag {}", etag(&file.blob.digest)),
            (None, true) => "there is a file".to_owned(),
            (None, false) => "there is no file".to_owned(),
        };
        let message =
            format!("a condition of the request does not hold: {there}; nothing was changed");
        Err(Fault::new(
            FaultKind::PreconditionFailed,
            ErrorCode::PreconditionFailed,
            message,
        )
        .in_repository(repository))
    }
}

fn unreadable(field: &HeaderName) -> Fault {
    let message = format!(
        "the condition in {field} cannot be read, so that nobody knows whether it holds, and nothing was changed: send `*`, or tags in \
         quotes with commas between, or a date of HTTP"
    );
    Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message).by_rule(field.as_str())
}

/// The strong tag of a file: its bytes and nothing else decide.
pub(super) fn etag(digest: &Digest) -> String {
    format!("\"sha256-{}\"", digest.to_hex())
}

/// Everything that decides about an upload.
#[derive(Debug, Clone)]
pub(super) struct UploadRules {
    repository: RepositoryName,
    settings: LocalSettings,
    conditions: WriteConditions,
}

impl UploadRules {
    pub(super) fn of(place: &Place<'_>, headers: &HeaderMap) -> Result<Self, Fault> {
        Ok(Self {
            repository: place.repository().clone(),
            settings: place.settings.clone(),
            conditions: WriteConditions::of(headers)?,
        })
    }

    /// What can be said before the body is read, of its length and its SHA-256 as far as they are stated.
    pub(super) fn before_the_body(
        &self,
        state: &LocalState,
        length: Option<u64>,
        sha256: Option<&Digest>,
    ) -> Result<(), Fault> {
        self.conditions.check(&self.repository, state)?;
        if let Some(length) = length {
            self.check_size(length)?;
        }
        let held = state.file.as_ref().map(|file| &file.blob);
        let differs = held.is_some_and(|blob| {
            length.is_some_and(|length| length != blob.size)
                || sha256.is_some_and(|digest| *digest != blob.digest)
        });
        if differs && !self.settings.allow_overwrite {
            return Err(self.exists());
        }
        // A body of unknown length has at least none.
        self.check_quota(state, length.unwrap_or(0))
    }

    /// How many bytes are read at most: with one more, [`too_much`](Self::too_much) has a fault.
    pub(super) fn most(&self, state: &LocalState) -> u64 {
        let others = state.usage.bytes.saturating_sub(state.size);
        let room = self.settings.quota;
        let room = room.map(|quota| quota.saturating_sub(others).max(state.size));
        let bounds = [self.settings.max_size, room];
        bounds.into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    /// What is wrong with a body that has come to so many bytes.
    pub(super) fn too_much(&self, state: &LocalState, size: u64) -> Result<(), Fault> {
        self.check_size(size)?;
        self.check_quota(state, size)
    }

    /// What becomes of the upload, from what is there when it is written.
    pub(super) fn decide(&self, state: &LocalState, new: &LocalFile) -> LocalDecision<Fault> {
        match self.judge(state, &new.blob) {
            Err(fault) => LocalDecision::Refuse(fault),
            Ok(()) => match &state.file {
                Some(held) if held.blob == new.blob => {
                    if held.headers == new.headers || !self.settings.allow_overwrite {
                        LocalDecision::Keep
                    } else {
                        LocalDecision::Change
                    }
                }
                _ => LocalDecision::Change,
            },
        }
    }

    fn judge(&self, state: &LocalState, new: &BlobDescriptor) -> Result<(), Fault> {
        self.conditions.check(&self.repository, state)?;
        let is_same = state.file.as_ref().is_some_and(|file| file.blob == *new);
        if state.exists && !is_same && !self.settings.allow_overwrite {
            return Err(self.exists());
        }
        self.check_quota(state, new.size)
    }

    fn check_size(&self, size: u64) -> Result<(), Fault> {
        let Some(most) = self.settings.max_size.filter(|most| size > *most) else {
            return Ok(());
        };
        let message = format!(
            "repository {} takes files of at most {most} bytes (max_size); nothing was kept",
            self.repository
        );
        Err(
            Fault::new(FaultKind::TooLarge, ErrorCode::BodyTooLarge, message)
                .in_repository(&self.repository)
                .by_rule("max_size"),
        )
    }

    /// What brings no more than it replaces may come in also where there is more than the quota already.
    fn check_quota(&self, state: &LocalState, size: u64) -> Result<(), Fault> {
        let others = state.usage.bytes.saturating_sub(state.size);
        let exceeds = |quota: &u64| size > state.size && others.saturating_add(size) > *quota;
        let Some(quota) = self.settings.quota.filter(exceeds) else {
            return Ok(());
        };
        let message = format!(
            "repository {} may hold {quota} bytes (quota) and holds {}: there is no room for this upload; delete files, or \
             raise quota",
            self.repository, state.usage.bytes
        );
        Err(Fault::new(
            FaultKind::InsufficientStorage,
            ErrorCode::QuotaExceeded,
            message,
        )
        .in_repository(&self.repository)
        .by_rule("quota"))
    }

    /// Why a file of an archive is left out.
    pub(super) fn another(&self) -> Fault {
        let message = "another file is there, and stays; import it with --overwrite to replace it";
        Fault::new(FaultKind::Conflict, ErrorCode::AlreadyExists, message)
            .in_repository(&self.repository)
            .by_rule("overwrite")
    }

    fn exists(&self) -> Fault {
        let message = format!(
            "repository {} has another file under this path already, and allow_overwrite is false: choose another path, \
             or delete the file first",
            self.repository
        );
        Fault::new(FaultKind::Conflict, ErrorCode::AlreadyExists, message)
            .in_repository(&self.repository)
            .by_rule("allow_overwrite")
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::IF_MODIFIED_SINCE;
    use larder_core::{StoredHeaders, sha256};
    use larder_storage::LocalUsage;

    use super::*;

    /// 1994-11-06T08:49:37.5Z, half a second behind RFC 9110's own example of a date.
    const UPLOADED: UnixMillis = UnixMillis(784_111_777_500);

    fn file(bytes: &[u8]) -> LocalFile {
        LocalFile {
            blob: BlobDescriptor {
                digest: sha256(bytes),
                size: bytes.len() as u64,
            },
            headers: StoredHeaders::default(),
            uploaded_at: UPLOADED,
            written_at: UPLOADED,
        }
    }

    fn holding(bytes: &[u8]) -> LocalState {
        let file = file(bytes);
        LocalState {
            exists: true,
            size: file.blob.size,
            usage: LocalUsage {
                files: 2,
                bytes: file.blob.size + 100,
            },
            file: Some(file),
        }
    }

    fn rules(settings: LocalSettings, fields: &[(HeaderName, &str)]) -> UploadRules {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        UploadRules {
            repository: RepositoryName::parse("local").unwrap(),
            settings,
            conditions: WriteConditions::of(&headers).unwrap(),
        }
    }

    fn code(decision: &LocalDecision<Fault>) -> &'static str {
        match decision {
            LocalDecision::Change => "change",
            LocalDecision::Keep => "keep",
            LocalDecision::Refuse(fault) => fault.code.as_str(),
        }
    }

    #[test]
    fn conditions_are_those_of_rfc_9110_for_a_request_that_writes() {
        let open = LocalSettings {
            allow_overwrite: true,
            ..LocalSettings::default()
        };
        let (own, other) = (etag(&sha256(b"old")), etag(&sha256(b"other")));
        let weak = format!("W/{own}");
        for (name, value, there, absent) in [
            (IF_NONE_MATCH, "*", "precondition_failed", "change"),
            (IF_NONE_MATCH, &*own, "precondition_failed", "change"),
            (IF_NONE_MATCH, &*weak, "precondition_failed", "change"),
            (IF_NONE_MATCH, "*, \"x\"", "precondition_failed", "change"),
            (IF_NONE_MATCH, &*other, "change", "change"),
            (IF_MATCH, "*", "change", "precondition_failed"),
            (IF_MATCH, &*own, "change", "precondition_failed"),
            // If-Match compares strongly (RFC 9110 section 13.1.1).
            (
                IF_MATCH,
                &*weak,
                "precondition_failed",
                "precondition_failed",
            ),
            (
                IF_MATCH,
                &*other,
                "precondition_failed",
                "precondition_failed",
            ),
            (
                IF_UNMODIFIED_SINCE,
                "Sun, 06 Nov 1994 08:49:36 GMT",
                "precondition_failed",
                "change",
            ),
            (
                IF_UNMODIFIED_SINCE,
                "Sun, 06 Nov 1994 08:49:37 GMT",
                "change",
                "change",
            ),
            (
                IF_MODIFIED_SINCE,
                "Sun, 06 Nov 1994 08:49:38 GMT",
                "change",
                "change",
            ),
        ] {
            let rules = rules(open.clone(), &[(name.clone(), value)]);
            let (new, nothing) = (file(b"new"), LocalState::default());
            assert_eq!(
                code(&rules.decide(&holding(b"old"), &new)),
                there,
                "{name}: {value}"
            );
            assert_eq!(
                code(&rules.decide(&nothing, &new)),
                absent,
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn a_condition_that_cannot_be_read_is_a_fault() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (lines, is_read) in [
            (&[(IF_NONE_MATCH, "*"), (IF_NONE_MATCH, "*")][..], true),
            (&[(IF_NONE_MATCH, "\"x")], false),
            (&[(IF_NONE_MATCH, "x")], false),
            (&[(IF_MATCH, "\"x\"y")], false),
            (&[(IF_UNMODIFIED_SINCE, "soon")], false),
            (
                &[(IF_UNMODIFIED_SINCE, date), (IF_UNMODIFIED_SINCE, date)],
                false,
            ),
            (&[(IF_UNMODIFIED_SINCE, "soon"), (IF_MATCH, "*")], true),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(name, HeaderValue::from_static(value));
            }
            let read = WriteConditions::of(&headers).map_err(|fault| fault.kind);
            assert_eq!(read.is_ok(), is_read, "{lines:?}: {read:?}");
            assert!(is_read || read.is_err_and(|kind| kind == FaultKind::BadRequest));
        }
    }

    #[test]
    fn overwriting_where_it_is_not_allowed() {
        let closed = rules(LocalSettings::default(), &[]);
        assert_eq!(
            code(&closed.decide(&LocalState::default(), &file(b"a"))),
            "change"
        );
        assert_eq!(code(&closed.decide(&holding(b"a"), &file(b"a"))), "keep");
        assert_eq!(
            code(&closed.decide(&holding(b"a"), &file(b"b"))),
            "already_exists"
        );
        let damaged = LocalState {
            file: None,
            ..holding(b"a")
        };
        assert_eq!(
            code(&closed.decide(&damaged, &file(b"a"))),
            "already_exists"
        );
        // What is known before the body is read spares reading it.
        let early = |length, digest: Option<&[u8]>| {
            let digest = digest.map(sha256);
            closed
                .before_the_body(&holding(b"a"), length, digest.as_ref())
                .map_err(|fault| fault.code)
        };
        assert_eq!(early(Some(2), None), Err(ErrorCode::AlreadyExists));
        assert_eq!(early(Some(1), Some(b"b")), Err(ErrorCode::AlreadyExists));
        assert_eq!(early(Some(1), Some(b"a")), Ok(()));
        assert_eq!(early(None, None), Ok(()));
    }

    #[test]
    fn sizes_are_bounded_before_and_while_the_body_comes() {
        let bounded = rules(
            LocalSettings {
                allow_overwrite: true,
                max_size: Some(10),
                quota: Some(105),
            },
            &[],
        );
        // 100 bytes are of other files: 5 are left, whatever the file itself has now.
        let state = holding(b"abc");
        assert_eq!(bounded.most(&state), 5);
        assert_eq!(code(&bounded.decide(&state, &file(b"12345"))), "change");
        assert_eq!(
            code(&bounded.decide(&state, &file(b"123456"))),
            "quota_exceeded"
        );
        let early = |length| {
            bounded
                .before_the_body(&state, Some(length), None)
                .map_err(|fault| (fault.kind, fault.code))
        };
        assert_eq!(early(5), Ok(()));
        assert_eq!(
            early(6),
            Err((FaultKind::InsufficientStorage, ErrorCode::QuotaExceeded))
        );
        assert_eq!(
            early(11),
            Err((FaultKind::TooLarge, ErrorCode::BodyTooLarge))
        );
        let unbounded = rules(LocalSettings::default(), &[]);
        assert_eq!(unbounded.most(&state), u64::MAX);
        // Where a quota has been lowered, what does not grow is taken, the same bytes again first of all.
        let lowered = rules(
            LocalSettings {
                quota: Some(50),
                ..LocalSettings::default()
            },
            &[],
        );
        assert_eq!(lowered.most(&state), 3);
        assert_eq!(code(&lowered.decide(&state, &file(b"abc"))), "keep");
        let nothing = LocalState {
            exists: false,
            size: 0,
            file: None,
            ..holding(b"abc")
        };
        assert_eq!(
            code(&lowered.decide(&nothing, &file(b"a"))),
            "quota_exceeded"
        );
        assert_eq!(code(&lowered.decide(&nothing, &file(b""))), "change");
    }
}

//! The digests that a request states of its body: `Repr-Digest` and `Content-Digest` (RFC 9530), `Digest` (RFC 3230), `Content-MD5`
//! (RFC 1864) and `X-Checksum-*`, in the head or behind the body. What is stated is enforced; algorithms that are not known are passed
//! over, as those documents want.

use http::HeaderMap;
use http::header::TRAILER;
use larder_core::{
    Digest, DigestAlgorithm, ErrorCode, Fault, FaultKind, InvalidDigest, field_text,
};

/// Fields whose value is the digest in hexadecimal digits, with and without the dash that the algorithms' own names have.
const IN_HEX: [(&str, DigestAlgorithm); 9] = [
    ("x-checksum-md5", DigestAlgorithm::Md5),
    ("x-checksum-sha1", DigestAlgorithm::Sha1),
    ("x-checksum-sha-1", DigestAlgorithm::Sha1),
    ("x-checksum-sha256", DigestAlgorithm::Sha256),
    ("x-checksum-sha-256", DigestAlgorithm::Sha256),
    ("x-checksum-sha384", DigestAlgorithm::Sha384),
    ("x-checksum-sha-384", DigestAlgorithm::Sha384),
    ("x-checksum-sha512", DigestAlgorithm::Sha512),
    ("x-checksum-sha-512", DigestAlgorithm::Sha512),
];

/// Fields whose value names the algorithm.
const IN_WORDS: [&str; 3] = ["repr-digest", "content-digest", "digest"];

/// What such a field can state.
const KNOWN: [DigestAlgorithm; 5] = [
    DigestAlgorithm::Md5,
    DigestAlgorithm::Sha1,
    DigestAlgorithm::Sha256,
    DigestAlgorithm::Sha384,
    DigestAlgorithm::Sha512,
];

/// A digest with the field that states it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stated {
    field: &'static str,
    digest: Digest,
}

/// All that a request states of its body, in its head or behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Checksums {
    stated: Vec<Stated>,
    /// By which algorithms `Trailer` announces more.
    announced: Vec<DigestAlgorithm>,
}

impl Checksums {
    /// Reads the fields. A digest of a known algorithm that is malformed is a fault: it cannot be enforced.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Fault> {
        let mut all = Vec::new();
        let mut state = |field: &'static str, digest: Result<Digest, InvalidDigest>| {
            let digest = digest.map_err(|_| malformed(field))?;
            all.push(Stated { field, digest });
            Ok::<(), Fault>(())
        };
        for (field, algorithm) in IN_HEX {
            for value in headers.get_all(field) {
                state(field, Digest::from_hex(algorithm, field_text(value).trim()))?;
            }
        }
        for value in headers.get_all("content-md5") {
            let text = field_text(value);
            state(
                "content-md5",
                Digest::from_base64(DigestAlgorithm::Md5, text.trim()),
            )?;
        }
        for value in headers.get_all("digest") {
            for (name, text) in members(&field_text(value)) {
                if let Some(algorithm) = algorithm(name) {
                    state("digest", Digest::from_base64(algorithm, text))?;
                }
            }
        }
        for field in ["repr-digest", "content-digest"] {
            for value in headers.get_all(field) {
                for (name, text) in members(&field_text(value)) {
                    if let Some(algorithm) = algorithm(name) {
                        state(
                            field,
                            byte_sequence(text)
                                .and_then(|text| Digest::from_byte_sequence(algorithm, text)),
                        )?;
                    }
                }
            }
        }
        Ok(Self {
            stated: all,
            announced: announced(headers),
        })
    }

    /// The algorithms beside SHA-256 that are needed to compare.
    pub(super) fn algorithms(&self) -> Vec<DigestAlgorithm> {
        let stated = self.stated.iter().map(|stated| stated.digest.algorithm());
        stated.chain(self.announced.iter().copied()).collect()
    }

    /// The SHA-256 that is stated.
    pub(super) fn sha256(&self) -> Option<&Digest> {
        let mut digests = self.stated.iter().map(|stated| &stated.digest);
        digests.find(|digest| digest.algorithm() == DigestAlgorithm::Sha256)
    }

    /// Compares with the digests of the bytes that came.
    pub(super) fn compare(&self, actual: &[Digest]) -> Result<(), Fault> {
        let wrong = self.stated.iter().find_map(|stated| {
            let of_kind = |digest: &&Digest| digest.algorithm() == stated.digest.algorithm();
            let found = actual.iter().find(of_kind);
            (found != Some(&stated.digest)).then_some((stated, found))
        });
        let Some((stated, found)) = wrong else {
            return Ok(());
        };
        let Some(found) = found else {
            return Err(unannounced(stated));
        };
        let message = format!(
            "the body has the digest {found}, and {} says {}: nothing was kept; send the file again",
            stated.field, stated.digest
        );
        Err(
            Fault::new(FaultKind::BadRequest, ErrorCode::ChecksumMismatch, message)
                .by_rule(stated.field)
                .briefly(format!("the body is not what {} says", stated.field)),
        )
    }
}

/// By which algorithms digests may come behind the body, as `Trailer` says: they are computed while it comes.
fn announced(headers: &HeaderMap) -> Vec<DigestAlgorithm> {
    let mut all = Vec::new();
    for line in headers.get_all(TRAILER) {
        for name in field_text(line).split(',').map(str::trim) {
            let is = |field: &&str| field.eq_ignore_ascii_case(name);
            if IN_WORDS.iter().any(is) {
                all.extend(KNOWN);
            } else if is(&"content-md5") {
                all.push(DigestAlgorithm::Md5);
            } else if let Some((_, algorithm)) = IN_HEX.iter().find(|(field, _)| is(field)) {
                all.push(*algorithm);
            }
        }
    }
    all
}

/// The body has gone by, and nobody knew that this digest would be asked for.
fn unannounced(stated: &Stated) -> Fault {
    let message = format!(
        "{} behind the body states a {}, which the head has not announced: nothing was kept; name the field in `Trailer`, or send it in \
         the head",
        stated.field,
        stated.digest.algorithm().as_str()
    );
    Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message).by_rule(stated.field)
}

/// The names of RFC 9530 and of RFC 3230.
fn algorithm(name: &str) -> Option<DigestAlgorithm> {
    Some(match name.to_ascii_lowercase().as_str() {
        "md5" => DigestAlgorithm::Md5,
        "sha" => DigestAlgorithm::Sha1,
        "sha-256" => DigestAlgorithm::Sha256,
        "sha-384" => DigestAlgorithm::Sha384,
        "sha-512" => DigestAlgorithm::Sha512,
        _ => return None,
    })
}

/// `name=value` between commas. Neither form of a value holds a comma. What has no value, or parameters in its place, is a member all the
/// same, with a value that is malformed: what is stated of a known algorithm is not passed over.
fn members(field: &str) -> impl Iterator<Item = (&str, &str)> {
    field.split(',').map(|member| {
        let (name, value) = member.split_once('=').unwrap_or((member, ""));
        let name = name.split(';').next().unwrap_or(name);
        (name.trim(), value.trim())
    })
}

/// The base64 between the colons of a byte sequence (RFC 9651 section 3.3.5), without parameters behind it.
fn byte_sequence(text: &str) -> Result<&str, InvalidDigest> {
    let value = text.split(';').next().unwrap_or(text).trim();
    value
        .strip_prefix(':')
        .and_then(|value| value.strip_suffix(':'))
        .ok_or_else(|| InvalidDigest(text.to_owned()))
}

fn malformed(field: &'static str) -> Fault {
    let message = format!(
        "the digest in {field} is malformed, so that it cannot be enforced: correct it or leave it out"
    );
    Fault::new(FaultKind::BadRequest, ErrorCode::BadRequest, message).by_rule(field)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use larder_core::Hasher;

    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    /// The representation `{"hello": "world"}` with a line feed, and its digests, from RFC 9530 appendix B; SHA-1,
    /// SHA-384, SHA-512 and MD5 by openssl.
    const BODY: &[u8] = b"{\"hello\": \"world\"}\n";
    const RIGHT: [(&str, &str); 15] = [
        (
            "repr-digest",
            "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:",
        ),
        (
            "content-digest",
            "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:;a=1",
        ),
        // Neither padding nor the bits behind the last byte matter (RFC 9651 section 4.2.7).
        (
            "repr-digest",
            "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg:",
        ),
        (
            "content-digest",
            "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDh=:",
        ),
        (
            "repr-digest",
            "unixsum=:AAA=:, sha-512=:YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCsyRZOtw8MjkM7iw7yZ/WkppmM44T3qg==:",
        ),
        (
            "repr-digest",
            "sha-256 = :RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:",
        ),
        (
            "digest",
            "SHA-256 =\tRK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=",
        ),
        (
            "digest",
            "SHA-256=RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=",
        ),
        (
            "digest",
            "UNIXsum=30637, sha-256=RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=",
        ),
        (
            "x-checksum-sha256",
            "44aff4ab2d7c3250525675a08f0cfa9591168cffe51791c5f5bbc417c15a6c38",
        ),
        (
            "x-checksum-sha1",
            "cb24c04e8b86279d12dd1e225a8b73deaaba3fd6",
        ),
        (
            "x-checksum-sha-1",
            "cb24c04e8b86279d12dd1e225a8b73deaaba3fd6",
        ),
        (
            "x-checksum-sha384",
            "cdbe448ec9c130a4407325e3018f356f67cc736e0aceb0f2f76865924d699941e3aa7b45d6f0655a893e6a64839d4b1d",
        ),
        ("content-md5", "UFIauregE76D7gDe0/n0JA=="),
        ("digest", "SHA=yyTATouGJ50S3R4iWotz3qq6P9Y="),
    ];

    fn actual(checksums: &Checksums) -> Vec<Digest> {
        let mut hasher = Hasher::new(&checksums.algorithms());
        hasher.update(BODY);
        hasher.finish()
    }

    #[test]
    fn every_form_is_read_and_compared() {
        for (field, value) in &RIGHT {
            let stated = Checksums::of(&headers(&[(field, value)])).unwrap();
            assert_eq!(stated.stated.len(), 1, "{field}: {value}");
            assert_eq!(stated.compare(&actual(&stated)), Ok(()), "{field}: {value}");
        }
    }

    #[test]
    fn hazard_w5_one_wrong_digest_among_right_ones_is_enough() {
        let mut fields = RIGHT.to_vec();
        fields.push(("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg=="));
        let stated = Checksums::of(&headers(&fields)).unwrap();
        let fault = stated.compare(&actual(&stated)).unwrap_err();
        assert_eq!(
            (fault.kind, fault.code, fault.rule.as_deref()),
            (
                FaultKind::BadRequest,
                ErrorCode::ChecksumMismatch,
                Some("content-md5")
            )
        );
    }

    #[test]
    fn digests_behind_the_body_are_compared_by_what_was_announced() {
        let sha256 = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
        let md5 = "md5=:UFIauregE76D7gDe0/n0JA==:";
        let sha1 = "cb24c04e8b86279d12dd1e225a8b73deaaba3fd6";
        let wrong = "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:";
        for (trailer, field, value, code) in [
            ("", "repr-digest", sha256, None),
            ("Repr-Digest", "repr-digest", md5, None),
            ("Expires, x-checksum-SHA1", "x-checksum-sha1", sha1, None),
            (
                "Repr-Digest",
                "repr-digest",
                wrong,
                Some(ErrorCode::ChecksumMismatch),
            ),
            ("", "repr-digest", md5, Some(ErrorCode::BadRequest)),
            (
                "x-checksum-sha1",
                "repr-digest",
                md5,
                Some(ErrorCode::BadRequest),
            ),
        ] {
            let head = Checksums::of(&headers(&[("trailer", trailer)])).unwrap();
            let behind = Checksums::of(&headers(&[(field, value)])).unwrap();
            let fault = behind.compare(&actual(&head)).err();
            assert_eq!(fault.map(|fault| fault.code), code, "{trailer}: {value}");
        }
    }

    #[test]
    fn what_is_known_and_malformed_is_refused_and_what_is_unknown_passed_over() {
        for (field, value) in [
            ("content-md5", "1B2M2Y8AsgTpgAmY7PhCf"),
            ("content-md5", "d41d8cd98f00b204e9800998ecf8427e"),
            ("x-checksum-sha256", "abc"),
            (
                "repr-digest",
                "sha-256=RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=",
            ),
            ("repr-digest", "sha-256=::"),
            ("repr-digest", "sha-256"),
            ("repr-digest", "unixsum=:AAA=:, sha-256;a=1"),
            ("content-digest", "sha-512="),
            ("digest", "SHA-256"),
            (
                "digest",
                "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:",
            ),
        ] {
            let fault = Checksums::of(&headers(&[(field, value)])).unwrap_err();
            assert_eq!(fault.kind, FaultKind::BadRequest, "{field}: {value}");
        }
        for (field, value) in [
            ("repr-digest", "crc32c=:AAAAAA==:"),
            ("digest", "UNIXsum=30637"),
            ("digest", ""),
        ] {
            assert_eq!(
                Checksums::of(&headers(&[(field, value)])),
                Ok(Checksums::default()),
                "{field}: {value}"
            );
        }
    }
}

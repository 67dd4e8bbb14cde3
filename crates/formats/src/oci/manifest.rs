//! What a manifest, an index or a list of tags must look like before it is kept (hazard W6, CVE-2021-41190).
//!
//! Bytes are looked at and never written again: one space more would be another digest.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::{Malformed, Meter};

/// Largest manifest: the specification asks for 4 MiB at least.
pub(super) const MAX_MANIFEST: u64 = 8 << 20;
/// Largest list of tags: a million of them.
pub(super) const MAX_TAGS: u64 = 64 << 20;
/// Most layers or manifests in one document.
const MAX_DESCRIPTORS: usize = 20_000;

/// The media types of indexes: these have `manifests` and no `layers`.
const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
/// The media types of manifests of one image: these have `layers` and no `manifests`.
const IMAGES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// The top level of a manifest. What stands below it is counted, not kept.
#[derive(Debug, Default)]
struct Outline {
    media_type: Option<String>,
    members: BTreeSet<&'static str>,
    descriptors: usize,
}

/// The members by which readers tell one kind of document from another.
const TELLING: [&str; 6] = [
    "mediaType",
    "config",
    "layers",
    "manifests",
    "fsLayers",
    "blobs",
];

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Top;
        impl<'de> Visitor<'de> for Top {
            type Value = Outline;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outline, A::Error> {
                let mut outline = Outline::default();
                while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
                    let Some(known) = TELLING
                        .into_iter()
                        .find(|known| known.eq_ignore_ascii_case(&key))
                    else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    // Readers differ in which of two they take, and some do not mind the case: there must be one.
                    if !outline.members.insert(known) {
                        return Err(serde::de::Error::custom(format!(
                            "`{known}` stands twice in it"
                        )));
                    }
                    match known {
                        // `null` is no type, as clients read it.
                        "mediaType" => outline.media_type = map.next_value()?,
                        "layers" | "manifests" | "fsLayers" | "blobs" => {
                            let items = map.next_value::<Option<Vec<IgnoredAny>>>()?;
                            outline.descriptors += items.map_or(0, |items| items.len());
                        }
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(outline)
            }
        }
        deserializer.deserialize_map(Top)
    }
}

/// Whether a body is the manifest that its `Content-Type` says it is.
pub(super) fn check_manifest(body: &[u8], content_type: &str) -> Result<(), Malformed> {
    let refuse = |reason: String| Err(Malformed(format!("the manifest {reason}")));
    let outline: Outline = match serde_json::from_slice(body) {
        Ok(outline) => outline,
        Err(error) => return refuse(format!("is not one: {error}")),
    };
    let has = |member| outline.members.contains(member);
    if has("manifests") && (has("layers") || has("fsLayers")) {
        return refuse(
            "has both `layers` and `manifests`: readers would not agree on what it is".to_owned(),
        );
    }
    let sent = content_type.split(';').next().unwrap_or_default().trim();
    if let Some(stated) = &outline.media_type
        && !stated.eq_ignore_ascii_case(sent)
    {
        return refuse(format!(
            "says that it is {stated:?}, and was sent as {sent:?}"
        ));
    }
    let is = |types: &[&str]| types.iter().any(|known| sent.eq_ignore_ascii_case(known));
    if is(&INDEXES) && !has("manifests") || is(&IMAGES) && (has("manifests") || has("fsLayers")) {
        return refuse(format!("was sent as {sent:?}, and is something else"));
    }
    if outline.descriptors > MAX_DESCRIPTORS {
        return refuse(format!(
            "names {} blobs; larder takes {MAX_DESCRIPTORS}",
            outline.descriptors
        ));
    }
    Ok(())
}

/// Whether a body is a list of tags.
pub(super) fn check_tags(body: &[u8], meter: &Meter) -> Result<(), Malformed> {
    #[derive(Deserialize)]
    struct Tags {
        /// Registries write `null` for an image without tags.
        tags: Option<Vec<IgnoredAny>>,
    }
    let parsed: Result<Tags, _> = serde_json::from_slice(body);
    let parsed =
        parsed.map_err(|error| Malformed(format!("the list of tags is not one: {error}")))?;
    // Items of no size: a list of millions takes nothing.
    parsed
        .tags
        .unwrap_or_default()
        .iter()
        .try_for_each(|_| meter.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    const SCHEMA2: &str = "application/vnd.docker.distribution.manifest.v2+json";
    const SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

    #[test]
    fn manifests_of_every_kind_pass() {
        for (body, content_type) in [
            (
                format!(
                    r#"{{"schemaVersion":2,"mediaType":"{OCI}","config":{{}},"layers":[{{}}]}}"#
                ),
                OCI,
            ),
            (
                r#"{"schemaVersion":2,"config":{},"layers":[]}"#.to_owned(),
                OCI,
            ),
            (
                r#"{"schemaVersion":2,"mediaType":null,"config":{},"layers":[]}"#.to_owned(),
                OCI,
            ),
            (
                r#"{"schemaVersion":2,"mediaType":null,"manifests":[]}"#.to_owned(),
                INDEX,
            ),
            (
                format!(r#"{{"mediaType":"{SCHEMA2}","config":{{}},"layers":[]}}"#),
                SCHEMA2,
            ),
            (
                format!(r#"{{"mediaType":"{INDEX}","manifests":[{{}},{{}}]}}"#),
                INDEX,
            ),
            (r#"{"manifests":[]}"#.to_owned(), LIST),
            (
                r#"{"schemaVersion":1,"fsLayers":[{}],"history":[]}"#.to_owned(),
                SIGNED,
            ),
            (
                format!(r#"{{"mediaType":"{OCI}","config":{{}},"layers":[]}}"#),
                &format!("{OCI}; charset=utf-8"),
            ),
        ] {
            assert_eq!(
                check_manifest(body.as_bytes(), content_type),
                Ok(()),
                "{body}"
            );
        }
    }

    #[test]
    fn hazard_w6_what_readers_may_take_for_two_things_is_refused() {
        for (body, content_type, reason) in [
            (
                r#"{"layers":[],"manifests":[]}"#.to_owned(),
                OCI,
                "both `layers` and `manifests`",
            ),
            (
                r#"{"manifests":[],"Layers":[]}"#.to_owned(),
                INDEX,
                "both `layers` and `manifests`",
            ),
            (
                r#"{"manifests":[],"fsLayers":[]}"#.to_owned(),
                INDEX,
                "both",
            ),
            (
                format!(r#"{{"mediaType":"{INDEX}","manifests":[]}}"#),
                OCI,
                "was sent as",
            ),
            (
                format!(r#"{{"mediaType":"{OCI}","layers":[]}}"#),
                "",
                "was sent as",
            ),
            (
                format!(r#"{{"mediaType":"{OCI}","mediaType":"{INDEX}","layers":[]}}"#),
                OCI,
                "stands twice",
            ),
            (
                format!(r#"{{"mediaType":null,"mediaType":"{INDEX}","layers":[]}}"#),
                OCI,
                "stands twice",
            ),
            (
                r#"{"mediaType":null,"layers":[],"config":{}}"#.to_owned(),
                INDEX,
                "is something else",
            ),
            (
                r#"{"mediaType":7,"layers":[],"config":{}}"#.to_owned(),
                OCI,
                "is not one",
            ),
            (
                r#"{"layers":[],"config":{}}"#.to_owned(),
                INDEX,
                "is something else",
            ),
            (
                r#"{"manifests":[]}"#.to_owned(),
                SCHEMA2,
                "is something else",
            ),
            ("<html>".to_owned(), OCI, "is not one"),
            ("[]".to_owned(), OCI, "is not one"),
            (r#"{"layers":[]}x"#.to_owned(), OCI, "is not one"),
            (r#"{"layers":7}"#.to_owned(), OCI, "is not one"),
        ] {
            let refused = check_manifest(body.as_bytes(), content_type).expect_err(&body);
            assert!(refused.0.contains(reason), "{body}: {refused}");
        }
    }

    #[test]
    fn depth_costs_no_stack_and_the_number_of_descriptors_is_bounded() {
        let deep = format!(
            r#"{{"layers":[],"x":{}{}}}"#,
            "[".repeat(2 << 20),
            "]".repeat(2 << 20)
        );
        assert_eq!(check_manifest(deep.as_bytes(), OCI), Ok(()));
        let of = |count: usize| format!(r#"{{"layers":[{}]}}"#, vec!["{}"; count].join(","));
        assert_eq!(check_manifest(of(20_000).as_bytes(), OCI), Ok(()));
        assert!(
            check_manifest(of(20_001).as_bytes(), OCI)
                .unwrap_err()
                .0
                .contains("20001 blobs")
        );
    }

    #[test]
    fn lists_of_tags() {
        for body in [
            r#"{"name":"a","tags":["1"]}"#,
            r#"{"name":"a","tags":null}"#,
            r#"{"tags":[]}"#,
        ] {
            assert_eq!(
                check_tags(body.as_bytes(), &Meter::default()),
                Ok(()),
                "{body}"
            );
        }
        for body in ["", "[]", r#"{"tags":"x"}"#, "<html>"] {
            assert!(
                check_tags(body.as_bytes(), &Meter::default()).is_err(),
                "{body}"
            );
        }
    }
}

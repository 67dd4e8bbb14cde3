//! What a manifest, an index or a list of tags names, by the paths under which clients ask for it. What is no descriptor, or no tag, is
//! passed over: whether the whole is what it should be has been asked before.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::path::Route;
use crate::{Claim, Links, Malformed};

/// Parts of the media types of layers that registries do not hand on.
const ELSEWHERE: [&str; 2] = [".foreign.", ".nondistributable."];

/// The descriptors of a manifest or of an index, as they stand there.
#[derive(Deserialize)]
struct Manifest<'d> {
    #[serde(borrow, default)]
    config: Option<&'d RawValue>,
    #[serde(borrow, default)]
    layers: Option<Vec<&'d RawValue>>,
    #[serde(borrow, default)]
    blobs: Option<Vec<&'d RawValue>>,
    #[serde(borrow, default)]
    manifests: Option<Vec<&'d RawValue>>,
    /// Of the first schema.
    #[serde(borrow, default, rename = "fsLayers")]
    fs_layers: Option<Vec<&'d RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(alias = "blobSum")]
    digest: String,
    #[serde(default)]
    size: Option<u64>,
}

/// What a manifest consists of, or which manifests an index has.
pub(super) fn by_manifest(
    body: &[u8],
    image: &str,
    links: &Links<'_>,
    sink: &mut dyn FnMut(Claim),
) -> Result<(), Malformed> {
    let Ok(text) = std::str::from_utf8(body) else {
        return Ok(());
    };
    let manifest: Manifest<'_> = serde_json::from_str(text)
        .map_err(|error| Malformed(format!("the manifest is not one: {error}")))?;
    let manifests = manifest.manifests.into_iter().flatten();
    let blobs = [manifest.layers, manifest.blobs, manifest.fs_layers];
    let blobs = blobs.into_iter().flatten().flatten();
    let all = manifests
        .map(|raw| ("manifests", raw))
        .chain(manifest.config.map(|raw| ("blobs", raw)))
        .chain(blobs.map(|raw| ("blobs", raw)));
    for (kind, raw) in all {
        links.meter().count()?;
        let Ok(descriptor) = serde_json::from_str::<Descriptor>(raw.get()) else {
            continue;
        };
        let media_type = descriptor.media_type.unwrap_or_default();
        if !ELSEWHERE.iter().any(|part| media_type.contains(part)) {
            let path = format!("{image}/{kind}/{}", descriptor.digest);
            claim(path, descriptor.size, links, sink);
        }
    }
    Ok(())
}

/// The tags that a list has.
pub(super) fn by_tags(
    body: &[u8],
    image: &str,
    links: &Links<'_>,
    sink: &mut dyn FnMut(Claim),
) -> Result<(), Malformed> {
    let Ok(text) = std::str::from_utf8(body) else {
        return Ok(());
    };
    let mut ran_out = None;
    let mut give = |tag: &RawValue| {
        if let Err(error) = links.meter().count() {
            ran_out = Some(error);
            return false;
        }
        if let Ok(tag) = serde_json::from_str::<String>(tag.get()) {
            claim(format!("{image}/manifests/{tag}"), None, links, sink);
        }
        true
    };
    let mut read = serde_json::Deserializer::from_str(text);
    let parsed = read.deserialize_map(Tags(&mut give));
    match (ran_out, parsed) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(Malformed(format!("the list of tags is not one: {error}"))),
        (None, Ok(())) => Ok(()),
    }
}

/// Claims a path that a client could ask for; what is none is left out. A digest in it is what the bytes have.
fn claim(path: String, size: Option<u64>, links: &Links<'_>, sink: &mut dyn FnMut(Claim)) {
    let Ok(route) = Route::parse(&path) else {
        return;
    };
    let digests = route.target.digest().into_iter().collect();
    let claim = Claim {
        path,
        url: String::new(),
        digests,
        identity: None,
        package: None,
        size,
        published_at: None,
        names_files: false,
    };
    links.claim(claim, sink);
}

/// A list of tags, each of which is handed on as it is read, until that is refused.
struct Tags<'s>(&'s mut dyn FnMut(&RawValue) -> bool);

impl<'de> Visitor<'de> for Tags<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "tags" {
                map.next_value_seed(Each(&mut *self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// The tags themselves; registries write `null` for an image without tags.
struct Each<'s>(&'s mut dyn FnMut(&RawValue) -> bool);

impl<'de> DeserializeSeed<'de> for Each<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Each<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of tags")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut tags: A) -> Result<(), A::Error> {
        while let Some(tag) = tags.next_element::<&'de RawValue>()? {
            if !(self.0)(tag) {
                return Err(serde::de::Error::custom("there are too many"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use larder_core::PackageType;

    use super::*;
    use crate::testing::{links, remote};

    const ONE: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const TWO: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn named(
        read: impl Fn(&[u8], &str, &Links<'_>, &mut dyn FnMut(Claim)) -> Result<(), Malformed>,
        body: &str,
    ) -> Vec<(String, Option<u64>)> {
        let repository = remote("images", PackageType::Docker, "https://registry.example/");
        let mut found = Vec::new();
        read(
            body.as_bytes(),
            "team/app",
            &links(&repository),
            &mut |claim| {
                let digest = claim.path.rsplit('/').next().unwrap().to_owned();
                let stated: Vec<String> = claim.digests.iter().map(ToString::to_string).collect();
                assert!(stated.is_empty() || stated == [digest], "{claim:?}");
                found.push((claim.path, claim.size));
            },
        )
        .unwrap();
        found
    }

    /// The image specification's own examples, shortened.
    #[test]
    fn a_manifest_names_its_config_and_layers_and_an_index_its_manifests() {
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{ONE}","size":7023}},
            "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{TWO}","size":32654}}],"annotations":{{"k":"v"}}}}"#
        );
        let expected = [
            (format!("team/app/blobs/{ONE}"), Some(7023)),
            (format!("team/app/blobs/{TWO}"), Some(32654)),
        ];
        assert_eq!(named(by_manifest, &manifest), expected);
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":7143,"digest":"{ONE}","platform":{{"os":"linux"}}}}]}}"#
        );
        let expected = [(format!("team/app/manifests/{ONE}"), Some(7143))];
        assert_eq!(named(by_manifest, &index), expected);
        let first =
            format!(r#"{{"schemaVersion":1,"fsLayers":[{{"blobSum":"{TWO}"}}],"history":[]}}"#);
        let expected = [(format!("team/app/blobs/{TWO}"), None)];
        assert_eq!(named(by_manifest, &first), expected);
    }

    #[test]
    fn what_is_no_descriptor_or_lies_elsewhere_is_passed_over() {
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        for layer in [
            "7".to_owned(),
            "null".to_owned(),
            "{}".to_owned(),
            r#"{"digest":"latest"}"#.to_owned(),
            r#"{"digest":"../../secret"}"#.to_owned(),
            format!(r#"{{"digest":"{ONE}","mediaType":"{foreign}"}}"#),
        ] {
            let manifest = format!(r#"{{"config":null,"layers":[{layer}]}}"#);
            assert!(named(by_manifest, &manifest).is_empty(), "{manifest}");
        }
    }

    #[test]
    fn a_list_names_its_tags() {
        let body = r#"{"name":"team/app","tags":["1.0", "latest", "no tag", 7, "a/b", null]}"#;
        let expected = ["1.0", "latest"].map(|tag| (format!("team/app/manifests/{tag}"), None));
        assert_eq!(named(by_tags, body), expected);
        for none in [r#"{"name":"a","tags":null}"#, r#"{"tags":[]}"#, "{}"] {
            assert!(named(by_tags, none).is_empty(), "{none}");
        }
    }
}

//! What an image consists of, for people: nothing is refused here that is odd, and nothing is believed.

use larder_core::Digest;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Oci;
use super::path::{Route, Target};
use crate::{Browsed, Document, ImageConfig, Malformed, Manifest, Part, PartOf};

/// Longest text that is taken over, in characters.
const LONGEST: usize = 200;
/// Longest configuration that is read, in bytes.
const MAX_CONFIG: usize = 4 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    media_type: Option<Text>,
    #[serde(default)]
    artifact_type: Option<Text>,
    #[serde(default)]
    subject: Option<Lenient<RawPart>>,
    #[serde(default)]
    config: Option<Lenient<RawPart>>,
    #[serde(default)]
    layers: Option<Vec<Lenient<RawPart>>>,
    #[serde(default)]
    blobs: Option<Vec<Lenient<RawPart>>>,
    #[serde(default)]
    fs_layers: Option<Vec<Lenient<RawPart>>>,
    #[serde(default)]
    manifests: Option<Vec<Lenient<RawPart>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPart {
    #[serde(default)]
    media_type: Option<Text>,
    #[serde(default)]
    artifact_type: Option<Text>,
    #[serde(alias = "blobSum")]
    digest: String,
    #[serde(default)]
    size: Option<Lenient<u64>>,
    #[serde(default)]
    platform: Option<Lenient<Platform>>,
}

#[derive(Deserialize, Default)]
struct Platform {
    #[serde(default)]
    os: Option<Text>,
    #[serde(default)]
    architecture: Option<Text>,
    #[serde(default)]
    variant: Option<Text>,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(flatten)]
    platform: Platform,
    #[serde(default)]
    created: Option<Text>,
    #[serde(default)]
    config: Option<Lenient<Run>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Run {
    #[serde(default)]
    entrypoint: Option<Lenient<Vec<String>>>,
    #[serde(default)]
    cmd: Option<Lenient<Vec<String>>>,
}

/// A value, or something else that is not looked at.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lenient<T> {
    Is(T),
    IsNot(IgnoredAny),
}

type Text = Lenient<String>;

impl<T> Lenient<T> {
    fn is(self) -> Option<T> {
        match self {
            Self::Is(value) => Some(value),
            Self::IsNot(_) => None,
        }
    }
}

fn text(text: Option<Text>) -> Option<String> {
    let text = text?.is()?;
    Some(text.chars().take(LONGEST).collect())
}

impl Platform {
    fn shown(self) -> Option<String> {
        let (os, architecture) = (text(self.os), text(self.architecture));
        let parts = [os, architecture, text(self.variant)];
        let parts: Vec<String> = parts
            .into_iter()
            .flatten()
            .filter(|part| !part.is_empty())
            .collect();
        (!parts.is_empty()).then(|| parts.join("/"))
    }
}

impl RawPart {
    fn part(self, image: &str, kind: &str) -> Part {
        let path = format!("{image}/{kind}/{}", self.digest);
        let is_path = Route::parse(&path).is_ok();
        Part {
            path: if is_path { path } else { String::new() },
            digest: self.digest.chars().take(LONGEST).collect(),
            media_type: text(self.media_type).unwrap_or_default(),
            artifact_type: text(self.artifact_type),
            size: self.size.and_then(Lenient::is),
            platform: self
                .platform
                .and_then(Lenient::is)
                .and_then(Platform::shown),
        }
    }
}

impl Browsed for Oci {
    fn part_of(&self, path: &str) -> Option<PartOf> {
        let Route { name, target } = Route::parse(path).ok()?;
        let reference = match target {
            Target::Tag(tag) => Some(tag.to_owned()),
            Target::Manifest(digest) | Target::Referrers(digest) => Some(digest.to_string()),
            Target::Blob(_) | Target::Tags => None,
        };
        Some(PartOf::Image {
            name: name.to_owned(),
            reference,
        })
    }

    fn manifest(
        &self,
        document: &Document<'_>,
        most: usize,
    ) -> Result<Option<Manifest>, Malformed> {
        let Ok(Route {
            name,
            target: Target::Tag(_) | Target::Manifest(_) | Target::Referrers(_),
        }) = Route::parse(document.key_path)
        else {
            return Ok(None);
        };
        let raw: Raw = serde_json::from_slice(document.body)
            .map_err(|error| Malformed(format!("the manifest is not one: {error}")))?;
        let is_index = raw.manifests.is_some();
        let parts = if is_index {
            raw.manifests
        } else {
            raw.layers.or(raw.blobs).or(raw.fs_layers)
        };
        let parts = parts.unwrap_or_default();
        let left_out = parts.len().saturating_sub(most);
        let kind = if is_index { "manifests" } else { "blobs" };
        let of = |part: Lenient<RawPart>, kind| part.is().map(|part| part.part(name, kind));
        let mut parts: Vec<Part> = parts
            .into_iter()
            .filter_map(|part| of(part, kind))
            .collect();
        let sizes = parts.iter().filter_map(|part| part.size);
        let sum = sizes.fold(0, u64::saturating_add);
        parts.truncate(most);
        Ok(Some(Manifest {
            media_type: text(raw.media_type),
            artifact_type: text(raw.artifact_type),
            subject: raw
                .subject
                .and_then(|subject| of(subject, "manifests"))
                .map(|subject| subject.digest),
            config: raw.config.and_then(|config| of(config, "blobs")),
            parts,
            is_index,
            left_out,
            sum,
        }))
    }

    fn image_config(&self, body: &[u8]) -> Option<ImageConfig> {
        if body.len() > MAX_CONFIG {
            return None;
        }
        let raw: RawConfig = serde_json::from_slice(body).ok()?;
        let run = raw.config.and_then(Lenient::is);
        let command = run.map(|run| {
            let words = [run.entrypoint, run.cmd].into_iter().flatten();
            let words: Vec<String> = words.filter_map(Lenient::is).flatten().collect();
            words.join(" ").chars().take(LONGEST).collect::<String>()
        });
        Some(ImageConfig {
            platform: raw.platform.shown(),
            created: text(raw.created),
            command: command.filter(|command| !command.is_empty()),
        })
    }

    fn manifests_of(&self, image: &str) -> Option<String> {
        let folder = format!("{image}/manifests/");
        Route::parse(&format!("{folder}latest")).ok()?;
        Some(folder)
    }

    fn referrers_of(&self, image: &str, digest: &Digest) -> Option<String> {
        let path = format!("{image}/referrers/{digest}");
        Route::parse(&path).is_ok().then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(body: &str, most: usize) -> Manifest {
        let url = Url::parse("https://registry.example.com/v2/a/b/manifests/1").unwrap();
        let document = crate::testing::document(body.as_bytes(), &url, "a/b/manifests/1");
        Oci.manifest(&document, most).unwrap().unwrap()
    }

    #[test]
    fn an_index_has_platforms_and_a_manifest_layers() {
        let index = manifest(
            &format!(
                r#"{{"manifests":[{{"mediaType":"m","digest":"{DIGEST}","size":7,
                "platform":{{"os":"linux","architecture":"arm64","variant":"v8"}}}},{{"digest":"<b>"}},7]}}"#
            ),
            2,
        );
        assert!(index.is_index);
        assert_eq!(index.left_out, 1);
        assert_eq!(index.parts.len(), 2);
        assert_eq!(index.parts[0].platform.as_deref(), Some("linux/arm64/v8"));
        assert_eq!(index.parts[0].path, format!("a/b/manifests/{DIGEST}"));
        assert_eq!(
            (index.parts[1].digest.as_str(), index.parts[1].path.as_str()),
            ("<b>", ""),
            "no digest, no path"
        );
        let image = manifest(
            &format!(
                r#"{{"config":{{"digest":"{DIGEST}","size":"x"}},"layers":[{{"digest":"{DIGEST}","size":3}}],"subject":null}}"#
            ),
            9,
        );
        assert!(!image.is_index);
        assert_eq!(image.parts[0].path, format!("a/b/blobs/{DIGEST}"));
        assert_eq!(image.parts[0].size, Some(3));
        assert_eq!(image.config.unwrap().size, None, "sizes are numbers");
        let layer = |size: u64| format!(r#"{{"digest":"{DIGEST}","size":{size}}}"#);
        let layers = [layer(3), layer(40), layer(500)].join(",");
        let image = manifest(&format!(r#"{{"layers":[{layers}]}}"#), 1);
        let shown = (image.parts.len(), image.left_out, image.sum);
        assert_eq!(shown, (1, 2, 543), "of all, those not given among them");
    }

    #[test]
    fn a_configuration_says_what_it_runs() {
        let config = Oci.image_config(
            br#"{"os":"linux","architecture":"amd64","created":"2020-01-01T00:00:00Z","config":{"Entrypoint":["/bin/sh","-c"],"Cmd":["x"]}}"#,
        );
        let config = config.unwrap();
        assert_eq!(config.platform.as_deref(), Some("linux/amd64"));
        assert_eq!(config.command.as_deref(), Some("/bin/sh -c x"));
        assert_eq!(Oci.image_config(b"\x1f\x8b"), None);
    }

    #[test]
    fn paths_tell_their_image() {
        let of = |path: &str| Oci.part_of(path);
        let image = |reference: Option<&str>| {
            Some(PartOf::Image {
                name: "a/b".to_owned(),
                reference: reference.map(str::to_owned),
            })
        };
        assert_eq!(of("a/b/manifests/1.0"), image(Some("1.0")));
        assert_eq!(of(&format!("a/b/manifests/{DIGEST}")), image(Some(DIGEST)));
        assert_eq!(of(&format!("a/b/blobs/{DIGEST}")), image(None));
        assert_eq!(of("a/b/c"), None);
        assert_eq!(Oci.manifests_of("a/b").as_deref(), Some("a/b/manifests/"));
        assert_eq!(Oci.manifests_of("A"), None);
    }
}

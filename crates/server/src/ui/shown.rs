//! What the engine knows of a path, a package or an image, as the data of a page.

use larder_core::{ArtifactPath, UnixMillis};
use larder_engine::{
    ArtifactView, Explanation, HeldCopy, ImagePart, ImageView, Manifest, PackageFile, PointValue,
    Room, SearchHit,
};
use larder_formats::PartOf;
use larder_ui::pages::{
    self, ArtifactCopy, ArtifactNaming, ArtifactStated, ImageManifest, ImageOf, ImageReference,
    PackageOf, RepositoryHead, SearchFound,
};
use larder_ui::{Bytes, Count, Moment, SHORT};

fn moment(at: Option<UnixMillis>) -> Option<Moment> {
    at.map(Moment)
}

/// The page of a path.
pub(crate) fn artifact(
    repository: RepositoryHead,
    path: &ArtifactPath,
    found: ArtifactView,
    hit: fn(SearchHit) -> SearchFound,
) -> pages::Artifact {
    let (mut package, mut image) = (None, None);
    match found.part_of {
        Some(PartOf::Package { name, folder }) => package = Some(PackageOf { name, folder }),
        Some(PartOf::Image { name, reference }) => image = Some(ImageOf { name, reference }),
        None => {}
    }
    let prefix = if image.is_some() {
        "/v2"
    } else {
        "/api/v1/remote"
    };
    let said = found.explanation.as_ref();
    let held = |said: &&Explanation| word(&said.quarantine.value).as_deref() == Some("held");
    pages::Artifact {
        address: format!("{prefix}/{}/{}", repository.name, path.encoded()),
        repository,
        path: found.path,
        copies: found.copies.into_iter().map(copy).collect(),
        has_more_copies: found.has_more_copies,
        verdict: said.map(|said| sentence(&said.verdict)),
        class: said.map(|said| sentence(&said.class)),
        quarantine: said.map(|said| sentence(&said.quarantine)),
        held_until: moment(said.filter(held).and_then(|said| said.quarantine.until)),
        stated: found.stated.map(|stated| ArtifactStated {
            digests: stated.digests,
            size: stated.size.map(Bytes),
            published_at: moment(stated.published_at),
        }),
        naming: found
            .naming
            .into_iter()
            .map(|naming| ArtifactNaming {
                path: naming.path,
                is_held: naming.is_held,
            })
            .collect(),
        named_by: found.named_by,
        same_bytes: found.same_bytes.into_iter().map(hit).collect(),
        has_more_same: found.has_more_same,
        package,
        image,
    }
}

fn word(value: &PointValue) -> Option<String> {
    match value {
        PointValue::Text(text) => Some(text.clone()),
        PointValue::None | PointValue::Seconds(_) => None,
    }
}

/// What is so, and why; which line of the configuration decided is for those who may see that.
fn sentence(point: &larder_engine::Point) -> String {
    match word(&point.value) {
        Some(word) => format!("{word}: {}", point.because),
        None => point.because.clone(),
    }
}

fn copy(copy: HeldCopy) -> ArtifactCopy {
    ArtifactCopy {
        form: copy.form,
        has_query: copy.has_query,
        cached: copy.cached,
        holds: copy.holds,
        points_to: copy.points_to,
        size: copy.size.map(Bytes),
        sha256: copy.sha256,
        verified: copy.verified,
        content_type: copy.content_type,
        etag: copy.etag,
        last_modified: copy.last_modified,
        host: copy.host,
        cached_at: Moment(copy.cached_at),
        contacted_at: Moment(copy.contacted_at),
        first_seen_at: Moment(copy.first_seen_at),
        fresh_until: moment(copy.fresh_until),
        used_at: moment(copy.used_at),
        downloads: Count(copy.served),
    }
}

/// A file of a package.
pub(crate) fn package_file(file: PackageFile) -> pages::PackageFile {
    pages::PackageFile {
        version: file.version,
        path: file.path,
        size: file.size.map(Bytes),
        sha256: file.sha256,
        published_at: moment(file.published_at),
        yanked: file.yanked,
        deprecated: file.deprecated,
        cached_at: moment(file.cached_at),
        is_held_back: file.is_held_back,
        held_until: moment(file.held_until),
        repository: file.repository,
    }
}

/// The page of an image.
pub(crate) fn image(
    repository: RepositoryHead,
    name: String,
    reference: String,
    found: ImageView,
) -> pages::Image {
    let references = found.references.into_iter();
    pages::Image {
        repository,
        name,
        reference,
        references: references
            .map(|(reference, digest, at)| ImageReference {
                reference,
                digest,
                cached_at: Moment(at),
            })
            .collect(),
        next: found.next,
        manifest: found.manifest.map(manifest),
        members: found.members,
    }
}

fn manifest(manifest: Manifest) -> ImageManifest {
    let configured = manifest.configured.unwrap_or_default();
    let mut room = Room::new(usize::MAX, 0);
    let (parts, more) = fitting(&mut room, manifest.parts);
    let (referrers, _) = fitting(&mut room, manifest.referrers);
    ImageManifest {
        path: manifest.path,
        sha256: manifest.sha256,
        size: Bytes(manifest.size),
        media_type: manifest.media_type,
        artifact_type: manifest.artifact_type,
        subject: manifest.subject,
        cached_at: moment(manifest.cached_at),
        fresh_until: moment(manifest.fresh_until),
        is_index: manifest.is_index,
        parts,
        left_out: Count((manifest.left_out + more) as u64),
        sum: Bytes(manifest.sum),
        config: manifest.config.map(part),
        platform: configured.platform,
        created: configured.created,
        command: configured.command,
        referrers,
    }
}

/// Those that a page has room for, whatever a stranger calls them, and how many that leaves out.
fn fitting(room: &mut Room, parts: Vec<ImagePart>) -> (Vec<pages::ImagePart>, usize) {
    let (all, mut shown) = (parts.len(), Vec::new());
    for each in parts {
        if room.is_full() {
            break;
        }
        let each = part(each);
        let platform = each.platform.as_deref().unwrap_or_default();
        let texts = [&*each.digest, each.kind(), platform];
        room.take(
            1,
            &texts.map(|text| &text[..text.floor_char_boundary(SHORT)]),
        );
        shown.push(each);
    }
    let more = all - shown.len();
    (shown, more)
}

fn part(ImagePart { part, is_held }: ImagePart) -> pages::ImagePart {
    pages::ImagePart {
        digest: part.digest,
        path: part.path,
        media_type: part.media_type,
        artifact_type: part.artifact_type,
        size: part.size.map(Bytes),
        platform: part.platform,
        is_held,
    }
}

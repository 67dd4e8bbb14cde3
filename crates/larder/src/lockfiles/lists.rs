//! Lists that people write: images, URLs, paths. One a line; what is behind a `#` at the beginning of a line, or behind a blank and a `#`,
//! is a comment.

use super::{Lock, Unreadable, Wanted, before_comment};

/// The longest name of an image, or URL, in bytes.
const LONGEST: usize = 8_192;

/// The lines that hold something, with their numbers.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter_map(|(number, line)| {
        let line = before_comment(line).trim();
        (!line.is_empty()).then_some((number + 1, line))
    })
}

pub(super) fn images(text: &str) -> Result<Lock, Unreadable> {
    let mut lock = Lock::default();
    for (number, line) in lines(text) {
        let (name, _) = image_path(line).ok_or_else(|| {
            Unreadable::at(
                number,
                format!(
                    "{:?} is no name of an image; it looks like team/app:1.0 or team/app@sha256:…",
                    shortened(line)
                ),
            )
        })?;
        debug_assert!(!name.is_empty());
        lock.take(number, Wanted::Image(line.to_owned()));
    }
    Ok(lock)
}

pub(super) fn urls(text: &str) -> Result<Lock, Unreadable> {
    let mut lock = Lock::default();
    for (number, line) in lines(text) {
        let is_line = line.len() <= LONGEST && !line.contains(char::is_control);
        if !is_line || line.split('/').any(|segment| segment == "..") {
            let shown = shortened(line);
            let message = format!("{shown:?} is neither a URL nor a path of a repository");
            return Err(Unreadable::at(number, message));
        }
        lock.take(number, Wanted::Place(line.to_owned()));
    }
    Ok(lock)
}

fn shortened(line: &str) -> String {
    line.chars().take(80).collect()
}

/// The name of an image (with the registry's, if it begins with one) and what its manifest is called: the digest, else the tag, else
/// `latest`. `None`: it is no name of an image.
pub(crate) fn image_path(reference: &str) -> Option<(&str, &str)> {
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (reference, None),
    };
    let slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[slash..].find(':') {
        Some(at) => (&rest[..slash + at], Some(&rest[slash + at + 1..])),
        None => (rest, None),
    };
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    let mut parts = name.split('/').enumerate();
    let is_right = |(place, part): (usize, &str)| {
        // A registry may have a port, and letters of either case.
        let is_host = place == 0 && name.contains('/') && is_registry(part);
        let is_inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_part = part.starts_with(is_inside) && part.ends_with(is_inside);
        is_host || (is_part && part.chars().all(is_name))
    };
    let is_tag = |tag: &str| {
        !tag.is_empty()
            && tag.len() <= 128
            && tag
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let is_digest = |digest: &str| {
        digest.split_once(':').is_some_and(|(kind, hex)| {
            is_tag(kind) && hex.len() >= 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    };
    let is_image = name.len() <= 512
        && parts.all(is_right)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest);
    is_image.then(|| (name, digest.or(tag).unwrap_or("latest")))
}

/// Whether the first part of an image's name is a registry's, as Docker decides it.
pub(crate) fn is_registry(part: &str) -> bool {
    let is_host = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    let begins = part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
    begins && (part == "localhost" || part.contains(['.', ':'])) && part.chars().all(is_host)
}

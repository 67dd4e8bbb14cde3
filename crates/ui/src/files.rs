//! Style sheet, scripts and icon. They are part of the program; each is named after its content, so that browsers keep it for ever.

use std::sync::LazyLock;

/// A file of `static/`.
#[derive(Debug)]
pub struct StaticFile {
    /// Its media type.
    pub content_type: &'static str,
    /// Its content.
    pub bytes: &'static [u8],
    source: &'static str,
    served: String,
}

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! embedded {
    ($($name:literal: $kind:expr,)*) => {
        &[$(($name, $kind, include_bytes!(concat!("../static/", $name)))),*]
    };
}

/// Name, media type, content.
type Embedded = (&'static str, &'static str, &'static [u8]);

const SOURCES: &[Embedded] = embedded! {
    "larder.css": CSS,
    "larder.js": SCRIPT,
    "live.js": SCRIPT,
    "larder.svg": SVG,
};

static FILES: LazyLock<Vec<StaticFile>> = LazyLock::new(|| {
    let embedded = SOURCES.iter();
    let file = |(source, content_type, bytes): &Embedded| StaticFile {
        content_type,
        bytes,
        source,
        served: served(source, bytes),
    };
    embedded.map(file).collect()
});

/// `larder.css` with the digits of its content: `larder.0123456789abcdef.css`.
fn served(source: &str, bytes: &[u8]) -> String {
    let (stem, extension) = source.rsplit_once('.').unwrap_or((source, ""));
    format!("{stem}.{:016x}.{extension}", fnv1a(bytes))
}

/// FNV-1a of 64 bits. Tells one version of a file from another, and is no protection against anything.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The file that is served under this name, which includes the digits of its content.
pub fn static_file(name: &str) -> Option<&'static StaticFile> {
    FILES.iter().find(|file| file.served == name)
}

/// The address of a file by its name in `static/`; of one that is not there, an address where nothing is.
pub(crate) fn address(root: &str, source: &str) -> String {
    let file = FILES.iter().find(|file| file.source == source);
    let name = file.map_or(source, |file| &file.served);
    format!("{root}/ui/static/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of the algorithm's authors (draft-eastlake-fnv).
    #[test]
    fn names_change_with_the_content() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(served("a.css", b"foobar"), "a.85944171f73967e8.css");
        let address = address("/x", "larder.css");
        let name = address.strip_prefix("/x/ui/static/").unwrap();
        assert_eq!(static_file(name).unwrap().content_type, CSS);
        assert!(static_file("larder.css").is_none());
    }

    /// What the policy of `headers.rs` forbids would not work.
    #[test]
    fn nothing_in_them_leads_elsewhere() {
        for (name, _, bytes) in SOURCES {
            let text = std::str::from_utf8(bytes).unwrap();
            for foreign in ["https:", "@import", "url(", "eval(", "innerHTML", "import "] {
                assert!(!text.contains(foreign), "{name} has {foreign}");
            }
        }
    }
}

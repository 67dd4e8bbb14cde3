//! `metalink` and `mirrorlist`, made from the master index that larder holds: larder is the only mirror, and the hashes are
//! those of the very bytes it serves (docs/reference/protocols/rpm.md, section 3).

use larder_core::{Digest, DigestAlgorithm, Hasher};

use super::{path, repomd};
use crate::{Derived, Document, Links, Malformed, Meter};

/// The last segment of a metalink's path, and the name of the form.
pub(super) const METALINK: &str = "metalink";
/// The last segment of a mirror list's path, and the name of the form.
pub(super) const MIRRORLIST: &str = "mirrorlist";

pub(super) fn derive(
    document: &Document<'_>,
    form: &'static str,
    links: &Links<'_>,
) -> Result<Derived, Malformed> {
    let root = path::root_of_metadata(document.key_path).unwrap_or_default();
    match form {
        MIRRORLIST => {
            let line = format!("{}\n", links.href(&path::encoded(root)));
            Ok(Derived {
                body: line.into_bytes(),
                content_type: "text/plain",
            })
        }
        METALINK => {
            let url = links.href(&path::encoded(document.key_path));
            Ok(Derived {
                body: metalink(document.body, &url, links.meter())?.into_bytes(),
                content_type: "application/metalink+xml",
            })
        }
        _ => Err(Malformed(format!("repomd.xml has no form {form:?}"))),
    }
}

/// Metalink 3.0 with the extension of mirror managers that librepo reads (`mm0:timestamp`).
fn metalink(body: &[u8], url: &str, meter: &Meter) -> Result<String, Malformed> {
    let timestamp = repomd::read(body, meter)?.timestamp();
    let timestamp = timestamp.map_or_else(String::new, |at| {
        format!("   <mm0:timestamp>{at}</mm0:timestamp>\n")
    });
    let mut hasher = Hasher::new(&[
        DigestAlgorithm::Md5,
        DigestAlgorithm::Sha1,
        DigestAlgorithm::Sha512,
    ]);
    hasher.update(body);
    let hash = |digest: &Digest| {
        format!(
            "    <hash type=\"{}\">{}</hash>\n",
            digest.algorithm().as_str(),
            digest.to_hex()
        )
    };
    let hashes = hasher
        .finish()
        .iter()
        .map(hash)
        .collect::<Vec<_>>()
        .concat();
    let scheme = if url.starts_with("https:") {
        "https"
    } else {
        "http"
    };
    let size = body.len();
    let url = escaped(url);
    Ok(format!(
        r#"<?xml version="1.0" encoding="utf-8"?>
<metalink version="3.0" xmlns="http://www.metalinker.org/" xmlns:mm0="http://fedorahosted.org/mirrormanager">
 <files>
  <file name="repomd.xml">
{timestamp}   <size>{size}</size>
   <verification>
{hashes}   </verification>
   <resources maxconnections="1">
    <url protocol="{scheme}" type="{scheme}" preference="100">{url}</url>
   </resources>
  </file>
 </files>
</metalink>
"#
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

//! Uploads in parts that nobody will complete: of a process that died, or of an abort that did not get through (hazard L8).

use std::time::Duration;

use http::Method;
use larder_core::{Clock as _, SystemClock};
use object_store::path::Path;

use super::ask::{Asked, element, unescaped};
use super::{S3, S3Objects};
use crate::blob::object::MultipartUpload;
use crate::error::{StorageError, StorageErrorKind};

const DOING: &str = "list unfinished uploads";
/// Ended leases that are looked at together.
const PAGE: usize = 100;

/// One upload as the store lists it.
#[derive(Debug, PartialEq, Eq)]
struct Upload {
    upload: MultipartUpload,
    /// When it was begun, milliseconds since 1970, if the store says so.
    begun: Option<i64>,
}

impl S3Objects {
    /// Aborts the uploads whose lease has ended: who began them is no more. Gives how many there were.
    ///
    /// # Errors
    /// The leases cannot be read, or the store does not abort; what is left is looked for again.
    pub async fn sweep_ended(&self) -> Result<usize, StorageError> {
        let s3 = &self.0;
        let Some(leases) = s3.leases.get() else {
            return Ok(0);
        };
        let mut swept = 0;
        loop {
            let ended = leases.book.ended(SystemClock.now(), PAGE).await?;
            for upload in &ended {
                let path = Path::from(upload.key.as_str());
                swept += usize::from(s3.abort(&path, &upload.id).await?);
                leases.book.forget(upload).await?;
            }
            if ended.len() < PAGE {
                return Ok(swept);
            }
        }
    }

    /// Aborts the uploads below the prefix that were begun more than `age` ago and that nobody knows: neither this process nor a lease.
    /// Gives how many.
    ///
    /// # Errors
    /// The store cannot be asked, or does not list uploads, or the leases cannot be read.
    pub async fn sweep_uploads(&self, age: Duration) -> Result<usize, StorageError> {
        let s3 = &self.0;
        let before = SystemClock.now().0 - i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let mut swept = 0;
        for Upload { upload, begun } in s3.uploads().await? {
            let is_old = begun.is_some_and(|begun| begun < before);
            if !is_old || s3.own().contains(&upload.id) {
                continue;
            }
            if let Some(leases) = s3.leases.get()
                && leases.book.knows(&upload).await?
            {
                continue;
            }
            let path = Path::from(upload.key.as_str());
            swept += usize::from(s3.abort(&path, &upload.id).await?);
        }
        Ok(swept)
    }

    /// How many unfinished uploads there are below the prefix, those under way included.
    ///
    /// # Errors
    /// The store cannot be asked, or does not list uploads.
    pub async fn count_uploads(&self) -> Result<usize, StorageError> {
        Ok(self.0.uploads().await?.len())
    }
}

impl S3 {
    async fn uploads(&self) -> Result<Vec<Upload>, StorageError> {
        let mut found = Vec::new();
        let mut after = (String::new(), String::new());
        loop {
            let mut query = vec![("prefix", self.settings.prefix.as_str()), ("uploads", "")];
            if !after.0.is_empty() {
                query.push(("key-marker", &after.0));
                query.push(("upload-id-marker", &after.1));
            }
            let asked = self.ask(Method::GET, DOING, &query).await?;
            if !asked.status.is_success() {
                let message = format!(
                    "cannot {DOING}: the object store answers {} {}",
                    asked.status.as_u16(),
                    asked.element("Code").unwrap_or_default()
                );
                return Err(StorageError::new(StorageErrorKind::Unavailable, message));
            }
            found.extend(listed(&asked.body));
            let next = next_page(&asked);
            if next.is_none() || next.as_ref() == Some(&after) {
                return Ok(found);
            }
            after = next.unwrap_or_default();
        }
    }
}

fn listed(xml: &str) -> Vec<Upload> {
    let entries = xml.split("<Upload>").skip(1);
    entries
        .filter_map(|entry| {
            let entry = entry.split("</Upload>").next()?;
            Some(Upload {
                upload: MultipartUpload {
                    key: unescaped(element(entry, "Key")?),
                    id: unescaped(element(entry, "UploadId")?),
                },
                begun: element(entry, "Initiated").and_then(millis),
            })
        })
        .collect()
}

fn millis(text: &str) -> Option<i64> {
    let moment = text.parse::<jiff::Timestamp>().ok()?;
    Some(moment.as_millisecond())
}

fn next_page(asked: &Asked) -> Option<(String, String)> {
    if asked.element("IsTruncated") != Some("true") {
        return None;
    }
    let text = |name| asked.element(name).map(unescaped).unwrap_or_default();
    Some((text("NextKeyMarker"), text("NextUploadIdMarker")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sample response of AWS's reference of `ListMultipartUploads`, shortened.
    #[test]
    fn uploads_are_read_from_the_answer() {
        let body = r#"<?xml version="1.0" encoding="UTF-8"?>
            <ListMultipartUploadsResult>
              <Bucket>bucket</Bucket><KeyMarker></KeyMarker><UploadIdMarker></UploadIdMarker>
              <NextKeyMarker>my-movie.m2ts</NextKeyMarker>
              <NextUploadIdMarker>YW55IGlkZWEgd2h5IGVsdmluZydzIHVwbG9hZCBmYWlsZWQ</NextUploadIdMarker>
              <MaxUploads>3</MaxUploads><IsTruncated>true</IsTruncated>
              <Upload><Key>my-divisor</Key><UploadId>XMgbGlrZSBlbHZpbmcncyBub3QgaGF2aW5nIG11Y2ggbHVjaw</UploadId>
                <StorageClass>STANDARD</StorageClass><Initiated>2010-11-10T20:48:33.000Z</Initiated></Upload>
              <Upload><Key>my&amp;movie.m2ts</Key><UploadId>VXBsb2FkIElE</UploadId></Upload>
            </ListMultipartUploadsResult>"#;
        let found = listed(body);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].upload.key, "my-divisor");
        assert_eq!(
            found[0].begun,
            Some(1_289_422_113_000),
            "date -d gives 1289422113"
        );
        assert_eq!(
            (found[1].upload.key.as_str(), found[1].begun),
            ("my&movie.m2ts", None)
        );
        let asked = Asked {
            status: http::StatusCode::OK,
            body: body.to_owned(),
        };
        let (key, id) = next_page(&asked).unwrap();
        assert_eq!(key, "my-movie.m2ts");
        assert_eq!(id, "YW55IGlkZWEgd2h5IGVsdmluZydzIHVwbG9hZCBmYWlsZWQ");
    }
}

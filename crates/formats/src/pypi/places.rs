//! Where the fields of a JSON page's files stand, as its check has found them: what is derived from the same bytes need not read all of
//! them again.

use std::borrow::Cow;
use std::ops::Range;

use super::derive::utf8;
use super::json_value::{CoreMetadata, Hashes, span_of};
use super::page::Head;
use super::simple_json::{self, File};
use crate::{Document, Malformed, Meter};

/// The most files that are remembered of one page. A page with more of them is read again.
const MOST: usize = 16 << 10;
/// The most hashes of all files together, and the most bytes of texts that stand in the page in another spelling.
const MOST_HASHES: usize = 4 * MOST;
const MOST_OWN: usize = 1 << 20;

/// The files of one page, in its order.
#[derive(Debug)]
pub(super) struct Places {
    /// Length of the page's text.
    length: usize,
    head: Head<'static>,
    files: Vec<Place>,
    hashes: Vec<(Text, Text)>,
    /// Texts that do not stand in the page as they are.
    own: String,
    /// Some did not fit in.
    is_cut: bool,
}

/// A text: a range of the page, or, beyond its end, of what is kept beside it.
#[derive(Debug, Clone, Copy)]
struct Text {
    start: u32,
    end: u32,
}

/// A range of [`Places::hashes`], or of the page.
#[derive(Debug, Clone, Copy)]
struct Part {
    start: u32,
    end: u32,
}

impl From<Range<usize>> for Part {
    fn from(range: Range<usize>) -> Self {
        Self {
            start: range.start as u32,
            end: range.end as u32,
        }
    }
}

impl Part {
    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// What is said of a file's metadata.
#[derive(Debug, Clone, Copy)]
enum Metadata {
    No,
    Yes(Part),
}

/// The fields of [`File`].
#[derive(Debug)]
struct Place {
    filename: Text,
    url: Text,
    url_span: Part,
    hashes: Part,
    requires_python: Option<Text>,
    core_metadata: Option<Metadata>,
    gpg_sig: Option<bool>,
    yanked: Option<Text>,
    yanked_span: Part,
    size: Option<u64>,
    upload_time: Option<Text>,
    provenance: Option<Text>,
}

/// Reads the project page in `document`, which is JSON, and keeps what it finds.
///
/// # Errors
/// As [`simple_json::read_project`].
pub(super) fn find(document: &Document<'_>, meter: &Meter) -> Result<(), Malformed> {
    let text = utf8(document.body)?;
    let mut places = Places::new(text);
    let head = simple_json::read_project(text, meter, &mut |file| places.put(text, &file))?;
    if let (Some(memo), Some(places)) = (document.memo, places.complete(&head)) {
        memo.keep(places);
    }
    Ok(())
}

/// As [`simple_json::read_project`]: gives each file of `document` to `each`, from memory if the page has been read before.
///
/// # Errors
/// The same.
pub(super) fn read_project<'a>(
    document: &Document<'a>,
    meter: &Meter,
    each: &mut dyn FnMut(File<'a>),
) -> Result<Head<'a>, Malformed> {
    let text = utf8(document.body)?;
    let known = document.memo.and_then(|memo| memo.get::<Places>());
    match known.filter(|places| places.length == text.len()) {
        Some(places) => places.tell(text, meter, each),
        None => simple_json::read_project(text, meter, each),
    }
}

impl Places {
    fn new(text: &str) -> Self {
        Self {
            length: text.len(),
            head: Head::default(),
            files: Vec::new(),
            hashes: Vec::new(),
            own: String::new(),
            is_cut: false,
        }
    }

    fn put(&mut self, page: &str, file: &File<'_>) {
        self.is_cut |= self.files.len() >= MOST
            || self.hashes.len() >= MOST_HASHES
            || self.own.len() >= MOST_OWN;
        if self.is_cut {
            return;
        }
        let core_metadata = file.core_metadata.as_ref().map(|metadata| match metadata {
            CoreMetadata::No => Metadata::No,
            CoreMetadata::Yes(hashes) => Metadata::Yes(self.put_hashes(page, hashes)),
        });
        let mut text = |value: &str| put_text(page, value, &mut self.own);
        let mut maybe = |value: &Option<Cow<'_, str>>| value.as_deref().map(&mut text);
        let (requires_python, yanked) = (maybe(&file.requires_python), maybe(&file.yanked));
        let (upload_time, provenance) = (maybe(&file.upload_time), maybe(&file.provenance));
        let (filename, url) = (text(&file.filename), text(&file.url));
        let hashes = self.put_hashes(page, &file.hashes);
        self.files.push(Place {
            filename,
            url,
            url_span: file.url_span.clone().into(),
            hashes,
            requires_python,
            core_metadata,
            gpg_sig: file.gpg_sig,
            yanked,
            yanked_span: file.yanked_span.clone().into(),
            size: file.size,
            upload_time,
            provenance,
        });
    }

    fn put_hashes(&mut self, page: &str, Hashes(hashes): &Hashes<'_>) -> Part {
        let start = self.hashes.len();
        for (name, value) in hashes {
            let pair = (
                put_text(page, name, &mut self.own),
                put_text(page, value, &mut self.own),
            );
            self.hashes.push(pair);
        }
        (start..self.hashes.len()).into()
    }

    /// All of them; `None` if there were too many.
    fn complete(mut self, head: &Head<'_>) -> Option<Self> {
        let lists = head.tracks.len() + head.alternate_locations.len();
        if self.is_cut || lists > MOST {
            return None;
        }
        self.head = head.clone().into_owned();
        self.files.shrink_to_fit();
        self.hashes.shrink_to_fit();
        self.own.shrink_to_fit();
        Some(self)
    }

    fn tell<'a>(
        &'a self,
        page: &'a str,
        meter: &Meter,
        each: &mut dyn FnMut(File<'a>),
    ) -> Result<Head<'a>, Malformed> {
        for place in &self.files {
            meter.count()?;
            let file = self
                .file(page, place)
                .ok_or_else(|| Malformed("it is not the document that was checked".to_owned()))?;
            each(file);
        }
        Ok(self.head.clone())
    }

    fn file<'a>(&'a self, page: &'a str, place: &Place) -> Option<File<'a>> {
        let text = |text: Text| self.text(page, text).map(Cow::Borrowed);
        let maybe = |value: Option<Text>| value.map(text).map_or(Some(None), |text| text.map(Some));
        Some(File {
            filename: text(place.filename)?,
            url: text(place.url)?,
            url_span: place.url_span.range(),
            hashes: self.hashes(page, place.hashes)?,
            requires_python: maybe(place.requires_python)?,
            core_metadata: match place.core_metadata {
                Some(Metadata::Yes(hashes)) => Some(CoreMetadata::Yes(self.hashes(page, hashes)?)),
                Some(Metadata::No) => Some(CoreMetadata::No),
                None => None,
            },
            gpg_sig: place.gpg_sig,
            yanked: maybe(place.yanked)?,
            yanked_span: place.yanked_span.range(),
            size: place.size,
            upload_time: maybe(place.upload_time)?,
            provenance: maybe(place.provenance)?,
        })
    }

    fn hashes<'a>(&'a self, page: &'a str, part: Part) -> Option<Hashes<'a>> {
        let text = |text: Text| self.text(page, text).map(Cow::Borrowed);
        let pairs = self.hashes.get(part.range())?.iter();
        let pairs = pairs.map(|(name, value)| Some((text(*name)?, text(*value)?)));
        pairs.collect::<Option<_>>().map(Hashes)
    }

    fn text<'a>(&'a self, page: &'a str, Text { start, end }: Text) -> Option<&'a str> {
        let (start, end) = (start as usize, end as usize);
        match start.checked_sub(page.len()) {
            Some(start) => self.own.get(start..end.checked_sub(page.len())?),
            None => page.get(start..end),
        }
    }
}

/// Where a text stands in `page`, or in `own`, to which it is added if the page has it in another spelling.
fn put_text(page: &str, value: &str, own: &mut String) -> Text {
    // What was decoded lies elsewhere in memory.
    let range = Some(span_of(page, value)).filter(|range| {
        range.start < page.len() && page.get(range.clone()).is_some_and(|text| text == value)
    });
    let Range { start, end } = range.unwrap_or_else(|| {
        let start = page.len() + own.len();
        own.push_str(value);
        start..page.len() + own.len()
    });
    // Pages are at most 64 MiB long, and what is kept beside them is less than that.
    Text {
        start: start as u32,
        end: end as u32,
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;
    use crate::Memo;

    fn document<'a>(body: &'a str, url: &'a Url, memo: Option<&'a Memo>) -> Document<'a> {
        Document {
            body: body.as_bytes(),
            content_type: "application/vnd.pypi.simple.v1+json",
            url,
            key_path: "simple/foo/",
            variant: "",
            memo,
        }
    }

    /// All that is read of a page, in the words of `Debug`.
    fn read(document: &Document<'_>) -> Result<(Vec<String>, String), Malformed> {
        let mut files = Vec::new();
        let head = read_project(document, &document.meter(), &mut |file| {
            files.push(format!("{file:?}"));
        })?;
        Ok((files, format!("{head:?}")))
    }

    const PAGE: &str = r#"{"meta":{"api-version":"1.3","tracks":["https:\/\/a.example.com/"]},"name":"foo",
        "project-status":{"status":"archived","reason":"a \"b\""},"alternate-locations":["x","y"],"files":[
        {"filename":"foo-1.0.tar.gz","url":"https:\/\/files.example.com\/foo-1.0.tar.gz","hashes":{"sha256":"00","md5":"\u0031"},
         "requires-python":">=3.8","yanked":"\u00fcble","size":7,"upload-time":"2020-01-01T00:00:00Z","gpg-sig":true,
         "core-metadata":{"sha256":"11"},"provenance":"https://p.example.com/"},
        {"filename":"foo-1.1.tar.gz","url":"foo-1.1.tar.gz","hashes":{},"yanked":true,"core-metadata":false},
        {"filename":"foo-1.2.tar.gz","url":"foo-1.2.tar.gz","hashes":{},"yanked":"","core-metadata":true,"requires-python":null},
        {"yanked":false,"filename":"","url":"","hashes":{}}]}"#;

    #[test]
    fn files_are_told_as_the_page_tells_them() {
        let url = Url::parse("https://index.example.com/simple/foo/").unwrap();
        let (memo, without) = (Memo::default(), document(PAGE, &url, None));
        let checked = document(PAGE, &url, Some(&memo));
        find(&checked, &checked.meter()).unwrap();
        let places = memo.get::<Places>().expect("it is kept");
        assert_eq!(places.files.len(), 4);
        let told = read(&checked).unwrap();
        assert_eq!(told, read(&without).unwrap());
        assert!(told.0[0].contains("\"https://files.example.com/foo-1.0.tar.gz\""));
        assert!(told.0[0].contains("üble"), "{}", told.0[0]);
    }

    #[test]
    fn those_of_another_document_are_not_told() {
        let url = Url::parse("https://index.example.com/simple/foo/").unwrap();
        let memo = Memo::default();
        let checked = document(PAGE, &url, Some(&memo));
        find(&checked, &checked.meter()).unwrap();
        let shorter = r#"{"files":[]}"#;
        let other = document(shorter, &url, Some(&memo));
        assert!(read(&other).unwrap().0.is_empty());
        // As long, and with a character where another one's texts end.
        let same_length = "ü".repeat(PAGE.len() / 2) + if PAGE.len() % 2 == 1 { " " } else { "" };
        assert!(read(&document(&same_length, &url, Some(&memo))).is_err());
    }

    #[test]
    fn too_many_are_not_remembered() {
        let url = Url::parse("https://index.example.com/simple/foo/").unwrap();
        for (count, is_kept) in [(MOST, true), (MOST + 1, false)] {
            let files = vec![r#"{"filename":"f","url":"u","hashes":{}}"#; count].join(",");
            let page = format!("{{\"files\":[{files}]}}");
            let memo = Memo::default();
            let checked = document(&page, &url, Some(&memo));
            find(&checked, &checked.meter()).unwrap();
            assert_eq!(memo.get::<Places>().is_some(), is_kept, "{count}");
            assert_eq!(read(&checked).unwrap().0.len(), count);
        }
    }
}

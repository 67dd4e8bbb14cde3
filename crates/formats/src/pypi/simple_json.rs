//! Reading JSON simple pages (PEP 691, 700, 714, 740, 792) one file at a time.
//!
//! Knows the fields that HTML, claims and links need and where they stand in the text. Unknown keys are skipped, never
//! parsed into anything; numbers are not touched. A page with two fields of one name is refused where it matters, because
//! readers differ in which of them they take.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json_value::{CoreMetadata, Hashes, Text, check_depth, span_of, string_of, yanked};
use super::page::{Head, MAX_LOCATIONS};
use crate::{Malformed, Meter};

/// One element of `files`.
#[derive(Debug, Default)]
pub(super) struct File<'a> {
    pub(super) filename: Cow<'a, str>,
    pub(super) url: Cow<'a, str>,
    /// Where the value of `url` stands in the text, quotes included.
    pub(super) url_span: Range<usize>,
    pub(super) hashes: Hashes<'a>,
    pub(super) requires_python: Option<Cow<'a, str>>,
    /// `core-metadata`, else one of its former names.
    pub(super) core_metadata: Option<CoreMetadata<'a>>,
    pub(super) gpg_sig: Option<bool>,
    /// The reason, which may be empty, if the file is yanked.
    pub(super) yanked: Option<Cow<'a, str>>,
    /// Where the value of `yanked` stands; empty if there is none.
    pub(super) yanked_span: Range<usize>,
    pub(super) size: Option<u64>,
    pub(super) upload_time: Option<Cow<'a, str>>,
    pub(super) provenance: Option<Cow<'a, str>>,
}

/// Reads a project page, giving each file to `each`.
pub(super) fn read_project<'a>(
    text: &'a str,
    meter: &Meter,
    each: &mut dyn FnMut(File<'a>),
) -> Result<Head<'a>, Malformed> {
    read(text, meter, &mut Files(each))
}

/// Reads a project list, giving each name to `each`.
pub(super) fn read_list<'a>(
    text: &'a str,
    meter: &Meter,
    each: &mut dyn FnMut(Cow<'a, str>),
) -> Result<Head<'a>, Malformed> {
    read(text, meter, &mut Projects(each))
}

/// Where each element of `files` stands in the text.
pub(super) fn element_spans(text: &str, meter: &Meter) -> Result<Vec<Range<usize>>, Malformed> {
    let mut spans = Spans(Vec::new());
    read(text, meter, &mut spans)?;
    Ok(spans.0)
}

fn read<'a, L: List<'a>>(
    text: &'a str,
    meter: &Meter,
    list: &mut L,
) -> Result<Head<'a>, Malformed> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let head = deserializer.deserialize_map(PageVisitor { text, meter, list });
    let head = head.and_then(|head| deserializer.end().map(|()| head));
    // Why it was stopped says more than where.
    meter.end()?;
    head.map_err(|error| Malformed(format!("the JSON simple page cannot be read: {error}")))
}

/// The array that a page is there for.
trait List<'a> {
    /// Its key.
    const KEY: &'static str;

    /// Reads one element; `false` at the end.
    fn next<A: SeqAccess<'a>>(&mut self, text: &'a str, elements: &mut A)
    -> Result<bool, A::Error>;
}

struct Files<'e, 'a>(&'e mut dyn FnMut(File<'a>));

impl<'a> List<'a> for Files<'_, 'a> {
    const KEY: &'static str = "files";

    fn next<A: SeqAccess<'a>>(
        &mut self,
        text: &'a str,
        elements: &mut A,
    ) -> Result<bool, A::Error> {
        Ok(elements
            .next_element_seed(FileSeed(text))?
            .map(&mut self.0)
            .is_some())
    }
}

struct Projects<'e, 'a>(&'e mut dyn FnMut(Cow<'a, str>));

impl<'a> List<'a> for Projects<'_, 'a> {
    const KEY: &'static str = "projects";

    fn next<A: SeqAccess<'a>>(&mut self, _: &'a str, elements: &mut A) -> Result<bool, A::Error> {
        Ok(elements
            .next_element_seed(ProjectSeed)?
            .map(&mut self.0)
            .is_some())
    }
}

struct Spans(Vec<Range<usize>>);

impl<'a> List<'a> for Spans {
    const KEY: &'static str = "files";

    fn next<A: SeqAccess<'a>>(
        &mut self,
        text: &'a str,
        elements: &mut A,
    ) -> Result<bool, A::Error> {
        let element = elements.next_element::<&'a RawValue>()?;
        Ok(element
            .map(|raw| self.0.push(span_of(text, raw.get())))
            .is_some())
    }
}

struct PageVisitor<'l, 'a, L> {
    text: &'a str,
    meter: &'l Meter,
    list: &'l mut L,
}

impl<'a, L: List<'a>> Visitor<'a> for PageVisitor<'_, 'a, L> {
    type Value = Head<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Head<'a>, A::Error> {
        let mut head = Head::default();
        let mut seen = false;
        while let Some(Text(key)) = map.next_key()? {
            if key == L::KEY {
                if std::mem::replace(&mut seen, true) {
                    return Err(duplicate(L::KEY));
                }
                map.next_value_seed(ListSeed {
                    text: self.text,
                    meter: self.meter,
                    list: &mut *self.list,
                })?;
                continue;
            }
            let value: &'a RawValue = map.next_value()?;
            check_depth(value, 1)?;
            match key.as_ref() {
                "meta" => {
                    let meta: Meta<'a> = serde_json::from_str(value.get())
                        .map_err(|_| de::Error::custom("`meta` is not an object"))?;
                    head.api_version = meta.api_version.and_then(string_of);
                    head.tracks = locations(meta.tracks)?;
                }
                "alternate-locations" => head.alternate_locations = locations(Some(value))?,
                "project-status" => {
                    let status: Status<'a> = serde_json::from_str(value.get()).unwrap_or_default();
                    head.status = status.status.and_then(string_of);
                    head.status_reason = status.reason.and_then(string_of);
                }
                _ => {}
            }
        }
        if seen {
            Ok(head)
        } else {
            Err(de::Error::missing_field(L::KEY))
        }
    }
}

/// `meta`. Values of an unexpected type are passed on in JSON and have no place in HTML.
#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, rename = "api-version")]
    api_version: Option<&'a RawValue>,
    #[serde(borrow)]
    tracks: Option<&'a RawValue>,
}

/// `project-status`.
#[derive(Deserialize, Default)]
struct Status<'a> {
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    reason: Option<&'a RawValue>,
}

/// Addresses; what is no array of strings says nothing.
fn locations<E: de::Error>(raw: Option<&RawValue>) -> Result<Vec<Cow<'_, str>>, E> {
    let read = raw.and_then(|raw| serde_json::from_str::<Locations<'_>>(raw.get()).ok());
    match read.unwrap_or_default() {
        Locations { is_cut: true, .. } => Err(de::Error::custom(format_args!(
            "it names more than {MAX_LOCATIONS} other places"
        ))),
        Locations { all, .. } => Ok(all),
    }
}

/// The first of an array of strings.
#[derive(Default)]
struct Locations<'a> {
    all: Vec<Cow<'a, str>>,
    /// There are more.
    is_cut: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for Locations<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Locations<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of strings")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut each: A) -> Result<Self::Value, A::Error> {
                let mut locations = Locations::default();
                while let Some(Text(text)) = each.next_element()? {
                    if locations.all.len() < MAX_LOCATIONS {
                        locations.all.push(text);
                    } else {
                        locations.is_cut = true;
                    }
                }
                Ok(locations)
            }
        }
        deserializer.deserialize_seq(Each)
    }
}

fn duplicate<E: de::Error>(field: &'static str) -> E {
    E::duplicate_field(field)
}

struct ListSeed<'l, 'a, L> {
    text: &'a str,
    meter: &'l Meter,
    list: &'l mut L,
}

impl<'a, L: List<'a>> DeserializeSeed<'a> for ListSeed<'_, 'a, L> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'a, L: List<'a>> Visitor<'a> for ListSeed<'_, 'a, L> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {}", L::KEY)
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut elements: A) -> Result<(), A::Error> {
        while self.list.next(self.text, &mut elements)? {
            if !self.meter.entry() {
                return Err(de::Error::custom("it goes beyond its budget"));
            }
        }
        Ok(())
    }
}

struct ProjectSeed;

impl<'a> DeserializeSeed<'a> for ProjectSeed {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for ProjectSeed {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a project")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut name = None;
        while let Some(Text(key)) = map.next_key()? {
            if key == "name" {
                let Text(value) = map.next_value()?;
                if name.replace(value).is_some() {
                    return Err(duplicate("name"));
                }
            } else {
                check_depth(map.next_value::<&RawValue>()?, 3)?;
            }
        }
        name.ok_or_else(|| de::Error::missing_field("name"))
    }
}

struct FileSeed<'a>(&'a str);

impl<'a> DeserializeSeed<'a> for FileSeed<'a> {
    type Value = File<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for FileSeed<'a> {
    type Value = File<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a file")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<File<'a>, A::Error> {
        let mut file = File::default();
        let mut seen = Seen::default();
        while let Some(Text(key)) = map.next_key()? {
            match key.as_ref() {
                "filename" => {
                    seen.once("filename")?;
                    file.filename = map.next_value::<Text<'a>>()?.0;
                }
                "url" => {
                    seen.once("url")?;
                    let raw: &'a RawValue = map.next_value()?;
                    file.url_span = span_of(self.0, raw.get());
                    file.url =
                        string_of(raw).ok_or_else(|| de::Error::custom("`url` is not a string"))?;
                }
                "hashes" => {
                    seen.once("hashes")?;
                    file.hashes = map.next_value()?;
                }
                "requires-python" => {
                    seen.once("requires-python")?;
                    file.requires_python =
                        map.next_value::<Option<Text<'a>>>()?.map(|Text(text)| text);
                }
                "yanked" => {
                    seen.once("yanked")?;
                    let raw: &'a RawValue = map.next_value()?;
                    file.yanked_span = span_of(self.0, raw.get());
                    file.yanked = yanked(raw)?;
                }
                key => read_less_common(&mut file, &mut seen, key, &mut map)?,
            }
        }
        seen.need("filename")?;
        seen.need("url")?;
        Ok(file)
    }
}

fn read_less_common<'a, A: MapAccess<'a>>(
    file: &mut File<'a>,
    seen: &mut Seen,
    key: &str,
    map: &mut A,
) -> Result<(), A::Error> {
    match key {
        "core-metadata" => {
            seen.once("core-metadata")?;
            file.core_metadata = Some(map.next_value()?);
        }
        "dist-info-metadata" | "data-dist-info-metadata" => {
            let former = map.next_value()?;
            if !seen.has("core-metadata")
                && !matches!(file.core_metadata, Some(CoreMetadata::Yes(_)))
            {
                file.core_metadata = Some(former);
            }
        }
        "gpg-sig" => file.gpg_sig = map.next_value()?,
        "provenance" => {
            file.provenance = map.next_value::<Option<Text<'a>>>()?.map(|Text(text)| text);
        }
        // Of another type than the specification's these say nothing; clients ignore them too.
        "size" => file.size = map.next_value::<&RawValue>()?.get().parse().ok(),
        "upload-time" => file.upload_time = string_of(map.next_value()?),
        _ => check_depth(map.next_value()?, 3)?,
    }
    Ok(())
}

/// Fields that were read already.
#[derive(Default)]
struct Seen(u8);

impl Seen {
    fn bit(field: &'static str) -> u8 {
        match field {
            "filename" => 1,
            "url" => 2,
            "hashes" => 4,
            "requires-python" => 8,
            "yanked" => 16,
            _ => 32,
        }
    }

    fn has(&self, field: &'static str) -> bool {
        self.0 & Self::bit(field) != 0
    }

    fn once<E: de::Error>(&mut self, field: &'static str) -> Result<(), E> {
        if self.has(field) {
            return Err(duplicate(field));
        }
        self.0 |= Self::bit(field);
        Ok(())
    }

    fn need<E: de::Error>(&self, field: &'static str) -> Result<(), E> {
        if self.has(field) {
            Ok(())
        } else {
            Err(E::missing_field(field))
        }
    }
}

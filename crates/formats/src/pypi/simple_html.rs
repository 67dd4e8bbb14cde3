//! Reading HTML simple pages (PEP 503, 592, 629, 658, 714, 792) one anchor at a time.
//!
//! Knows where anchors, their attributes and the page's `meta` elements stand; everything else of a page is passed over.
//! Values come out with their character references decoded, so that whoever writes them again must escape them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;

use lol_html::errors::RewritingError;
use lol_html::html_content::{Attribute, Element, SourceLocation};
use lol_html::{HandlerResult, HtmlRewriter, MemorySettings, Settings, element, text};

use super::escape::{decode, longest_escaped};
use super::page::{Head, MAX_LOCATIONS};
use crate::{Malformed, Meter};

/// What the tokeniser may hold at once: bounds tags of absurd length and absurd nesting.
const MAX_PARSER_MEMORY: usize = 32 << 20;
/// Most attributes of an anchor: they are compared with each other.
const MAX_ATTRIBUTES: usize = 64;
/// How much of a page's title is looked at.
const MAX_TITLE: usize = 256;

/// An `<a href>`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Anchor<'a> {
    pub(super) href: Cow<'a, str>,
    /// All other attributes as they stand, names in lower case.
    pub(super) attributes: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Text between the tags, trimmed.
    pub(super) text: String,
}

impl Anchor<'_> {
    /// The most that all it says takes once it is written again.
    pub(super) fn longest_written(&self) -> usize {
        let attributes = self.attributes.iter();
        let stated = attributes.map(|(name, value)| name.len() + longest_escaped(value));
        longest_escaped(&self.href) + longest_escaped(&self.text) + stated.sum::<usize>()
    }

    /// The value of an attribute; empty if it has none.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_ref())
    }
}

/// What an anchor says of its file's metadata.
#[derive(Debug, Clone, Copy)]
pub(super) enum Metadata<'v> {
    /// It can be had.
    Present,
    /// It can be had and has this digest: algorithm and hexadecimal digits.
    Hashed(&'v str, &'v str),
}

/// Whether an anchor says that its file's metadata can be had (PEP 658, 714).
pub(super) fn anchor_metadata<'v>(anchor: &'v Anchor<'_>) -> Option<Metadata<'v>> {
    let value = anchor
        .attribute("data-core-metadata")
        .or_else(|| anchor.attribute("data-dist-info-metadata"))?;
    let stated = value
        .split_once('=')
        .map_or(Metadata::Present, |(name, hex)| Metadata::Hashed(name, hex));
    (!value.eq_ignore_ascii_case("false")).then_some(stated)
}

/// What tells a simple page from any other page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Signs {
    /// Texts of `<title>` and `<h1>`, in lower case.
    pub(super) title: String,
    /// It asks for a password.
    pub(super) password: bool,
}

struct State<'a, 'e> {
    html: &'a str,
    each: &'e mut dyn FnMut(Anchor<'a>),
    anchor: Option<Anchor<'a>>,
    meter: &'e Meter,
    head: Head<'a>,
    signs: Signs,
}

/// Reads a page, giving each anchor to `each`.
pub(super) fn read<'a>(
    html: &'a str,
    meter: &Meter,
    each: &mut dyn FnMut(Anchor<'a>),
) -> Result<(Head<'a>, Signs), Malformed> {
    let state = RefCell::new(State {
        html,
        each,
        anchor: None,
        meter,
        head: Head::default(),
        signs: Signs::default(),
    });
    let settings = settings()
        .append_element_content_handler(element!("a", |element| state.borrow_mut().open(element)))
        .append_element_content_handler(text!("a", |chunk| {
            state.borrow_mut().text(chunk.as_str());
            Ok(())
        }))
        .append_element_content_handler(element!("meta", |element| {
            state.borrow_mut().meta(element)
        }))
        .append_element_content_handler(text!("title, h1", |chunk| {
            state.borrow_mut().title(chunk.as_str());
            Ok(())
        }))
        .append_element_content_handler(element!("input", |element| {
            let password = element
                .get_attribute("type")
                .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("password"));
            state.borrow_mut().signs.password |= password;
            Ok(())
        }));
    let outcome = run(html, settings);
    // Why it was stopped says more than that.
    meter.end()?;
    outcome?;
    let mut state = state.into_inner();
    state.close();
    Ok((state.head, state.signs))
}

/// The page's `<base href>`: the first counts, wherever it stands.
pub(super) fn base(html: &str) -> Result<Option<String>, Malformed> {
    // Most pages have none, and looking for the letters is fifty times faster than reading the page.
    let mut tags = memchr::memchr_iter(b'<', html.as_bytes());
    if !tags.any(|at| {
        html.as_bytes()
            .get(at + 1..at + 5)
            .is_some_and(|name| name.eq_ignore_ascii_case(b"base"))
    }) {
        return Ok(None);
    }
    let mut found = None;
    let settings = settings().append_element_content_handler(element!("base", |element| {
        if let (Some(href), None) = (element.get_attribute("href"), &found) {
            found = Some(decode(&href, true).into_owned());
        }
        Ok(())
    }));
    run(html, settings)?;
    Ok(found)
}

fn settings<'h, 's>() -> Settings<'h, 's> {
    let memory = MemorySettings::new().with_max_allowed_memory_usage(MAX_PARSER_MEMORY);
    Settings::new()
        .with_strict(false)
        .with_memory_settings(memory)
}

fn run(html: &str, settings: Settings<'_, '_>) -> Result<(), Malformed> {
    let mut rewriter = HtmlRewriter::new(settings, |_: &[u8]| ());
    rewriter
        .write(html.as_bytes())
        .and_then(|()| rewriter.end())
        .map_err(|error| {
            Malformed(match error {
                RewritingError::MemoryLimitExceeded(_) => {
                    "the HTML simple page nests too deep, or one of its tags is too long".to_owned()
                }
                RewritingError::ContentHandlerError(reason) => {
                    format!("the HTML simple page cannot be read: {reason}")
                }
                other => format!("the HTML simple page cannot be read: {other}"),
            })
        })
}

impl<'a> State<'a, '_> {
    fn open(&mut self, element: &Element<'_, '_>) -> HandlerResult {
        self.close();
        if !self.meter.entry() {
            return Err("it goes beyond its budget".into());
        }
        if element.attributes().len() > MAX_ATTRIBUTES {
            return Err(
                format!("one of its anchors has more than {MAX_ATTRIBUTES} attributes").into(),
            );
        }
        let mut href = None;
        let mut attributes: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for attribute in element.attributes() {
            let Some(name) = self.slice(attribute.name_source_location()) else {
                continue;
            };
            let name = lower_case(name);
            let value = self.value(attribute);
            // Of two attributes of one name a parser takes the first.
            if name == "href" {
                href.get_or_insert(value);
            } else if !attributes.iter().any(|(known, _)| *known == name) {
                attributes.push((name, value));
            }
        }
        self.anchor = href.map(|href| Anchor {
            href,
            attributes,
            text: String::new(),
        });
        Ok(())
    }

    fn text(&mut self, chunk: &str) {
        if let Some(anchor) = &mut self.anchor {
            anchor.text.push_str(chunk);
        }
    }

    /// Hands over the anchor read last. Its text ends where its element ends, so this may come later.
    fn close(&mut self) {
        if let Some(mut anchor) = self.anchor.take() {
            let text = decode(anchor.text.trim(), false).into_owned();
            anchor.text = text;
            (self.each)(anchor);
        }
    }

    fn meta(&mut self, element: &Element<'_, '_>) -> HandlerResult {
        let attribute = |name| element.attributes().iter().find(|a| a.name() == name);
        let (Some(name), Some(content)) = (attribute("name"), attribute("content")) else {
            return Ok(());
        };
        let content = self.value(content);
        let places = match name.value().trim().to_ascii_lowercase().as_str() {
            "pypi:tracks" => &mut self.head.tracks,
            "pypi:alternate-locations" => &mut self.head.alternate_locations,
            name => {
                match name {
                    "pypi:repository-version" => self.head.api_version = Some(content),
                    "pypi:project-status" => self.head.status = Some(content),
                    "pypi:project-status-reason" => self.head.status_reason = Some(content),
                    _ => {}
                }
                return Ok(());
            }
        };
        if places.len() == MAX_LOCATIONS {
            return Err(format!("it names more than {MAX_LOCATIONS} other places").into());
        }
        places.push(content);
        Ok(())
    }

    fn title(&mut self, chunk: &str) {
        if self.signs.title.len() < MAX_TITLE {
            self.signs.title.extend(
                chunk
                    .chars()
                    .take(MAX_TITLE)
                    .map(|c| c.to_ascii_lowercase()),
            );
            self.signs.title.push(' ');
        }
    }

    fn value(&self, attribute: &Attribute<'_>) -> Cow<'a, str> {
        self.slice(attribute.value_source_location())
            .map_or(Cow::Borrowed(""), |value| decode(value, true))
    }

    fn slice(&self, location: Option<SourceLocation>) -> Option<&'a str> {
        let range: Range<usize> = location?.bytes();
        self.html.get(range)
    }
}

fn lower_case(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Link, text, attributes.
    type Found = (String, String, Vec<(String, String)>);

    fn anchors(html: &str) -> Vec<Found> {
        let mut all = Vec::new();
        read(html, &Meter::default(), &mut |anchor| {
            let attributes = anchor
                .attributes
                .iter()
                .map(|(n, v)| (n.to_string(), v.to_string()))
                .collect();
            all.push((anchor.href.to_string(), anchor.text.clone(), attributes));
        })
        .unwrap();
        all
    }

    #[test]
    fn anchors_come_with_decoded_values() {
        let found = anchors(
            "<a HREF='x-1.0.whl#sha256=ab' data-requires-python=\"&gt;=3.8\" data-yanked data-X='1' data-x=2> x-1.0.whl\n</a>\
             <p><a href=y&amp;z>y <b>b&amp;</b>c</a> outside <a name=top>no link</a>",
        );
        let attributes = [
            ("data-requires-python", ">=3.8"),
            ("data-yanked", ""),
            ("data-x", "1"),
        ]
        .map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(
            found,
            [
                (
                    "x-1.0.whl#sha256=ab".to_owned(),
                    "x-1.0.whl".to_owned(),
                    attributes.to_vec()
                ),
                ("y&z".to_owned(), "y b&c".to_owned(), vec![]),
            ]
        );
    }

    #[test]
    fn what_is_no_markup_holds_no_anchors() {
        assert_eq!(
            anchors(
                "<!-- <a href=a>a</a> --><script>'<a href=b>b</a>'</script><title><a href=c>c</a></title><style><a href=d></style>"
            ),
            []
        );
    }

    #[test]
    fn a_page_cut_short_or_unclosed_still_gives_its_anchors() {
        assert_eq!(anchors("<a href=a>a<a href=b>b").len(), 2);
        assert_eq!(anchors("<a href=a>a</a><a href=\"b").len(), 1);
        assert_eq!(anchors(""), []);
    }

    #[test]
    fn the_head_and_the_signs_are_read() {
        let html = "<html><head><meta name='pypi:repository-version' content='1.4'><META NAME='pypi:project-status' content='quarantined'>\
            <meta name=pypi:project-status-reason content='a &lt;b&gt;'><meta name='pypi:tracks' content='https://a.example.com/'>\
            <meta name='pypi:tracks' content='https://b.example.com/'><meta charset=utf-8><title>Links for X</title></head>\
            <body><h1>Links</h1><form><input type=Password></form></body></html>";
        let (head, signs) = read(html, &Meter::default(), &mut |_| ()).unwrap();
        assert_eq!(head.api_version.as_deref(), Some("1.4"));
        assert_eq!(head.status.as_deref(), Some("quarantined"));
        assert_eq!(head.status_reason.as_deref(), Some("a <b>"));
        assert_eq!(
            head.tracks,
            ["https://a.example.com/", "https://b.example.com/"]
        );
        assert!(signs.title.contains("links for x") && signs.password);
    }

    #[test]
    fn hazard_x2_a_page_names_only_so_many_other_places() {
        let page = |name: &str, count| format!("<meta name='{name}' content=x>").repeat(count);
        for name in ["pypi:tracks", "pypi:alternate-locations"] {
            let read = |count| {
                let html = page(name, count);
                read(&html, &Meter::default(), &mut |_| ()).map(|_| ())
            };
            assert!(read(MAX_LOCATIONS).is_ok());
            let error = read(MAX_LOCATIONS + 1).unwrap_err();
            assert!(error.0.contains("1000 other places"), "{error}");
        }
        assert!(
            read(
                &page("x", MAX_LOCATIONS + 1),
                &Meter::default(),
                &mut |_| ()
            )
            .is_ok()
        );
    }

    #[test]
    fn the_first_base_counts() {
        assert_eq!(
            base("<a href=x>x</a><BASE target=_blank><base href='/a&amp;b/'><base href=/c/>")
                .unwrap()
                .as_deref(),
            Some("/a&b/")
        );
        assert_eq!(
            base("<!-- <base href=/x/> --><script>'<base href=/y/>'</script>").unwrap(),
            None
        );
        assert_eq!(base("<a href=x>base</a>").unwrap(), None);
    }

    #[test]
    fn an_anchor_has_only_so_many_attributes() {
        let anchor = |count: usize| {
            let attributes: Vec<_> = (1..count).map(|n| format!("data-{n}")).collect();
            format!("<a href=x {}>x</a>", attributes.join(" "))
        };
        assert!(read(&anchor(MAX_ATTRIBUTES), &Meter::default(), &mut |_| ()).is_ok());
        assert!(
            read(&anchor(MAX_ATTRIBUTES + 1), &Meter::default(), &mut |_| ())
                .unwrap_err()
                .0
                .contains("attributes")
        );
    }

    #[test]
    fn absurd_nesting_is_refused_in_bounded_memory() {
        let html = "<div>".repeat(2_000_000);
        assert!(read(&html, &Meter::default(), &mut |_| ()).is_err());
    }
}

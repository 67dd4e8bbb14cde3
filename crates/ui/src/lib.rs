//! The pages of the web interface as pure functions: from a page's data to HTML. The same data, serialized, is the page's JSON form. Does no
//! I/O, and knows neither the engine nor HTTP beyond the headers that a page is sent with.
//!
//! | to learn | read |
//! |---|---|
//! | what a page is, and what surrounds each | `page.rs`, `templates/layout.html` |
//! | the pages | `pages/`, one file each, beside a template of the same name |
//! | how numbers and times are shown | `values.rs` |
//! | the small charts | `sparkline.rs` |
//! | style sheet and scripts, and how they are cached | `files.rs`, `static/` |
//! | what pages may do in a browser | `headers.rs` |

#![cfg_attr(not(test), warn(clippy::too_many_lines))]

mod files;
mod headers;
mod page;
pub mod pages;
mod sparkline;
mod values;

pub use files::{StaticFile, static_file};
pub use headers::HEADERS;
pub use page::{Entry, Frame, Page, RenderError, SHORT, Section, Sign};
pub use sparkline::sparkline;
pub use values::{Beginning, Bytes, Count, Markup, Moment, Saved, Share, Span};

//! The acceptance checklist of docs/reference/protocols/pypi.md, as far as it is about paths and documents.

mod claims;
mod hazards;
mod html;
mod json;
mod requests;
mod round_trips;

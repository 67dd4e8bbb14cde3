//! The one pipeline: parse, admit, look up, decide, obtain, clear, respond, fill, apply. Every format passes through it.
mod answer;

pub use answer::{Answer, Body, Freshness, HotTicket, Representation};

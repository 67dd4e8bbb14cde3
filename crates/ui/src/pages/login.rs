//! Signing in.

use serde::Serialize;

use super::view::page;

/// The form that asks for the admin token.
#[derive(Debug, Clone, Serialize)]
pub struct Login {
    /// Where to go afterwards, below the root.
    pub to: String,
    /// What was wrong with the last attempt.
    pub refused: Option<String>,
    /// Whether there is a token to sign in with.
    pub is_open: bool,
    /// Whether the visitor is signed in already.
    pub signed_in: bool,
}

page!(Login, "login.html", crate::Section::Other);

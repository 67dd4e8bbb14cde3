//! Lists of texts as one value of a statement, so that a page of rows is one statement on either engine.

/// The texts of a list in `$1`.
macro_rules! each {
    (sqlite) => {
        "SELECT value FROM json_each($1)"
    };
    (postgres) => {
        "SELECT k #>> '{}' FROM json_array_elements($1::json) AS k"
    };
}
pub(super) use each;

/// The value of a list.
pub(super) fn as_list(texts: impl IntoIterator<Item = impl Into<String>>) -> String {
    let texts: Vec<String> = texts.into_iter().map(Into::into).collect();
    serde_json::Value::from(texts).to_string()
}

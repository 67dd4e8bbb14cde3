//! Databases with many records, made in SQL straight in the tables.

use larder_core::{BlobDescriptor, Content, sha256};

use super::support::place::Place;
use super::support::record;

/// The repository of [`fill`].
pub(crate) const REPOSITORY: &str = "files";

/// A table of the numbers below `rows`, as `n(i)`.
fn numbers(place: &Place, rows: u32) -> (String, String) {
    if place.is_postgres() {
        (
            String::new(),
            format!("generate_series(0, {}) AS n(i)", rows - 1),
        )
    } else {
        let with = format!(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {})",
            rows - 1
        );
        (with, "n".to_owned())
    }
}

/// Digests of as many blobs, scattered as those of real ones are.
fn digest(place: &Place) -> &'static str {
    if place.is_postgres() {
        "'sha256:' || lpad(to_hex((i::bigint * 2654435761) % 4294967296), 8, '0') || lpad(to_hex(i), 56, '0')"
    } else {
        "printf('sha256:%08x%056x', (i * 2654435761) % 4294967296, i)"
    }
}

/// The path of record `i`: folders of its last digit, names of seven digits.
pub(crate) fn path(i: u32) -> String {
    format!("pool/{}/file-{i:07}.deb", i % 10)
}

/// As many records of [`REPOSITORY`], each with a blob of its own; those that are there stay.
pub(crate) async fn fill(place: &Place, rows: u32) {
    let (with, numbers) = numbers(place, rows);
    let digest = digest(place);
    let sample = record(Content::Blob(BlobDescriptor {
        digest: sha256(b"sample"),
        size: 6,
    }));
    // Rows of earlier versions are texts without a seal, and are read.
    let json = serde_json::to_string(&sample).unwrap();
    let (begin, path, json) = if place.is_postgres() {
        let path = "'pool/' || (i % 10) || '/file-' || lpad(i::text, 7, '0') || '.deb'";
        ("", path, format!("convert_to('{json}', 'UTF8')"))
    } else {
        let path = "printf('pool/%d/file-%07d.deb', i % 10, i)";
        (
            "PRAGMA synchronous = OFF; PRAGMA cache_size = -400000;",
            path,
            format!("'{json}'"),
        )
    };
    let (begin, end) = (format!("{begin} BEGIN"), "COMMIT");
    place
        .run(&format!(
            "{begin}; {with} INSERT INTO blobs (digest, size, modified_ns) SELECT {digest}, 6, 0 FROM {numbers} WHERE TRUE \
             ON CONFLICT DO NOTHING; \
             {with} INSERT INTO artifacts (repository, path, variant, blob, size, updated_at, record) \
             SELECT '{REPOSITORY}', {path}, '', {digest}, 6, 0, {json} FROM {numbers} WHERE TRUE ON CONFLICT DO NOTHING; {end}"
        ))
        .await;
}

/// Some rows of every other table that grows, and some of each state.
pub(crate) async fn fill_all(place: &Place) {
    const ROWS: u32 = 20_000;
    let (with, numbers) = numbers(place, ROWS);
    let digest = digest(place);
    let (sequence, noted, feed) = if place.is_postgres() {
        ("noted_at, ", "0, ", "UPDATE feed SET sequence = 20000;")
    } else {
        ("", "", "")
    };
    place
        .run(&format!(
            "BEGIN; \
             UPDATE artifacts SET used_at = rowid, expires_at = CASE WHEN rowid % 10 = 0 THEN rowid END; \
             UPDATE blobs SET delete_after = 100 WHERE digest < 'sha256:02'; \
             UPDATE blobs SET condemned_by = 'x', condemned_at = 100 WHERE digest < 'sha256:003'; \
             {with} INSERT INTO derivations (derivation, repository, blob, size, content_type, made_at, delete_after) \
               SELECT 'd' || i, 'files', {digest}, 1, 'text/html', 0, CASE WHEN i % 100 = 0 THEN 100 END FROM {numbers}; \
             {with} INSERT INTO derivation_sources (derivation, source) SELECT 'd' || i, {digest} FROM {numbers}; \
             {with} INSERT INTO local_files (repository, path, blob, size, uploaded_at, headers) \
               SELECT 'local', 'folder/' || i, {digest}, 1, 0, '{{}}' FROM {numbers}; \
             {with} INSERT INTO changes (sequence, {sequence}writer, kind, repository, path, variant, blob) \
               SELECT i + 1, {noted}'w', 'record', 'files', 'p', '', '' FROM {numbers}; \
             {with} INSERT INTO invalid_records (repository, path, variant, epoch) \
               SELECT 'files', 'gone/' || i, '', 1 FROM {numbers}; \
             {with} INSERT INTO multipart_uploads (object_key, upload_id, lease_until) \
               SELECT 'sha256/' || i, 'upload', i FROM {numbers}; \
             {with} INSERT INTO jobs (id, repository, state, reason, created_at, ended_at, runner, lease_until) \
               SELECT 'job' || i, 'files', 'done', '', i, CASE WHEN i % 100 > 0 THEN i END, '', 0 FROM {numbers}; \
             {with} INSERT INTO job_items (job, path, state, bytes, reason) \
               SELECT 'job' || (i % 20), 'file/' || i, CASE WHEN i % 10 = 0 THEN 'queued' ELSE 'cached' END, 1, '' FROM {numbers}; \
             {with} INSERT INTO scrub_findings (scrub, number, digest, repository, path, kind, flaw, outcome) \
               SELECT 'pool/' || (i % 20), i, {digest}, 'local', 'folder/' || i, CASE WHEN i % 100 = 0 THEN 'local' ELSE 'cached' END, 'wrong', \
                 CASE WHEN i % 100 = 0 THEN 'kept' ELSE 'refetched' END FROM {numbers}; \
             {with} INSERT INTO figures (repository, point, step, at, requests, hits, misses, stale, errors, refused, served, fetched, began_at) \
               SELECT 'r' || (i % 20), '300/' || i, 300, i, 1, 1, 0, 0, 0, 0, 1, 1, 0 FROM {numbers}; \
             {with} INSERT INTO asked (repository, path, variant, requests, first_at, last_at, why) \
               SELECT 'r' || (i % 20), 'gone/' || i, '', 1, i, i, 'absent' FROM {numbers}; \
             {with} INSERT INTO ages (repository, path, variant, digest, size, published_at, first_seen_at, contacted_at) \
               SELECT 'r' || (i % 20), 'file/' || i, '', {digest}, 1, i, i, i FROM {numbers}; \
             INSERT INTO epochs (repository, epoch, invalid_before, swept_before) VALUES ('files', 1, 0, 0); {feed} COMMIT"
        ))
        .await;
}

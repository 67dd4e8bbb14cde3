-- Text is compared byte by byte (SQLite's default; COLLATE "C" on PostgreSQL): paths are data.
CREATE TABLE blobs (
    digest       TEXT PRIMARY KEY NOT NULL, -- sha256:<hex>
    size         BIGINT NOT NULL,
    modified_ns  BIGINT NOT NULL,
    delete_after BIGINT                     -- set by the collector when nothing refers to the blob
);
CREATE INDEX blobs_delete_after ON blobs (delete_after) WHERE delete_after IS NOT NULL;

CREATE TABLE artifacts (
    repository TEXT NOT NULL,
    path       TEXT NOT NULL,
    variant    TEXT NOT NULL,
    blob       TEXT REFERENCES blobs (digest),
    size       BIGINT,
    updated_at BIGINT NOT NULL,
    record     TEXT NOT NULL, -- JSON
    PRIMARY KEY (repository, path, variant)
);
CREATE INDEX artifacts_blob ON artifacts (blob);

CREATE TABLE derivations (
    derivation   TEXT PRIMARY KEY NOT NULL, -- hex of the representation key
    repository   TEXT NOT NULL,
    blob         TEXT NOT NULL REFERENCES blobs (digest),
    size         BIGINT NOT NULL,
    content_type TEXT NOT NULL,
    made_at      BIGINT NOT NULL,
    delete_after BIGINT -- set by the collector when a source is no longer any record's
);
CREATE INDEX derivations_blob ON derivations (blob);
CREATE INDEX derivations_delete_after ON derivations (delete_after) WHERE delete_after IS NOT NULL;

CREATE TABLE derivation_sources (
    derivation TEXT NOT NULL REFERENCES derivations (derivation) ON DELETE CASCADE,
    source     TEXT NOT NULL,
    PRIMARY KEY (derivation, source)
);

CREATE TABLE secrets (
    name  TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL -- hex
);

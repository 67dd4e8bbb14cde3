-- Text is compared byte by byte: paths are data. What the columns mean is said where SQLite's tables are made.
CREATE TABLE blobs (
    digest       TEXT COLLATE "C" PRIMARY KEY,
    size         BIGINT NOT NULL,
    modified_ns  BIGINT NOT NULL,
    delete_after BIGINT,
    condemned_by TEXT COLLATE "C",
    condemned_at BIGINT
);
CREATE INDEX blobs_delete_after ON blobs (delete_after) WHERE delete_after IS NOT NULL;
CREATE INDEX blobs_condemned ON blobs (condemned_at) WHERE condemned_by IS NOT NULL;

CREATE TABLE artifacts (
    repository TEXT COLLATE "C" NOT NULL,
    path       TEXT COLLATE "C" NOT NULL,
    variant    TEXT COLLATE "C" NOT NULL,
    blob       TEXT COLLATE "C" REFERENCES blobs (digest),
    size       BIGINT,
    updated_at BIGINT NOT NULL,
    record     BYTEA NOT NULL,
    -- The number by which a row is found again, which SQLite gives every row by itself.
    rowid      BIGINT GENERATED ALWAYS AS IDENTITY UNIQUE,
    PRIMARY KEY (repository, path, variant)
);
CREATE INDEX artifacts_blob ON artifacts (blob);
CREATE INDEX artifacts_held ON artifacts (repository, size) WHERE size IS NOT NULL;

CREATE TABLE derivations (
    derivation   TEXT COLLATE "C" PRIMARY KEY,
    repository   TEXT COLLATE "C" NOT NULL,
    blob         TEXT COLLATE "C" NOT NULL REFERENCES blobs (digest),
    size         BIGINT NOT NULL,
    content_type TEXT NOT NULL,
    made_at      BIGINT NOT NULL,
    delete_after BIGINT
);
CREATE INDEX derivations_blob ON derivations (blob);
CREATE INDEX derivations_delete_after ON derivations (delete_after) WHERE delete_after IS NOT NULL;

CREATE TABLE derivation_sources (
    derivation TEXT COLLATE "C" NOT NULL REFERENCES derivations (derivation) ON DELETE CASCADE,
    source     TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (derivation, source)
);

CREATE TABLE secrets (
    name  TEXT COLLATE "C" PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE origins (
    repository TEXT COLLATE "C" NOT NULL,
    url        TEXT COLLATE "C" NOT NULL,
    origin     TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (repository, url)
);

CREATE TABLE local_files (
    repository  TEXT COLLATE "C" NOT NULL,
    path        TEXT COLLATE "C" NOT NULL,
    blob        TEXT COLLATE "C" NOT NULL REFERENCES blobs (digest),
    size        BIGINT NOT NULL,
    uploaded_at BIGINT NOT NULL,
    headers     TEXT NOT NULL,
    PRIMARY KEY (repository, path)
);
CREATE INDEX local_files_blob ON local_files (blob);

CREATE TABLE local_usage (
    repository TEXT COLLATE "C" PRIMARY KEY,
    files      BIGINT NOT NULL,
    bytes      BIGINT NOT NULL
);

CREATE TABLE changes (
    sequence   BIGINT PRIMARY KEY,
    -- Microseconds of the server's clock: with the number it tells a row from one that had the number before the server lost its last
    -- commits.
    noted_at   BIGINT NOT NULL,
    writer     TEXT COLLATE "C" NOT NULL,
    kind       TEXT COLLATE "C" NOT NULL,
    repository TEXT COLLATE "C" NOT NULL,
    path       TEXT COLLATE "C" NOT NULL,
    variant    TEXT COLLATE "C" NOT NULL,
    blob       TEXT COLLATE "C" NOT NULL
);

-- One row. Who notes changes takes the next numbers from it and holds it until the commit, so that numbers become visible in their order.
CREATE TABLE feed (
    id       BIGINT PRIMARY KEY CHECK (id = 1),
    sequence BIGINT NOT NULL
) WITH (fillfactor = 10);
INSERT INTO feed (id, sequence) VALUES (1, 0);

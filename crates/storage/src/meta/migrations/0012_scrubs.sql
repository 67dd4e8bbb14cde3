-- Scrubs: all blobs are read again and compared with their digests, in their order. Any process over this database may take one up.
CREATE TABLE scrubs (
    id          TEXT PRIMARY KEY NOT NULL, -- in the order in which they were begun
    state       TEXT NOT NULL,             -- running, done, cancelled
    rate        BIGINT NOT NULL,           -- bytes that are read each second
    place       TEXT NOT NULL,             -- the digest up to which it has come; empty: none
    total_blobs BIGINT NOT NULL,           -- what there was to read when it was begun
    total_bytes BIGINT NOT NULL,
    blobs       BIGINT NOT NULL,           -- what has been read
    bytes       BIGINT NOT NULL,
    begun_at    BIGINT NOT NULL,           -- milliseconds since 1970
    ended_at    BIGINT,
    runner      TEXT NOT NULL,             -- who works on it; empty: nobody
    lease_until BIGINT NOT NULL            -- after that anybody else may
) WITHOUT ROWID;
CREATE TABLE scrub_findings (
    scrub      TEXT NOT NULL,
    number     BIGINT NOT NULL,
    digest     TEXT NOT NULL,
    repository TEXT NOT NULL,
    path       TEXT NOT NULL, -- empty for a derived document
    kind       TEXT NOT NULL, -- local, cached, derived
    flaw       TEXT NOT NULL, -- missing, wrong, unreadable
    outcome    TEXT NOT NULL, -- kept, restored, forgotten, refetched
    PRIMARY KEY (scrub, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX scrub_findings_once ON scrub_findings (scrub, digest, repository, path, kind);
CREATE INDEX scrub_findings_local ON scrub_findings (repository, path, digest) WHERE kind = 'local' AND outcome = 'kept';

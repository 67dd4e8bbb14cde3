-- What these mean is said where SQLite's tables are made.
CREATE TABLE scrubs (
    id          TEXT COLLATE "C" PRIMARY KEY,
    state       TEXT NOT NULL,
    rate        BIGINT NOT NULL,
    place       TEXT NOT NULL,
    total_blobs BIGINT NOT NULL,
    total_bytes BIGINT NOT NULL,
    blobs       BIGINT NOT NULL,
    bytes       BIGINT NOT NULL,
    begun_at    BIGINT NOT NULL,
    ended_at    BIGINT,
    runner      TEXT NOT NULL,
    lease_until BIGINT NOT NULL
);
CREATE TABLE scrub_findings (
    scrub      TEXT COLLATE "C" NOT NULL,
    number     BIGINT NOT NULL,
    digest     TEXT COLLATE "C" NOT NULL,
    repository TEXT COLLATE "C" NOT NULL,
    path       TEXT COLLATE "C" NOT NULL,
    kind       TEXT COLLATE "C" NOT NULL,
    flaw       TEXT NOT NULL,
    outcome    TEXT NOT NULL,
    PRIMARY KEY (scrub, number)
);
CREATE UNIQUE INDEX scrub_findings_once ON scrub_findings (scrub, digest, repository, path, kind);
CREATE INDEX scrub_findings_local ON scrub_findings (repository, path, digest) WHERE kind = 'local' AND outcome = 'kept';

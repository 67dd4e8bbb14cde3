-- What larder counts itself, in points of a length: all replicas add to the same rows (docs/adr/0099).
CREATE TABLE figures (
    repository TEXT NOT NULL,   -- empty: all together
    point      TEXT NOT NULL,   -- step and at, in digits that sort as they do
    step       BIGINT NOT NULL, -- seconds of a point; 0: since the beginning
    at         BIGINT NOT NULL, -- where it begins, in milliseconds since 1970; 0 for step 0
    requests   BIGINT NOT NULL,
    hits       BIGINT NOT NULL,
    misses     BIGINT NOT NULL,
    stale      BIGINT NOT NULL,
    errors     BIGINT NOT NULL,
    refused    BIGINT NOT NULL,
    served     BIGINT NOT NULL, -- bytes to clients
    fetched    BIGINT NOT NULL, -- bytes from upstreams
    stored     BIGINT,          -- bytes held, as was known last
    free       BIGINT,          -- bytes that may still be written, as was known last
    began_at   BIGINT NOT NULL, -- when the row was made
    PRIMARY KEY (repository, point)
) WITHOUT ROWID;
CREATE INDEX figures_old ON figures (step, at);
-- What upstreams were asked for and is not held: at most so many rows of each repository.
CREATE TABLE asked (
    repository TEXT NOT NULL,
    path       TEXT NOT NULL,   -- path and variant are those of a record
    variant    TEXT NOT NULL,
    requests   BIGINT NOT NULL,
    first_at   BIGINT NOT NULL, -- milliseconds since 1970
    last_at    BIGINT NOT NULL,
    why        TEXT NOT NULL,   -- not_kept, absent, failed, passed_through, evicted, flushed
    PRIMARY KEY (repository, path, variant)
) WITHOUT ROWID;
CREATE INDEX asked_last ON asked (repository, last_at);
CREATE INDEX asked_old ON asked (last_at);

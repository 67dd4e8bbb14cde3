-- What these mean is said where SQLite's tables are made.
ALTER TABLE artifacts ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;
CREATE TABLE epochs (
    repository     TEXT COLLATE "C" PRIMARY KEY,
    epoch          BIGINT NOT NULL,
    invalid_before BIGINT NOT NULL,
    swept_before   BIGINT NOT NULL
);
CREATE TABLE invalid_records (
    repository TEXT COLLATE "C" NOT NULL,
    path       TEXT COLLATE "C" NOT NULL,
    variant    TEXT COLLATE "C" NOT NULL,
    epoch      BIGINT NOT NULL,
    PRIMARY KEY (repository, path, variant)
);
CREATE INDEX blobs_due ON blobs (delete_after, digest) WHERE delete_after IS NOT NULL;
-- That one has all of this one, which the server would otherwise choose now and then, and sort.
DROP INDEX blobs_delete_after;

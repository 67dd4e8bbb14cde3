-- Many records become invalid at once, and are deleted later. A record is in the epoch of its repository in which it was written.
ALTER TABLE artifacts ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;
CREATE TABLE epochs (
    repository     TEXT PRIMARY KEY NOT NULL,
    epoch          BIGINT NOT NULL, -- the present one; without a row it is 0
    invalid_before BIGINT NOT NULL, -- records of earlier epochs are invalid
    swept_before   BIGINT NOT NULL  -- and those of before this one are deleted
);
-- Single records that are invalid, if they are of an earlier epoch than this one.
CREATE TABLE invalid_records (
    repository TEXT NOT NULL,
    path       TEXT NOT NULL,
    variant    TEXT NOT NULL,
    epoch      BIGINT NOT NULL,
    PRIMARY KEY (repository, path, variant)
) WITHOUT ROWID;
-- Blobs whose date has come, in pages.
CREATE INDEX blobs_due ON blobs (delete_after, digest) WHERE delete_after IS NOT NULL;
DROP INDEX blobs_delete_after;

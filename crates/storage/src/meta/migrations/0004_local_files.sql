-- What was uploaded to local repositories: it can be fetched again from nowhere.
CREATE TABLE local_files (
    repository  TEXT NOT NULL,
    path        TEXT NOT NULL,
    blob        TEXT NOT NULL REFERENCES blobs (digest),
    size        BIGINT NOT NULL,
    uploaded_at BIGINT NOT NULL,
    headers     TEXT NOT NULL, -- JSON, sealed with all columns before it
    PRIMARY KEY (repository, path)
);
CREATE INDEX local_files_blob ON local_files (blob);

-- The sums of the rows above, changed in the same transactions.
CREATE TABLE local_usage (
    repository TEXT PRIMARY KEY NOT NULL,
    files      BIGINT NOT NULL,
    bytes      BIGINT NOT NULL
);

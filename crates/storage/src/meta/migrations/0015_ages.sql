-- How old files of quarantined repositories are, whether larder holds them or not.
CREATE TABLE ages (
    repository    TEXT NOT NULL,
    path          TEXT NOT NULL,   -- path and variant are those of a record
    variant       TEXT NOT NULL,
    digest        TEXT,            -- of the bytes whose dates these are; NULL: none have been had yet
    size          BIGINT,          -- of those
    published_at  BIGINT,          -- milliseconds since 1970, as the other two; NULL: nobody stated it
    first_seen_at BIGINT NOT NULL,
    contacted_at  BIGINT NOT NULL, -- when the upstream was asked last, or the file was found to be still held
    PRIMARY KEY (repository, path, variant)
) WITHOUT ROWID;
CREATE INDEX ages_contacted ON ages (contacted_at);

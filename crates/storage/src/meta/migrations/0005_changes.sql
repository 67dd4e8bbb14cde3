-- What has changed, for other programs over the same database: written only where it is shared, and only the last of it is kept.
CREATE TABLE changes (
    sequence   INTEGER PRIMARY KEY NOT NULL,
    writer     TEXT NOT NULL,
    kind       TEXT NOT NULL, -- record, superseded, flushed
    repository TEXT NOT NULL,
    path       TEXT NOT NULL,
    variant    TEXT NOT NULL,
    blob       TEXT NOT NULL  -- '' where the record has none, or is gone
);

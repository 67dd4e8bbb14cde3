-- Multipart uploads to the object store that are under way: whose lease has ended is aborted by any process over this database.
CREATE TABLE multipart_uploads (
    object_key  TEXT NOT NULL,
    upload_id   TEXT NOT NULL,
    lease_until BIGINT NOT NULL, -- milliseconds since 1970
    PRIMARY KEY (object_key, upload_id)
);
CREATE INDEX multipart_uploads_lease ON multipart_uploads (lease_until);

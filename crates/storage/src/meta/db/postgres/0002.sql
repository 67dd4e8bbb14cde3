-- Multipart uploads to the object store that are under way: whose lease has ended is aborted by any process over this database.
CREATE TABLE multipart_uploads (
    object_key  TEXT COLLATE "C" NOT NULL,
    upload_id   TEXT COLLATE "C" NOT NULL,
    lease_until BIGINT NOT NULL,
    PRIMARY KEY (object_key, upload_id)
);
CREATE INDEX multipart_uploads_lease ON multipart_uploads (lease_until);

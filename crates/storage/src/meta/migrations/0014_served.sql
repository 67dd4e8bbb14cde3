-- How many answers had the bytes of a record or an uploaded file, or a part of them. Written in batches, with the time of the last request.
ALTER TABLE artifacts ADD COLUMN served BIGINT NOT NULL DEFAULT 0;
ALTER TABLE local_files ADD COLUMN served BIGINT NOT NULL DEFAULT 0;
-- When an uploaded file was last asked for, in milliseconds since 1970; 0: not since this column is there.
ALTER TABLE local_files ADD COLUMN used_at BIGINT NOT NULL DEFAULT 0;

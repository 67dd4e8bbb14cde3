-- Signs of life of the processes that use the database. A process writes its own row, and deletes those of the dead.
CREATE TABLE replicas (
    replica TEXT COLLATE "C" PRIMARY KEY,
    -- What it says of itself, for the others to read.
    word    TEXT NOT NULL,
    -- How far its clock is ahead of the server's, in milliseconds.
    ahead   BIGINT NOT NULL,
    -- When it was written, by the server's clock, in milliseconds since 1970.
    beat_at BIGINT NOT NULL
) WITH (fillfactor = 10);

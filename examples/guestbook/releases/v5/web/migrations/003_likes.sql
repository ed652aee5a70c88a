CREATE TABLE likes (
  entry_id INTEGER NOT NULL REFERENCES entries (id),
  liked_at INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;

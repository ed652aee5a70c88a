-- Names move into a table of their own. A release that expects entries.name cannot live with this: a breaking change.
CREATE TABLE visitors (
  id   INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO visitors (name) SELECT name FROM entries GROUP BY name ORDER BY min(id);

CREATE TABLE entries_with_visitors (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  visitor_id INTEGER NOT NULL REFERENCES visitors (id),
  message    TEXT NOT NULL,
  created_at INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;
INSERT INTO entries_with_visitors (id, visitor_id, message, created_at)
  SELECT entries.id, visitors.id, message, created_at FROM entries JOIN visitors USING (name);
DROP TABLE entries;
ALTER TABLE entries_with_visitors RENAME TO entries;
CREATE INDEX entries_by_visitor ON entries (visitor_id);

INSERT INTO visitors (name) VALUES (:name) ON CONFLICT (name) DO NOTHING;
INSERT INTO entries (visitor_id, message) SELECT id, :message FROM visitors WHERE name = :name;

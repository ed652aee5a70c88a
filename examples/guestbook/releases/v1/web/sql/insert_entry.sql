INSERT INTO entries (name, message) VALUES (:name, :message);

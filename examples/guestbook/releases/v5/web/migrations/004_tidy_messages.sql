-- Half of this works; then comes a column that nobody has.
ALTER TABLE entries ADD COLUMN likes INTEGER NOT NULL DEFAULT 0;
UPDATE entries SET message = trim(mesage);

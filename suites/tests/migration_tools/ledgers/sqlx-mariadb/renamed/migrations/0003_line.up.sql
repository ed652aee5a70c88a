alter table entries rename column text to line;

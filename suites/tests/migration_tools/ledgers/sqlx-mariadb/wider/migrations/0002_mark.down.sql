alter table entries drop column mark;

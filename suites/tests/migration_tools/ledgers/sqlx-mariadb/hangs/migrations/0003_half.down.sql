alter table entries drop column half;

alter table entries rename column line to text;

alter table entries add column half text;
select pg_sleep(600);

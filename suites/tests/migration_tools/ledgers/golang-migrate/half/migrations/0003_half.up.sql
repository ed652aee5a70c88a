begin;
alter table entries add column half text;
commit;
select nonsense;

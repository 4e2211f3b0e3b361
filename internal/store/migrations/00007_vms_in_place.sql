-- +goose Up
-- A VM's row changes several times in each of its jobs. Without an index on what
-- changes, and with room on its page, PostgreSQL writes it in place and touches no
-- index.
DROP INDEX vms_job;
ALTER TABLE vms SET (fillfactor = 70);
ALTER TABLE jobs SET (fillfactor = 70);
ALTER TABLE instances SET (fillfactor = 70);

-- +goose Down
CREATE INDEX vms_job ON vms (job_id) WHERE job_id IS NOT NULL;
ALTER TABLE vms RESET (fillfactor);
ALTER TABLE jobs RESET (fillfactor);
ALTER TABLE instances RESET (fillfactor);

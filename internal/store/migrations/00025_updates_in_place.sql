-- +goose Up
-- Every start of a VM wrote its row to a new page, with all its indexes: what stands
-- in the condition of an index counts as indexed. Nodes change with each VM on them
-- and with their reports: there is room for that on their pages now.
DROP INDEX vms_restarting;
CREATE INDEX vms_restarting ON vms (id) WHERE restart_policy <> 'never';
ALTER TABLE nodes SET (fillfactor = 50);
ALTER TABLE vms SET (fillfactor = 50);

-- +goose Down
ALTER TABLE vms SET (fillfactor = 70);
ALTER TABLE nodes RESET (fillfactor);
DROP INDEX vms_restarting;
CREATE INDEX vms_restarting ON vms (id) WHERE restart_policy <> 'never' AND power = 'on';

-- +goose Up
-- +goose StatementBegin

-- What a host that starts brings up, in which order, and what it does with guests
-- when it shuts down. A node works by its own copy: plan_seq numbers what it was
-- told, plan_told is the digest of what it has.
ALTER TABLE vms
  ADD COLUMN autostart boolean NOT NULL DEFAULT true,
  ADD COLUMN start_order int NOT NULL DEFAULT 0 CHECK (start_order BETWEEN 0 AND 1000),
  ADD COLUMN start_delay_s int NOT NULL DEFAULT 0 CHECK (start_delay_s BETWEEN 0 AND 3600);
CREATE INDEX vms_planned ON vms (node_id) WHERE NOT autostart OR start_order <> 0 OR start_delay_s <> 0;

ALTER TABLE nodes
  ADD COLUMN shutdown_policy text NOT NULL DEFAULT 'stop' CONSTRAINT shutdown_policy_is_known CHECK (shutdown_policy IN ('stop', 'leave')),
  ADD COLUMN plan_seq bigint NOT NULL DEFAULT 0,
  ADD COLUMN plan_told text NOT NULL DEFAULT '';
DROP TRIGGER touch ON nodes;
CREATE TRIGGER touch BEFORE UPDATE OF name, state, simulated, node_epoch, agent_version, key_hash,
  inventory, cpus, memory_bytes, disk_bytes, used_cpus, used_memory_bytes, used_disk_bytes, shutdown_policy
  ON nodes FOR EACH ROW EXECUTE FUNCTION touch_row();

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
DROP TRIGGER touch ON nodes;
CREATE TRIGGER touch BEFORE UPDATE OF name, state, simulated, node_epoch, agent_version, key_hash,
  inventory, cpus, memory_bytes, disk_bytes, used_cpus, used_memory_bytes, used_disk_bytes
  ON nodes FOR EACH ROW EXECUTE FUNCTION touch_row();
ALTER TABLE nodes DROP COLUMN shutdown_policy, DROP COLUMN plan_seq, DROP COLUMN plan_told;
DROP INDEX vms_planned;
ALTER TABLE vms DROP COLUMN autostart, DROP COLUMN start_order, DROP COLUMN start_delay_s;
-- +goose StatementEnd

-- +goose Up
-- +goose StatementBegin

-- A node that is gone for good may be removed with the VMs on it. Such a VM has
-- no node any more, and remembers which one had its disks.
ALTER TABLE vms
  ADD COLUMN lost_node_id uuid REFERENCES nodes(id),
  ADD COLUMN lost_at timestamptz,
  ADD CONSTRAINT lost_is_whole CHECK ((lost_node_id IS NULL) = (lost_at IS NULL)),
  ADD CONSTRAINT lost_is_not_placed CHECK (lost_node_id IS NULL OR node_id IS NULL);

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
ALTER TABLE vms DROP COLUMN lost_node_id, DROP COLUMN lost_at;
-- +goose StatementEnd

-- +goose Up
-- +goose StatementBegin

-- What a VM may take of its node's processors and of its disks. 0 is none; a total
-- excludes those of reads and of writes.
ALTER TABLE vms
  ADD COLUMN cpu_weight int NOT NULL DEFAULT 100 CHECK (cpu_weight BETWEEN 1 AND 10000),
  ADD COLUMN cpu_cap_percent int NOT NULL DEFAULT 0 CHECK (cpu_cap_percent >= 0);
ALTER TABLE storage_volumes
  ADD COLUMN iops bigint NOT NULL DEFAULT 0 CHECK (iops >= 0),
  ADD COLUMN read_iops bigint NOT NULL DEFAULT 0 CHECK (read_iops >= 0),
  ADD COLUMN write_iops bigint NOT NULL DEFAULT 0 CHECK (write_iops >= 0),
  ADD COLUMN bytes_s bigint NOT NULL DEFAULT 0 CHECK (bytes_s >= 0),
  ADD COLUMN read_bytes_s bigint NOT NULL DEFAULT 0 CHECK (read_bytes_s >= 0),
  ADD COLUMN write_bytes_s bigint NOT NULL DEFAULT 0 CHECK (write_bytes_s >= 0),
  ADD CONSTRAINT totals_exclude_parts CHECK (
    (iops = 0 OR (read_iops = 0 AND write_iops = 0)) AND (bytes_s = 0 OR (read_bytes_s = 0 AND write_bytes_s = 0)));

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
ALTER TABLE storage_volumes DROP COLUMN iops, DROP COLUMN read_iops, DROP COLUMN write_iops,
  DROP COLUMN bytes_s, DROP COLUMN read_bytes_s, DROP COLUMN write_bytes_s;
ALTER TABLE vms DROP COLUMN cpu_weight, DROP COLUMN cpu_cap_percent;
-- +goose StatementEnd

-- +goose Up

-- What a node gives to all of its migrations together, in bytes per second; 0 for no limit.
ALTER TABLE nodes ADD COLUMN migration_bytes_per_second bigint NOT NULL DEFAULT 0
  CHECK (migration_bytes_per_second = 0 OR migration_bytes_per_second >= 1048576);

-- What a migration was given of that last; 0 for no limit.
ALTER TABLE migrations ADD COLUMN share_bytes_per_second bigint NOT NULL DEFAULT 0 CHECK (share_bytes_per_second >= 0);

-- +goose Down
ALTER TABLE migrations DROP COLUMN share_bytes_per_second;
ALTER TABLE nodes DROP COLUMN migration_bytes_per_second;

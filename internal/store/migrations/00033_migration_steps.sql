-- +goose Up

-- What was done where a live migration did not come nearer to its end, oldest first:
-- [{"key","step","stall","reason","throttle","downtime_ms","at"}]
ALTER TABLE migrations ADD COLUMN steps jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(steps) = 'array');

-- +goose Down
ALTER TABLE migrations DROP COLUMN steps;

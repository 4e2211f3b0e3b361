-- +goose Up

-- When a warm migration is to come to its end; null while nobody has said so. That it is a warm one stands in its
-- options: to a program that does not know of those it is a live one, as whose it is changes in the same way.
ALTER TABLE migrations ADD COLUMN cutover_at timestamptz;

-- +goose Down
ALTER TABLE migrations DROP COLUMN cutover_at;

-- +goose Up

-- A migration that is being taken back: from then on its target is not given the VM, however late it asks.
ALTER TABLE migrations ADD COLUMN closed boolean NOT NULL DEFAULT false;

-- +goose Down
ALTER TABLE migrations DROP COLUMN closed;

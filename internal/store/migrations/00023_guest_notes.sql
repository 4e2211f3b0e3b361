-- +goose Up
-- +goose StatementBegin

-- What a guest said last of itself, while it is there: where others reach it, and
-- whether its file systems are frozen.
ALTER TABLE instances
  ADD COLUMN addresses inet[] NOT NULL DEFAULT '{}' CONSTRAINT addresses_are_bounded CHECK (cardinality(addresses) <= 16),
  ADD COLUMN frozen_until timestamptz,
  ADD COLUMN frozen_why text NOT NULL DEFAULT '',
  ADD CONSTRAINT notes_of_live_guests CHECK (phase IN ('starting', 'running', 'paused', 'stopping')
    OR (addresses = '{}' AND frozen_until IS NULL)),
  ADD CONSTRAINT why_of_what_is_frozen CHECK (frozen_until IS NOT NULL OR frozen_why = '');

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
ALTER TABLE instances DROP COLUMN addresses, DROP COLUMN frozen_until, DROP COLUMN frozen_why;
-- +goose StatementEnd

-- +goose Up
-- +goose StatementBegin

-- What names the very content of a file that a server reads from elsewhere, so that
-- it can go on with it; empty for one that is sent here.
ALTER TABLE image_uploads ADD COLUMN validator text NOT NULL DEFAULT '';

-- +goose StatementEnd

-- +goose Down
ALTER TABLE image_uploads DROP COLUMN validator;

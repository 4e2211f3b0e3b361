-- +goose Up
-- +goose StatementBegin

-- Every name an image answers to, its own and its aliases, so that no two of a
-- project are the same. Own names are kept by a trigger: a server that knows no
-- aliases yet makes and removes images as ever.
CREATE TABLE image_names (
  project_id uuid NOT NULL REFERENCES projects(id),
  name       text NOT NULL CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  image_id   uuid NOT NULL REFERENCES images(id) ON DELETE CASCADE,
  alias      boolean NOT NULL DEFAULT false,
  revision   bigint NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (project_id, name)
);
CREATE INDEX image_names_image ON image_names (image_id);
CREATE UNIQUE INDEX image_names_own ON image_names (image_id) WHERE NOT alias;
CREATE TRIGGER touch BEFORE UPDATE ON image_names FOR EACH ROW EXECUTE FUNCTION touch_row();

CREATE FUNCTION name_image() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO image_names (project_id, name, image_id) VALUES (NEW.project_id, NEW.name, NEW.id);
  ELSIF NEW.name <> OLD.name THEN
    UPDATE image_names SET name = NEW.name WHERE image_id = NEW.id AND NOT alias;
  END IF;
  RETURN NULL;
END $$;
INSERT INTO image_names (project_id, name, image_id) SELECT project_id, name, id FROM images;
CREATE TRIGGER name_image AFTER INSERT OR UPDATE OF name ON images FOR EACH ROW EXECUTE FUNCTION name_image();

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
DROP TRIGGER name_image ON images;
DROP FUNCTION name_image();
DROP TABLE image_names;
-- +goose StatementEnd

package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// Replace replaces the file at a path by one that its owner alone can read, in
// one step: after a crash of the process there is the old one or the new one.
// With sync that holds for a power loss too, and the new one is there once Replace
// has returned. What a crash leaves half-written begins with ".tmp-".
func Replace(path string, data []byte, sync bool) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".tmp-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if sync {
		err = errors.Join(err, f.Sync())
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if !sync {
		return nil
	}
	return SyncFolder(path)
}

// SyncFolder flushes the folder that a file is in, or was: what was renamed or removed
// there.
func SyncFolder(file string) error {
	d, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Package durable writes small records so that after any crash there is the old
// one or the new one, never a part.
//
// A record is written under a temporary name, flushed to the disk, renamed over
// the old one, and then its folder is flushed. Names are relative to an os.Root,
// so nothing here can leave the folder it was given. A crash may leave a file
// that ends in ".tmp", which Sweep removes.
package durable

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Suffix ends the names of files that are not yet whole.
const Suffix = ".tmp"

// Write replaces a file of the root by data.
func Write(root *os.Root, name string, data []byte) error {
	tmp := name + Suffix
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		_ = root.Remove(tmp)
		return fmt.Errorf("write %s: %w", name, err)
	}
	return Sync(root)
}

// WriteJSON replaces a file of the root by v.
func WriteJSON(root *os.Root, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return Write(root, name, append(b, '\n'))
}

// ReadJSON reads a file of the root into v. The error of a missing file satisfies
// fs.ErrNotExist.
func ReadJSON(root *os.Root, name string, v any) error {
	b, err := root.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// Sync flushes the root folder itself: what was renamed or removed in it.
func Sync(root *os.Root) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// Sweep removes what an interrupted Write left.
func Sweep(root *os.Root) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), Suffix) {
			continue
		}
		if err := root.Remove(e.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

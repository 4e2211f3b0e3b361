package cli

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/driver/durable"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// contexts is the file of clusters a person works with.
type contexts struct {
	Current  string        `yaml:"current,omitempty"`
	Contexts []contextFile `yaml:"contexts"`
}

// contextFile is one cluster, and who one is there.
type contextFile struct {
	Name        string   `yaml:"name"                  json:"name"`
	Addresses   []string `yaml:"addresses,omitempty"   json:"addresses,omitempty"`
	Socket      string   `yaml:"socket,omitempty"      json:"socket,omitempty"`
	Fingerprint string   `yaml:"fingerprint,omitempty" json:"fingerprint,omitempty"`
	Token       string   `yaml:"token,omitempty"       json:"-"`
}

func (c contextFile) config() client.Config {
	return client.Config{Addresses: c.Addresses, Socket: c.Socket, Fingerprint: c.Fingerprint, Token: c.Token}
}

func (a *app) contextsPath() (string, error) {
	dir := a.env("XDG_CONFIG_HOME")
	if dir == "" {
		home := a.env("HOME")
		if home == "" {
			return "", errs.New(errs.HostFailure, "neither HOME nor XDG_CONFIG_HOME is set, so there is no place for contexts")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "novacron", "contexts.yaml"), nil
}

// loadContexts reads the file; one that is missing is empty.
func (a *app) loadContexts() (contexts, error) {
	var all contexts
	path, err := a.contextsPath()
	if err != nil {
		return all, nil //nolint:nilerr // without a home there are no contexts, which is no error to a reader
	}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return all, errs.New(errs.HostFailure, "the contexts in %s cannot be read", path).Because(err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	dec.KnownFields(true)
	if err := dec.Decode(&all); err != nil {
		return all, errs.New(errs.InvalidField, "the contexts in %s cannot be read: mend or remove the file", path).Because(err)
	}
	return all, nil
}

// saveContexts replaces the file whole; it holds tokens, so it is the owner's.
func (a *app) saveContexts(all contexts) error {
	path, err := a.contextsPath()
	if err != nil {
		return err
	}
	raw, err := yaml.Marshal(all)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err == nil {
		err = durable.Replace(path, raw, true)
	}
	if err != nil {
		return errs.New(errs.HostFailure, "the contexts in %s cannot be written", path).Because(err)
	}
	return nil
}

func (c *contexts) find(name string) (contextFile, bool) {
	i := slices.IndexFunc(c.Contexts, func(f contextFile) bool { return f.Name == name })
	if i < 0 {
		return contextFile{}, false
	}
	return c.Contexts[i], true
}

// put adds a context or replaces the one of its name.
func (c *contexts) put(f contextFile) {
	c.Contexts = slices.DeleteFunc(c.Contexts, func(old contextFile) bool { return old.Name == f.Name })
	c.Contexts = append(c.Contexts, f)
	slices.SortFunc(c.Contexts, func(x, y contextFile) int { return strings.Compare(x.Name, y.Name) })
}

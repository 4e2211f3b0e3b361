package daemon

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/novacron/novacron/internal/driver/volume/pool"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// poolsDir holds what a node keeps in mind of its storage pools.
const poolsDir = "pools"

// ReadPools reads NAME=PATH of storage pools. Each name is one of the cluster's, and each
// path a folder that is absolute.
func ReadPools(flags []string) (map[string]string, error) {
	out := map[string]string{}
	for _, f := range flags {
		name, path, ok := strings.Cut(f, "=")
		if !ok {
			return nil, errs.New(errs.InvalidField, "%q is not NAME=PATH of a storage pool, as in shared=/mnt/shared", errs.Clip(f))
		}
		if err := id.CheckName("pool", name); err != nil {
			return nil, err
		}
		if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
			return nil, errs.New(errs.InvalidField, "%q is not the absolute path of a folder, which storage pool %s needs", errs.Clip(path), name)
		}
		if _, twice := out[name]; twice {
			return nil, errs.New(errs.InvalidField, "storage pool %s is named twice", name)
		}
		out[name] = filepath.Clean(path)
	}
	if len(out) > nodelink.MostPools {
		return nil, errs.New(errs.OutOfRange, "a node has at most %d storage pools", nodelink.MostPools)
	}
	return out, nil
}

// openPools makes the node's storage pools, which nobody has looked at yet.
func openPools(o Options, who *identity, boot string, d drivers) (out []*pool.Pool, err error) {
	if len(o.Pools) == 0 {
		return nil, nil
	}
	memory := filepath.Join(o.DataDir, poolsDir)
	if err := os.MkdirAll(memory, 0o700); err != nil {
		return nil, errs.New(errs.HostFailure, "the folder of what the node keeps in mind of its pools cannot be made").Because(err)
	}
	for _, name := range slices.Sorted(maps.Keys(o.Pools)) {
		path := o.Pools[name]
		if err := apart(name, path, o.DataDir); err != nil {
			return nil, err
		}
		out = append(out, pool.New(pool.Options{
			Name: name, Path: path, Remember: filepath.Join(memory, name+".json"),
			Node: who.state.Node, Boot: boot, Open: d.inPool, Clock: o.Clock,
		}))
	}
	return out, nil
}

// apart refuses a pool in the node's own folder, or around it: what is there is the node's
// alone.
func apart(name, path, data string) error {
	own, err := filepath.Abs(data)
	if err != nil {
		return errs.New(errs.HostFailure, "the node's folder has no absolute path").Because(err)
	}
	a, b := resolved(path), resolved(own)
	if a == b || within(a, b) || within(b, a) {
		return errs.New(errs.InvalidField, "storage pool %s cannot be %s: that is in the node's own folder %s, or around it; take a folder that other nodes have, too", name, path, own)
	}
	return nil
}

func within(path, folder string) bool {
	return strings.HasPrefix(path, strings.TrimSuffix(folder, "/")+"/")
}

// resolved follows links as far as there is something.
func resolved(path string) string {
	for at, rest := path, ""; ; at, rest = filepath.Dir(at), filepath.Join(filepath.Base(at), rest) {
		if r, err := filepath.EvalSymlinks(at); err == nil {
			return filepath.Join(r, rest)
		}
		if at == "/" || at == "." {
			return path
		}
	}
}
